"""The exception for input that its owner can fix, and how messages quote text from files.

Raised with a message that names the file, the line and field where there is one, and the fix. Programs show
the message without a traceback and end with exit code 2. Any other exception is a fault of Sizewise or of the
machine.
"""

from pydantic import ValidationError


class InputError(ValueError):
    """Input that its owner can fix: a file, a row, a setting. The message says which and how."""


def shown(text: str, most: int = 60) -> str:
    """Text from a file as a message quotes it: quoted, control characters escaped, a long text without its middle."""
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 4 :]}"
    return ascii(text)


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as "field: problem"; nested fields are dotted."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))
    if len(field) > 60 or not (field.isascii() and field.isprintable()):
        field = shown(field, 40)
    what = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        what = f"{shown(str(problem['input']), 40)} is not of the right form"
    what = what if len(what) <= 120 else what[:117] + "..."
    return f"{field}: {what}" if field else what
