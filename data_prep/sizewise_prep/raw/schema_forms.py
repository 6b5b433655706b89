"""A schema file as people write it: columns whose kind has options, as mappings, in the form that `Layout` has.

spread({"columns": {"user": "token", "item": "token", "both": {"kind": "cross", "of": ["user", "item"]}}})
# {"columns": {"user": "token", "item": "token"}, "crosses": {"both": ["user", "item"]}}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from sizewise_core.errors import first_problem
from sizewise_prep.raw.options import (
    ANY_LABEL,
    MOST_SEPARATOR,
    Bucket,
    ListKind,
    TransformKind,
    label_rule_of,
)

_OPTIONS = {
    "cross": ("of",),
    "tokens": ("separator", "of"),
    "bucket": ("of", "quantiles", "edges"),
    "number": ("transform",),
    "integer": ("transform",),
}
"""Of each kind that has any."""
_FORMS = {
    "crosses": "`name: [column, column]`",
    "buckets": "`name: {of: column, quantiles: 20}`",
    "transforms": "`column: standardize` (or log1p, none)",
    "lists": '`column: {separator: "|"}`',
}


class FormError(ValueError):
    """What is wrong with a schema file: `steps` lead to the value, `what` says it."""

    def __init__(self, steps: list[Any], what: str) -> None:
        super().__init__(what)
        self.steps, self.what = steps, what


def spread(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with a text for each column's kind, what its options say under `crosses` and other keys.

    Args:
        document: a mapping that has `columns`.

    Raises:
        FormError: a column's mapping, or what is under these keys, is not of the right form.
    """
    columns = document["columns"]
    for key, form in _FORMS.items():
        if not isinstance(document.get(key) or {}, Mapping):
            raise FormError([key], f"write {form} a line")
    if not isinstance(columns, Mapping):
        return dict(document)
    made: dict[str, dict[Any, Any]] = {
        "crosses": {
            name: _names(["crosses", name], parts) for name, parts in (document.get("crosses") or {}).items()
        },
        "buckets": {
            name: _bucket(["buckets", name], name, options)
            for name, options in (document.get("buckets") or {}).items()
        },
        "transforms": {
            name: _transform(["transforms", name], kind)
            for name, kind in (document.get("transforms") or {}).items()
        },
        "lists": {
            name: _list_form(["lists", name], form) for name, form in (document.get("lists") or {}).items()
        },
    }
    kept: dict[Any, Any] = {}
    for name, written in columns.items():
        if isinstance(name, Sequence) and not isinstance(name, str):
            kept |= _any_of(["columns", name], written, columns)
            continue
        if not isinstance(written, Mapping):
            kept[name] = written
            continue
        steps = ["columns", name]
        kind = _kind(steps, written)
        options = {option: value for option, value in written.items() if option != "kind"}
        key, value = _option(steps, kind, options)
        if key and name in made[key]:
            raise FormError(steps, f"is under `{key}` too: name it once")
        if key:
            made[key][name] = value
        if kind != "cross" and not (kind == "bucket" and options.get("of", name) != name):
            kept[name] = kind
    return {**document, "columns": kept, **{key: value for key, value in made.items() if value}}


def _any_of(steps: list[Any], written: Any, columns: Mapping[Any, Any]) -> dict[str, str]:
    """The kind of each of several columns, any of which makes a row a click."""
    names = list(steps[1])
    if written != "any" or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise FormError(steps, "of two or more columns write `[like, share]: any`, with their names as texts")
    if twice := [name for name in names if name in columns or names.count(name) > 1]:
        raise FormError(steps, f"names {twice[0]:.40} twice")
    return dict.fromkeys(names, ANY_LABEL)


def _option(steps: list[Any], kind: Any, options: Mapping[str, Any]) -> tuple[str, Any]:
    """Where a column's options belong, and what they say there; empty where it has none."""
    if kind == "cross":
        return "crosses", _names([*steps, "of"], options.get("of"))
    if kind == "bucket":
        return "buckets", _bucket(steps, steps[1], options)
    if kind == "tokens" and options:
        return "lists", _list_form(steps, options)
    if "transform" in options:
        return "transforms", _transform([*steps, "transform"], options["transform"])
    return "", None


def _list_form(steps: list[Any], options: Any) -> dict[str, Any]:
    """How the values of lists are written."""
    if not isinstance(options, Mapping):
        raise FormError(steps, 'write what separates its values, such as {separator: "|"}')
    separator, kinds = options.get("separator", " "), get_args(ListKind)
    if not isinstance(separator, str) or not 1 <= len(separator) <= MOST_SEPARATOR:
        raise FormError([*steps, "separator"], 'write what stands between values in quotes, such as "|"')
    if options.get("of", "token") not in kinds:
        raise FormError(
            [*steps, "of"], f"{options['of']!s:.20} is not a kind of values: use {', '.join(kinds)}"
        )
    return dict(options)


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


def _bucket(steps: list[Any], name: Any, options: Any) -> dict[str, Any]:
    """The options of a bucket."""
    if not isinstance(name, str):
        raise FormError(steps, "quote the key, for it is not text as it is")
    if not isinstance(options, Mapping):
        raise FormError(steps, "write such as {of: age, quantiles: 20} or {of: age, edges: [18, 25, 65]}")
    for option in options:
        if option not in _OPTIONS["bucket"]:
            raise FormError(
                [*steps, option], f"unknown option; a `bucket` has {', '.join(_OPTIONS['bucket'])}"
            )
    if not isinstance(options.get("of", name), str):
        raise FormError([*steps, "of"], "name a column of numbers")
    try:
        made = Bucket.model_validate({"of": name, **options})
    except ValidationError as error:
        raise FormError(steps, first_problem(error)) from None
    return made.model_dump()


def _transform(steps: list[Any], kind: Any) -> str:
    """What models take of a dense column."""
    if kind not in get_args(TransformKind):
        raise FormError(steps, f"{kind!s:.40} is none of {', '.join(get_args(TransformKind))}")
    return str(kind)


def _names(steps: list[Any], names: Any) -> list[str]:
    """Names of columns, as a list."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormError(steps, "name two or more columns, such as [user, item]")
    if not isinstance(steps[1], str):
        raise FormError(steps, "quote the key, for it is not text as it is")
    return names


def first_error(
    document: dict[Any, Any], known: Sequence[str], kinds: Sequence[str]
) -> tuple[list[Any], str] | None:
    """The place of the first error in a schema file and the error, in words; None where there is none.

    Args:
        document: the file's mapping, whose columns are spread.
        known: its keys.
        kinds: of columns.
    """
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            maybe = f" (did you mean {near[0]}?)" if near else ""
            return [key], f"unknown key{maybe}; known keys: {', '.join(known)}"
    separator, columns = document.get("separator", "\t"), document["columns"]
    if separator in ("\\t", "/t"):
        wrong = 'is a backslash and a t in single quotes or none: write "\\t" in double quotes for a tab'
        return ["separator"], wrong
    if not isinstance(separator, str) or not separator:
        return ["separator"], 'write one character in double quotes, such as "," or "\\t"'
    for key in ("header", "quotes"):
        if not isinstance(document.get(key, False), bool):
            return [key], f"write true or false, not {document[key]!r:.40}"
    if document.get("others") not in (None, "skip"):
        return ["others"], f"write `skip`, or leave it out; not {document['others']!s:.40}"
    nulls = document.get("nulls", [])
    if not isinstance(nulls, list) or not all(isinstance(null, str) for null in nulls):
        return ["nulls"], 'write a list of texts in quotes, such as ["", "NULL", "-1"]'
    if not isinstance(columns, dict):
        return ["columns"], "write one `name: kind` a line, in the order of the file"
    for name, kind in columns.items():
        if not isinstance(name, str):
            written = str(name).lower() if isinstance(name, bool) else "null" if name is None else str(name)
            wrong = f"quote the key, for it is not text as it is: '{written:.40}': {kind!s:.20}"
            return ["columns", name], wrong
        if kind not in (*kinds, ANY_LABEL) and not label_rule_of(str(kind)):
            return ["columns", name], no_kind(kind, kinds)
    return None


def no_kind(kind: object, kinds: Sequence[str]) -> str:
    """Why that is no kind."""
    if str(kind).startswith("label"):
        rules = "`label >= 4`, `label == yes` or `[like, share]: any`"
        return f"{kind!s:.40} is no rule: write `label`, or such as {rules}"
    if kind == "cross":
        return "write its columns too, such as {kind: cross, of: [user, item]}"
    near = difflib.get_close_matches(str(kind), kinds, 1)
    maybe = f" (did you mean {near[0]}?)" if near else ""
    what = "has no kind" if kind is None else f"{kind!s:.40} is not a kind{maybe}"
    return f"{what}; the kinds are {', '.join(kinds)}"
