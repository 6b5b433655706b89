"""Options that a method or a model declares, as a study file writes them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from sizewise.config.fields import Choices, Range, form_of


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
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None
