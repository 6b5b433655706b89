"""Tables in human units that download as CSV and Parquet.

    show(study.front, key="front", columns=evaluation_columns())

Downloads hold every row and column in plain units (bytes, seconds) under the names that `sizewise results` uses.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any, Literal

import polars as pl
import streamlit as st

from sizewise.metrics.registry import of_column, with_listed
from sizewise_dashboard.elements.today import COLUMNS

_TO_BEST = {
    "auc_to_best": "AUC to the best",
    "auc_to_best_low": "to the best, from",
    "auc_to_best_high": "to the best, to",
    "logloss_to_best": "log-loss to the best",
    "logloss_to_best_low": "log-loss to the best, from",
    "logloss_to_best_high": "log-loss to the best, to",
}
_INTERVALS = {
    "auc_low": "AUC, from",
    "auc_high": "AUC, to",
    "auc_error": "AUC's error by rows",
    "auc_seed_error": "AUC's error by seeds",
    "logloss_low": "log-loss, from",
    "logloss_high": "log-loss, to",
    "logloss_error": "log-loss's error by rows",
    "logloss_seed_error": "log-loss's error by seeds",
}
# Longer labels of metrics, and labels of columns that are not metrics.
_LABELS = {
    "memory_budget": "memory budget",
    "epoch": "epochs done",
    "train_seconds": "training seconds",
    "cpu_seconds": "cpu seconds",
    "gpu_seconds": "gpu seconds",
    "samples_per_second": "samples/s",
    "teacher_iterations": "teacher's iterations",
    "teacher_seconds": "teacher's seconds",
    **_TO_BEST,
    **_INTERVALS,
    **COLUMNS,
}
_FORMATS = {
    "money": "%,.4f",
    "missing_share": "percent",
    "cardinality": "%,d",
    "learning_rate": "%.3g",
    "teacher_iterations": "%,d",
    "teacher_seconds": "%,.1f",
    **dict.fromkeys([*_TO_BEST, *COLUMNS], "%+.4f"),
    **dict.fromkeys(_INTERVALS, "%.4f"),
}
_MOST_CARDS = 20
_UNITS = [(1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")]


def evaluation_columns() -> list[str]:
    """The columns of a table of evaluations, by default: what decides first, how sure that is at the end."""
    size = ["embedding_bytes", "compression_ratio", "model_bytes"]
    first = ["trial_id", "stored_as", "auc", *list(_TO_BEST)[:3], *size, "iteration", "epoch"]
    return [*with_listed(first, after="epoch"), *_INTERVALS, *list(_TO_BEST)[3:]]


def show(
    table: pl.DataFrame,
    key: str,
    columns: Sequence[str] = (),
    height: int | Literal["auto"] = "auto",
    on_select: Callable[[], None] | None = None,
    selected: Sequence[int] = (),
    alt: str | None = None,
) -> None:
    """Show a table with links to its downloads.

    Args:
        table: all rows and columns, which the downloads hold.
        key: of the component, whose session state holds which rows are ticked, and the name of its downloads.
        columns: those to show; all if empty.
        height: in pixels.
        on_select: called when rows are ticked; None: they cannot be.
        selected: positions of the rows that are ticked at first.
        alt: for screen readers; the key if None.
    """
    unknown = {
        name for name in (*_TO_BEST, *_INTERVALS) if name in table.columns and table[name].is_null().all()
    }
    shown = [name for name in columns or table.columns if name in table.columns and name not in unknown]
    drawn, config = _formatted(table.select(shown))
    options: dict[str, Any] = {}
    if on_select:
        default = {"selection": {"rows": list(selected)}}
        options = {"on_select": on_select, "selection_mode": "multi-row", "selection_default": default}
    options |= {"height": height, "column_config": config, "key": key, "alt": alt or key}
    st.dataframe(drawn, hide_index=True, placeholder="", **options)
    st.html(_as_cards(drawn, config))
    with st.container(horizontal=True, gap="small"):
        for kind, make in (("CSV", as_csv), ("Parquet", as_parquet)):
            st.download_button(
                f"Download {kind}",
                data=partial(make, table),
                file_name=f"sizewise-{key}.{kind.lower()}",
                key=f"{key}_{kind}",
                on_click="ignore",
                type="tertiary",
            )


def _as_cards(table: pl.DataFrame, config: dict[str, Any]) -> str:
    """The first rows as lists of facts, which narrow screens show in the place of the table."""
    cards = []
    for row in table.head(_MOST_CARDS).iter_rows(named=True):
        facts = {name: _cell(value, config.get(name)) for name, value in row.items()}
        items = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"
            for name, text in facts.items()
            if text
        )
        cards.append(f'<dl class="sizewise-facts">{items}</dl>')
    more = f"<p>and {table.height - _MOST_CARDS:,} more rows</p>" if table.height > _MOST_CARDS else ""
    return f'<div class="sizewise-rows">{"".join(cards)}{more}</div>'


def _cell(value: Any, column: Any) -> str:
    """A value as its column's format in the table has it."""
    if value is None or value != value:
        return ""
    form = (column or {}).get("type_config", {}).get("format") or ""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if form == "percent":
        return f"{value:.2%}"
    digits = re.search(r"%(\+?)(,?)(\.\d+)?([dfg])(x?)", form)
    if not digits:
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    sign, comma, places, kind, unit = digits.groups()
    if kind == "g" and abs(value) >= 1_000:
        return f"{value:,.0f}{unit}"
    return f"{value:{sign}{comma}{places or ''}{'.0f' if kind == 'd' else kind}}{unit}"


def height_of(rows: int, most: int) -> int:
    """The height in pixels of a table with as many rows, `most` at the most."""
    return min(38 + 35 * rows, most)


def label(name: str) -> str:
    """The heading of a column."""
    if name in _LABELS:
        return _LABELS[name]
    metric = of_column(name)
    return metric.label if metric else name.replace("_", " ")


def _spreadsheet(name: str) -> str | None:
    """The printf format of a column's numbers in the browser; None for the default."""
    metric = of_column(name)
    return (metric.spreadsheet or None) if metric else _FORMATS.get(name)


def is_size(name: str) -> bool:
    """Whether a column holds bytes."""
    metric = of_column(name)
    return (
        (metric is not None and metric.unit == "bytes") or name.endswith("_bytes") or name == "memory_budget"
    )


def _formatted(table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, object]]:
    """The table with sizes in one unit a column, which its heading names, and the format of each column."""
    config: dict[str, object] = {}
    names: dict[str, str] = {}
    for name in table.columns:
        heading, form = label(name), _spreadsheet(name)
        if is_size(name) and table[name].dtype.is_numeric():
            scale, unit = unit_of(table[name])
            table = table.with_columns(pl.col(name) / scale)
            heading, form = f"{heading} ({unit})", "%,.4g" if unit != "B" else "%,d"
        if heading in (*table.columns, *names.values()) and heading != name:
            heading = f"{heading} "  # no two columns of a table may share a heading
        names[name] = heading
        if form and table[name].dtype.is_numeric():
            config[heading] = st.column_config.NumberColumn(format=form)
    return table.rename(names), config


def unit_of(sizes: pl.Series) -> tuple[float, str]:
    """The unit in which the middle of a column's sizes (in their logarithm) is a number from 1 to 999."""
    positive = sizes.drop_nulls().cast(pl.Float64)
    positive = positive.filter(positive >= 1)
    middle = float(positive.log10().mean() or 0.0) if len(positive) else 0.0  # type: ignore[arg-type]
    return _UNITS[min(math.floor(middle / 3), len(_UNITS) - 1)]


def as_csv(table: pl.DataFrame) -> bytes:
    """A table as the download has it."""
    return table.write_csv().encode()


def as_parquet(table: pl.DataFrame) -> bytes:
    """A table as the download has it."""
    out = io.BytesIO()
    table.write_parquet(out)
    return out.getvalue()
