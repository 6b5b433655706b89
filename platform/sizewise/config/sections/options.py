"""Options that a method or a model declares, as a study file writes them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from sizewise.config.fields import Choices, Range, form_of
from sizewise_core.errors import shown


def searched(value: Any) -> Any:
    """An option as written: a range or choices as such, anything else as it is."""
    if form_of(value) == "value":
        return value
    return (Choices if form_of(value) == "choices" else Range).model_validate(value)


def check_options(declared: type[BaseModel], options: Mapping[str, object]) -> None:
    """Make sure that a class of options takes these.

    Raises:
        ValueError: it does not; the message names the first option that is at fault.
    """
    try:
        declared.model_validate(dict(options))
    except ValidationError as error:
        raise ValueError(_said(error, options)) from None


def _said(error: ValidationError, options: Mapping[str, object]) -> str:
    """What is wrong with the first option that is at fault; where it may have several types, with each of them."""
    problems = error.errors(include_url=False)
    loc = problems[0]["loc"]
    of_it = [problem for problem in problems if problem["loc"][:1] == loc[:1]]
    if len(of_it) > 1:  # pydantic names the type at the end
        loc = loc[:1]
    what = " or ".join(dict.fromkeys(problem["msg"].removeprefix("Value error, ") for problem in of_it))
    what = what.replace(" or Input should be", " or")
    if len(loc) == 1 and loc[0] in options:
        value = options[str(loc[0])]
        what += f", not {shown(value) if isinstance(value, str) else repr(value)[:60]}"
    return f"{'.'.join(map(str, loc))}: {what}" if loc else what
