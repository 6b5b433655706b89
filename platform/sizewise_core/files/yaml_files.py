"""YAML from any author, read safely: study files, schema files, values of `--set`, Ray's cluster file.

    document = load_yaml(Path("avazu.yaml"))   # its mappings and lists remember their lines
    line_of(document, ["columns", "C14"])      # ":17"
    value = parse_yaml("{low: 1, high: 3}", plain=True)

A YAML file of a few hundred bytes can stand for billions of values (aliases of aliases), and a deeply nested one
exhausts the stack. So the parser's events are counted first, with every alias replaced by its values, and a text beyond
the limits is refused at the event that exceeds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise_core.errors import InputError

if TYPE_CHECKING:
    from ruamel.yaml.events import Event

MAX_BYTES = 256 << 10
MAX_VALUES = 10_000
"""Keys and values; an alias counts as many as it repeats."""
MAX_DEPTH = 32


class YamlError(ValueError):
    """A text that is not YAML, or larger than anyone writes by hand.

    Attributes:
        line: where, from 1; None where that is not known.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def load_yaml(path: Path, plain: bool = False) -> Any:
    """The document in a file; see `parse_yaml`.

    Raises:
        InputError: the file cannot be read, or is not YAML; with file, line and reason.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    try:
        return parse_yaml(text, plain)
    except YamlError as error:
        at = f":{error.line}" if error.line else ""
        raise InputError(f"{path}{at}: not valid YAML: {error}") from None


def parse_yaml(text: str | bytes, plain: bool = False) -> Any:
    """The one document of a text.

    Args:
        text: as UTF-8, where it is bytes.
        plain: whether to build plain dictionaries and lists rather than ones that remember their lines.

    Raises:
        YamlError: not YAML, or beyond the limits of this module.
    """
    # Here, because models and their steps need no YAML: `benchmarks.gpu` runs beside PyTorch without it.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(text) > MAX_BYTES:
        raise YamlError(f"has more than {MAX_BYTES >> 10} KiB; is it the right file?")
    try:
        content = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        raise YamlError("is not text in UTF-8; is it the right file?") from None
    try:
        _check(YAML(typ="safe", pure=True).parse(content))
        return (YAML(typ="safe", pure=True) if plain else YAML()).load(content)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        if "'\\t'" in what:
            what = "has a tab outside of a text, where YAML allows spaces only"
        raise YamlError(_short(what), mark.line + 1 if mark else None) from None
    except YamlError:
        raise
    # What looks like a number, a date or a tag, and is none.
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise YamlError(_short(str(error) or type(error).__name__)) from None


def line_of(document: Any, steps: Sequence[Any]) -> str:
    """`:7` where the last of `steps` that the document has is in line 7; empty where it has none of them."""
    line, node = "", document
    for step in steps:
        try:
            lines: Any = node.lc  # where ruamel keeps the lines
            position = lines.key if isinstance(node, Mapping) else lines.item
            line, node = f":{position(step)[0] + 1}", node[step]
        except (KeyError, IndexError, AttributeError, TypeError):
            break
    return line


def _short(text: str) -> str:
    return f"{' '.join(text.split()):.120}"


def _check(events: Any) -> None:
    """Count values; raise YamlError at the event that exceeds a limit."""
    from ruamel.yaml import events as kinds

    total = 0
    known: dict[str, int] = {}  # by anchor: the number of values that an alias of it repeats
    # Of each collection that the event is in: its anchor, and the values before it.
    opened: list[tuple[str | None, int]] = []
    for event in events:
        if isinstance(event, kinds.AliasEvent):
            if event.anchor not in known:
                raise YamlError(f"*{event.anchor:.40} names no value before it", _line(event))
            total += known[event.anchor]
        elif isinstance(event, kinds.ScalarEvent):
            total += 1
            if event.anchor:
                known[event.anchor] = 1
        elif isinstance(event, kinds.CollectionStartEvent):
            opened.append((event.anchor, total))
            known.pop(event.anchor, None)  # within itself, an anchor has no value yet
            total += 1
            if len(opened) > MAX_DEPTH:
                raise YamlError(f"is nested more than {MAX_DEPTH} deep", _line(event))
        elif isinstance(event, kinds.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                known[anchor] = total - before
        if total > MAX_VALUES:
            raise YamlError(f"holds more than {MAX_VALUES:,} values, aliases counted in full", _line(event))


def _line(event: Event) -> int | None:
    mark = event.start_mark
    return mark.line + 1 if mark else None
