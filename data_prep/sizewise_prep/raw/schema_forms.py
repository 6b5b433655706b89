"""A schema file as people write it: columns whose kind has options, as mappings, in the form that `Layout` has.

spread({"columns": {"user": "token", "item": "token", "both": {"kind": "cross", "of": ["user", "item"]}}})
# {"columns": {"user": "token", "item": "token"}, "crosses": {"both": ["user", "item"]}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OPTIONS = {"cross": ("of",)}
"""Of each kind that has any."""


class FormError(ValueError):
    """What is wrong with a schema file: `steps` lead to the value, `what` says it."""

    def __init__(self, steps: list[Any], what: str) -> None:
        super().__init__(what)
        self.steps, self.what = steps, what


def spread(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with a text for each column's kind; what its options say is under `crosses`.

    Args:
        document: a mapping that has `columns`.

    Raises:
        FormError: a column's mapping, or what is under `crosses`, is not of the right form.
    """
    columns, crosses = document["columns"], document.get("crosses") or {}
    if not isinstance(crosses, Mapping):
        raise FormError(["crosses"], "write a `name: [column, column]` a line")
    if not isinstance(columns, Mapping):
        return dict(document)
    made = {name: _names(["crosses", name], parts) for name, parts in crosses.items()}
    kept = {}
    for name, written in columns.items():
        if not isinstance(written, Mapping):
            kept[name] = written
            continue
        steps = ["columns", name]
        kind = _kind(steps, written)
        if kind == "cross":
            if name in made:
                raise FormError(steps, "is under `crosses` too: name it once")
            made[name] = _names([*steps, "of"], written.get("of"))
        else:
            kept[name] = kind
    return {**document, "columns": kept, **({"crosses": made} if made else {})}


def _kind(steps: list[Any], written: Mapping[str, Any]) -> Any:
    """The kind that a column's mapping states, once its options are those of the kind."""
    if "kind" not in written:
        raise FormError(steps, "write `kind:` and its options, such as {kind: cross, of: [user, item]}")
    kind = written["kind"]
    known = _OPTIONS.get(kind, ()) if isinstance(kind, str) else ()
    for option in written:
        if option not in ("kind", *known):
            has = f"has {', '.join(known)}" if known else "has no options"
            raise FormError([*steps, option], f"unknown option; a `{kind!s:.20}` {has}")
    return kind


def _names(steps: list[Any], names: Any) -> list[str]:
    """Names of columns, as a list."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormError(steps, "name two or more columns, such as [user, item]")
    if not isinstance(steps[1], str):
        raise FormError(steps, "quote the key, for it is not text as it is")
    return names
