"""Commands whose options are the fields of one record, for commands with many options."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")


def takes(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Let Typer see the fields of a dataclass as the parameters of a command that takes the dataclass.

    Args:
        options: a dataclass whose fields are annotated as Typer's parameters are, with defaults where they have one.

    Returns:
        A decorator for the command's function, to be applied before `app.command()`.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(options)  # type: ignore[arg-type]
    ]

    def decorated(function: Callable[[Options], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(*given: Any, **named: Any) -> None:
            function(options(*given, **named))

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorated
