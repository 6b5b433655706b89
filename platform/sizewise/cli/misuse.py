"""Messages about commands that are written wrongly: one sentence, with the nearest existing name.

try:
    app(standalone_mode=False)
except UsageError as error:
    print(sentence(error))   # "sizewise results: no option --tabel: did you mean --table?"
"""

import difflib
import re
from typing import Any

import typer

# The class is click's, of which typer may bring a copy of its own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

LONGEST = 60  # characters that a message repeats of the command

# Plainer words for the errors of typer's validation.
_WANTED = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_parsing": "must be a number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "greater_than": "must be above {gt:g}",
    "less_than": "must be below {lt:g}",
}


def is_call_for_help(error: Any) -> bool:
    """Whether a command was given without arguments, so that its help is printed."""
    return type(error).__name__ == "NoArgsIsHelpError"


def sentence(error: Any) -> str:
    """One sentence that says what is wrong with a command, and the nearest correct name.

    Args:
        error: a `UsageError`.
    """
    path = error.ctx.command_path if error.ctx else "sizewise"
    return f"{path}: {_problem(error, path)}"


def _problem(error: Any, path: str) -> str:
    kind = type(error).__name__
    if kind == "NoSuchOption":
        known = (
            [name for parameter in error.ctx.command.params for name in parameter.opts] if error.ctx else []
        )
        near = _nearest(error.option_name, known)
        return f"no option {_short(error.option_name)}{near or _field(error.option_name, path) or _see(path)}"
    if kind == "MissingParameter":
        return f"{_parameter(error)} is missing{_see(path)}"
    if kind == "BadParameter":
        return f"{_parameter(error)}: {_wrong_value(error)}"
    message = error.format_message()
    if found := re.match(r"No such command '(.*?)'", message, re.DOTALL):
        known = list(error.ctx.command.commands) if error.ctx else []
        return f"no command {_short(found[1])}{_nearest(found[1], known) or _see(path)}"
    if found := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        return f"unexpected argument {_short(found[1])}{_see(path)}"
    return f"{message[0].lower()}{message[1 : 4 * LONGEST].rstrip('.')}{_see(path)}"


def _wrong_value(error: Any) -> str:
    """What is wrong with a value, in plainer words than the validation library's."""
    found = getattr(error.__cause__, "errors", None)
    if found is None:
        return f"{error.message:.200}"
    first = found()[0]
    written = _short(str(first["input"]))
    if wanted := _WANTED.get(first["type"]):
        return f"{wanted.format(**first.get('ctx', {}))}, not {written}"
    message = first["msg"].removeprefix("Value error, ")
    names = re.findall(r"'([^']*)'", message.partition(" is not one of ")[2])
    if names:
        return f"{written} is none of {', '.join(names)}{_nearest(str(first['input']), names)}"
    return f"{message[0].lower()}{message[1:200]}, not {written}"


def _parameter(error: Any) -> str:
    """An option as users write it, or an argument as the help names it."""
    parameter = error.param
    if parameter is None:
        return str(error.param_hint or "a value")
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(max(parameter.opts, key=len))


def _nearest(name: str, known: list[str]) -> str:
    """The known name that is most like this one; that both begin with dashes does not make options alike."""
    name, bare = name.lstrip("-"), {one.lstrip("-"): one for one in known}
    near = difflib.get_close_matches(name, bare, n=1) or [k for k in bare if name and k.startswith(name)][:1]
    return f": did you mean {bare[near[0]]}?" if near else ""


def _field(option: str, path: str) -> str:
    """How `run` takes a field of the study file, for those who write `--trials 3`."""
    field = option.lstrip("-").replace("-", "_")
    if not path.endswith(" run") or len(field) > LONGEST or not field.isidentifier():
        return ""
    return f"; a field of the study file is changed by --set {field}=VALUE"


def _see(path: str) -> str:
    return f" (`{path} --help` lists what there is)"


def _short(text: str) -> str:
    """A part of the command, cut if it is long, with control characters of terminals escaped."""
    quoted = repr(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
    return text if text.startswith("-") and quoted == f"'{text}'" else quoted
