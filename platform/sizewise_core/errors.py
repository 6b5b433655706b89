"""The one exception for input that its owner can fix, and how messages quote what stands in a file.

Raised with a message that names the file, the line and field where there is one, and the fix. Programs show
the message without a traceback and end with exit code 2; anything else that escapes is a fault of ours or of
the machine.
"""

from pydantic import ValidationError


class InputError(ValueError):
    """Input that its owner can fix: a file, a row, a setting. The message says which and how."""


def shown(text: str, most: int = 60) -> str:
    """Text out of a file as a message quotes it: in quotes, control characters escaped, the middle of long ones cut."""
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 4 :]}"
    return ascii(text)


def first_problem(error: ValidationError) -> str:
    """The first thing that a typed file has wrong, as "field: what"; a field of a field is dotted."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))
    if len(field) > 60 or not (field.isascii() and field.isprintable()):
        field = shown(field, 40)
    what = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        what = f"{shown(str(problem['input']), 40)} is not of the right form"
    what = what if len(what) <= 120 else what[:117] + "..."
    return f"{field}: {what}" if field else what
