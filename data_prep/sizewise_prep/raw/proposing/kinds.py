"""What the columns of a sample seem to be: label, time, number, token or nothing of use; with reasons.

    for column in judged(rows): column.name, column.kind, column.why, column.unsure

Names count where values leave it open: `price` is a quantity and `movie_id` is none, whatever integers they hold.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import polars as pl

from sizewise_prep.raw.columns.series import texts_of
from sizewise_prep.raw.options import NULLS
from sizewise_prep.raw.parsing.list_values import as_lists, flattened
from sizewise_prep.raw.proposing.doubts import doubt_of, is_decorated, mostly_numbers
from sizewise_prep.raw.values.time_order import looks_like_time

_LABELS = (
    *("label", "click", "clicked", "is_click", "is_clicked", "clk", "target", "y", "conversion", "converted"),
    *(
        "is_conversion",
        "purchase",
        "is_attributed",
        "installed",
        "is_installed",
        "like",
        "is_like",
        "response",
    ),
)
_TWO_WORDS = {
    frozenset({"-1", "1"}): "label > 0",
    frozenset({"no", "yes"}): "label == ",
    frozenset({"n", "y"}): "label == ",
    frozenset({"f", "t"}): "label == ",
}
"""Values that say no and yes as 0 and 1 do, in lower case, and the rule that reads them."""
_RATINGS = re.compile(r"(^|_)(rating|rate|stars?|score)s?($|_)", re.IGNORECASE)
_ID = re.compile(
    r"(^|_)(id|ids|idx|index|key|code|type|cat|category|zip|hash|uid|ip)($|_)|Id$|ID$", re.IGNORECASE
)
_OF_A_ROW = re.compile(
    r"|(id|idx|index|row|uuid|guid|no)|row_?id|.*(event|impression|imp|request|sample|log)_?id|Unnamed: \d+",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"(^|_)(price|cost|amount|count|cnt|num|number|n|age|width|height|size|length|duration|qty|quantity|total|sum|avg|"
    r"mean|min|max|ratio|pct|hist|days|hours|seconds|views|clicks|weight|budget|bid)($|_)",
    re.IGNORECASE,
)
_CRITEO_NUMBER = re.compile(r"I\d+|int_\d+|integer[-_]?feature[-_]?\d+|I_?\d+", re.IGNORECASE)
_INTEGER = r"\A-?[0-9]+\z"
_REAL = r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\z"
_HEX = r"\A[0-9a-f]{8}\z"
_ID_LIKE = r"\A-?[0-9a-zA-Z_]*[0-9][0-9a-zA-Z_]*\z"
"""A text with a digit, as ids have."""
_INNER = ("|", ";", "^", ", ", " ", ",")
"""What may separate values within texts; the last two only ids, for they stand between words too."""
_BRACKETED = r"\A\s*[\[(].*[\])]\s*\z"
_SEPARATED = 0.2  # of texts, at least, have more than one value
_LONG_PART = 30
_FEW, _MANY = 50, 0.999
_LEAST_ROWS = 100  # before values that never come again say something
_LONG_TEXT = 60
_TIME_VALUES = 1000
_BEYOND = float(1 << 63)
_TEMPORAL = (pl.Date, pl.Datetime, pl.Duration, pl.Time)


@dataclass(frozen=True)
class Column:
    """What one column seems to be.

    Attributes:
        name: of the column.
        kind: as a schema file says it; empty where that is left open.
        why: what its values are.
        unsure: what may be otherwise; empty where nothing is.
        values: how many distinct ones the sample has.
        missing: share of rows without one.
        nulls: texts among them that stand for a missing value.
    """

    name: str
    kind: str
    why: str
    unsure: str
    values: int
    missing: float
    nulls: tuple[str, ...] = ()


def judged(rows: pl.DataFrame) -> list[Column]:
    """A judgement of each column; one of them at most is the label, and one the time."""
    columns = [_judged(rows[name]) for name in rows.columns]
    columns = _one_label(columns, rows)
    return _one_time(columns)


def _judged(raw: pl.Series) -> Column:
    name = raw.name
    if raw.dtype.is_nested():
        return _of_lists(as_lists(raw, None))
    if raw.dtype in (pl.Duration, pl.Time):
        what = "durations" if raw.dtype == pl.Duration else "times of day"
        return Column(name, "skip", f"{what}, which are not read", "", 0, 0.0)
    values, nulls = _known(raw)
    missing = 1 - len(values) / max(1, len(raw))
    distinct = values.n_unique()

    def column(kind: str, why: str, unsure: str = "") -> Column:
        return Column(name, kind, why, unsure, distinct, missing, nulls)

    if not len(values):
        no_text = raw.dtype == pl.Binary and raw.null_count() < len(raw)
        return column("skip", "bytes that are no text" if no_text else "no value in these rows")
    if values.dtype in (pl.Date, pl.Datetime):
        return column("time", "times")
    if values.dtype == pl.Boolean:
        return column("token", "truth values")
    texts = values.cast(pl.String)
    named_id = _ID.search(name) is not None
    if not named_id and looks_like_time(name, [text.encode() for text in texts[:_TIME_VALUES]]):
        return column("time", "times", "token, to use it as a feature" if distinct <= _FEW else "")
    whole = bool(texts.str.contains(_INTEGER).all()) or (
        values.dtype.is_float() and bool((values == values.floor()).all())
    )
    real = values.dtype.is_numeric() or bool(texts.str.contains(_REAL).all())
    if distinct == 1 and len(values) >= _LEAST_ROWS:
        return column("skip", f"one value, {texts[0]:.20}", "use token, if others follow later in the files")
    if values.dtype == pl.String and not real and (lists := _lists_in(texts)):
        return replace(lists, missing=missing, nulls=nulls)
    if values.dtype == pl.String and not real and (other := mostly_numbers(texts)) is not None:
        unsure = f"token; some values are no numbers, such as {other:.20}, and make bad rows"
        return column("number", "nearly all are numbers", unsure)
    quantity = whole and not named_id and _QUANTITY.search(name) is not None
    if (
        distinct >= _MANY * len(values)
        and len(values) >= _LEAST_ROWS
        and not quantity
        and (whole or not real)
    ):
        if _OF_A_ROW.fullmatch(name.strip()):
            return column("skip", "another value in every row")
        doubt = "" if real else doubt_of(texts)
        unsure = doubt or "skip, if none comes again later in the files"
        return column("token", "another value in every row", unsure)
    if real and not whole:
        return column("number", f"real numbers{_negative(values.cast(pl.Float64))}")
    if whole:
        return column(*_of_integers(name, values.cast(pl.Float64), distinct))
    if bool(texts.str.contains(_HEX).all()):
        return column("hex", "eight hexadecimal digits")
    if float(texts.str.len_chars().mean() or 0) > _LONG_TEXT:  # type: ignore[arg-type]
        return column("skip", "long texts", "token, if the same texts come again")
    return column("token", "texts", doubt_of(texts))


def _lists_in(texts: pl.Series) -> Column | None:
    """A column of texts as one of lists, in brackets or with a separator; None where they are none."""
    if texts.str.contains(_BRACKETED).all():
        cells = as_lists(texts, None)
        if not cells.null_count():
            found = _of_lists(cells)
            return replace(found, why=found.why.replace("lists", "lists in brackets", 1))
    separator = _inner_separator(texts)
    if separator is None:
        return None
    written = json.dumps(separator)
    if separator.strip() == "," and is_decorated(texts):
        unsure = f"{doubt_of(texts)}; {{kind: tokens, separator: {written}}}, if they are lists"
        return Column(texts.name, "token", "texts", unsure, texts.n_unique(), 0.0)
    lists = _of_lists(texts.str.split(separator))
    return replace(
        lists,
        kind=f"{{kind: tokens, separator: {written}}}",
        why=f"texts, {lists.why.removeprefix('lists, ')}",
        unsure=f"token, if {written} separates nothing",
    )


def _of_lists(lists: pl.Series) -> Column:
    """A column of lists."""
    flat, _ = flattened(lists)
    flat = flat.drop_nulls()
    if flat.dtype in _TEMPORAL:
        return Column(lists.name, "skip", "lists of times, which are not read", "", flat.n_unique(), 0.0)
    if flat.dtype == pl.Binary and (flat := texts_of(flat)).null_count():
        return Column(lists.name, "skip", "lists of bytes that are no text", "", flat.n_unique(), 0.0)
    lengths = lists.list.len().fill_null(0)
    mean, longest = float(lengths.mean() or 0), int(lengths.max() or 0)  # type: ignore[arg-type]
    if not len(flat):
        return Column(lists.name, "skip", "no value in these rows", "", 0, 1.0)
    if flat.dtype.is_float() and not bool((flat == flat.floor()).all()):
        return Column(lists.name, "skip", "lists of real numbers, such as vectors", "", flat.n_unique(), 0.0)
    why = f"lists, of {mean:.1f} values in the mean and at most {longest:,}"
    return Column(lists.name, "tokens", why, "", flat.n_unique(), float((lengths == 0).mean() or 0))  # type: ignore[arg-type]


def _inner_separator(texts: pl.Series) -> str | None:
    """What separates several values within texts, if their parts come again more often than they do."""
    distinct = texts.unique()
    for separator in _INNER:
        if float(texts.str.contains(separator, literal=True).mean() or 0) < _SEPARATED:  # type: ignore[arg-type]
            continue
        parts = distinct.str.split(separator).explode()
        parts = parts.filter(parts != "")
        plain = separator not in (" ", ",") or bool(parts.str.contains(_ID_LIKE).all())
        again = parts.n_unique() <= 0.5 * len(parts)
        if len(parts) and plain and again and float(parts.str.len_chars().mean() or 0) < _LONG_PART:  # type: ignore[arg-type]
            return separator
    return None


def _of_integers(name: str, numbers: pl.Series, distinct: int) -> tuple[str, str, str]:
    """Kind, reason and doubt."""
    named = _QUANTITY.search(name) or _CRITEO_NUMBER.fullmatch(name)
    if named and bool(numbers.is_between(-_BEYOND, _BEYOND, closed="none").all()):
        return "integer", f"integers, a quantity by its name{_negative(numbers)}", ""
    if _ID.search(name):
        return "token", "integers, an id by its name", ""
    if distinct <= _FEW:
        return "token", "few integers", "integer, if they are quantities"
    if _like_counts(numbers):
        return "integer", "integers, most of them small as counts are", "token, if they are ids"
    return "token", "many integers", "integer, if they are quantities"


def _negative(numbers: pl.Series) -> str:
    """How many are below 0: models see them as 0."""
    share = float((numbers < 0).mean() or 0)  # type: ignore[arg-type]
    return f", {share:.1%} negative, which models see as 0" if share else ""


def _like_counts(numbers: pl.Series) -> bool:
    """Whether small numbers are the frequent ones, as with counts."""
    low, middle, high = (numbers.quantile(q) or 0.0 for q in (0.0, 0.5, 1.0))
    return -1 <= low <= 1 and high > 0 and middle < 0.1 * high


def _known(raw: pl.Series) -> tuple[pl.Series, tuple[str, ...]]:
    """The values without missing ones, and the texts that stand for those."""
    values = raw.drop_nulls()
    if values.dtype == pl.Binary:
        values = texts_of(values).drop_nulls()
    if values.dtype.is_float():
        return values.drop_nans(), ()
    if values.dtype.is_decimal():
        return values.cast(pl.String).str.replace(r"\.0*\z", ""), ()
    if values.dtype != pl.String:
        return values, ()
    values = values.filter(values != "")
    nulls = tuple(text for text in NULLS if (values == text).any())
    return values.filter(~values.is_in(list(nulls))) if nulls else values, nulls


def _one_label(columns: list[Column], rows: pl.DataFrame) -> list[Column]:
    """The same with the label among them, if one column can be it."""
    places = {column.name: place for place, column in enumerate(columns)}
    binary = [column for column in columns if not column.missing and _is_binary(rows[column.name])]
    named = [column for column in binary if _plain(column.name) in _LABELS]
    named.sort(key=lambda column: _LABELS.index(_plain(column.name)))
    ratings = [
        column
        for column in columns
        if not column.missing
        and _RATINGS.search(column.name)
        and (column.kind in ("integer", "number", "token"))
    ]
    found = list(columns)
    words = [(column, rule) for column in columns if (rule := _rule_of_words(column, rows[column.name]))]
    words.sort(key=lambda one: _plain(one[0].name) not in _LABELS)
    partly = [column for column in columns if column.missing and _plain(column.name) in _LABELS]
    partly = [
        column for column in partly if _is_binary(rows[column.name].filter(_has_value(rows[column.name])))
    ]
    if words and not named:
        label, rule = words[0]
        unsure = "" if _plain(label.name) in _LABELS else "by its values"
        found[places[label.name]] = replace(label, kind=rule, why="two values, yes and no", unsure=unsure)
    elif partly and not named:
        unsure = "rows without it are bad ones: leave them out with --max-bad-fraction"
        found[places[partly[0].name]] = replace(partly[0], kind="label", why="0 and 1", unsure=unsure)
    elif named or binary:
        label = (named or binary)[0]
        share = f"{_share_of_clicks(rows[label.name]):.1%} are clicks"
        others = [column.name for column in (named if len(named) > 1 else binary) if column is not label]
        unsure = ""
        if not named or len(named) > 1:
            unsure = (
                f"{', '.join(others[:3]) or 'another column'} may be the label instead"
                if others
                else "by its values"
            )
        found[places[label.name]] = replace(label, kind="label", why=share, unsure=unsure)
    elif ratings and (highest := _highest(rows[ratings[0].name])) is not None:
        bar = 0.8 * highest
        rule = f"label >= {bar:g}"
        unsure = "from which rating on a row counts as a click"
        found[places[ratings[0].name]] = replace(
            ratings[0], kind=rule, why=f"ratings up to {highest:g}", unsure=unsure
        )
    return found


def _rule_of_words(column: Column, raw: pl.Series) -> str | None:
    """The rule by which a column of two words is the label; None where it cannot be."""
    if column.missing or raw.dtype.is_nested() or raw.dtype in _TEMPORAL:
        return None
    texts: list[str] = sorted(raw.cast(pl.String, strict=False).unique().drop_nulls().to_list())
    rule = _TWO_WORDS.get(frozenset(text.lower().removesuffix(".0") for text in texts))
    if rule is None or len(texts) != 2 or (texts[0].lower() == "f" and _plain(column.name) not in _LABELS):
        return None
    return rule if rule.endswith("0") else f"{rule}{texts[1]}"


def _has_value(raw: pl.Series) -> pl.Series:
    return raw.is_not_null() & (raw.cast(pl.String, strict=False) != "")


def _one_time(columns: list[Column]) -> list[Column]:
    """The same with one time at most: the first; others are skipped."""
    times = [column for column in columns if column.kind == "time"]
    return [
        replace(column, kind="skip", unsure=f"{times[0].name} is the time; only one column can be")
        if column in times[1:]
        else column
        for column in columns
    ]


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _is_binary(raw: pl.Series) -> bool:
    if raw.dtype == pl.Boolean:
        return raw.n_unique() == 2
    if raw.dtype.is_nested() or raw.dtype in _TEMPORAL:
        return False
    known = {text or "" for text in _without_zeros(raw).unique().to_list()}
    return known in ({"0", "1"}, {"true", "false"})


def _share_of_clicks(raw: pl.Series) -> float:
    return float(_without_zeros(raw).is_in(["1", "true"]).mean() or 0)  # type: ignore[arg-type]


def _without_zeros(raw: pl.Series) -> pl.Series:
    """Values as texts in lower case, whole numbers without the zeros behind their points."""
    return raw.cast(pl.String).str.to_lowercase().str.replace(r"\.0+\z", "")


def _highest(raw: pl.Series) -> float | None:
    numbers = raw.cast(pl.Float64, strict=False)
    highest = numbers.max()
    if numbers.null_count() or highest is None or not 2 <= float(highest) <= 100:  # type: ignore[arg-type]
        return None
    return float(highest)  # type: ignore[arg-type]
