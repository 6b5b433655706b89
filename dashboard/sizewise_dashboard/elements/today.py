"""What runs today, as it is typed on the page to decide on, and what a month with another model brings.

    today = ask(study)                  # the fields
    today.baseline, today.prices        # None where nothing, or not enough, was typed

Figures alone are typed here: a file of scores or a program, which give paired intervals, is named by the study file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import polars as pl
import streamlit as st

from sizewise.results import Study
from sizewise.results.decision.baseline import Baseline, Prices, against, break_even
from sizewise.results.decision.intervals import Interval
from sizewise_core.units import format_auc, format_bytes, format_ratio, parse_bytes
from sizewise_dashboard.elements.parts import plain

TODAY = "what runs today"
COLUMNS = {
    "auc_to_baseline": "AUC against today",
    "auc_to_baseline_low": "against today, from",
    "auc_to_baseline_high": "against today, to",
}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Today:
    """What runs today, and what accuracy and memory are taken to cost.

    Args:
        baseline: None where its AUC is not known.
        prices: None where one of the two prices is missing.
        problems: of fields that say nothing.
    """

    baseline: Baseline | None = None
    prices: Prices | None = None
    problems: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What differs whenever anything that is drawn does."""
        one = self.baseline
        return () if one is None else (one.name, one.auc, one.bytes, one.p99_ms, one.cost, self.prices)

    def difference(self, study: Study, one: pl.DataFrame) -> Interval | None:
        """What the AUC of a candidate is above the baseline's; None without a baseline.

        Args:
            study: the candidate's.
            one: its row.
        """
        return None if self.baseline is None else against(study, one, self.baseline)[0]

    def money(self, size: int, difference: Interval) -> str:
        """What a month with a model brings, in a sentence; empty where too little is known.

        Args:
            size: of the model, in bytes.
            difference: of its AUC to the baseline's.
        """
        if self.baseline is None or self.prices is None:
            return ""
        even = break_even(self.baseline, size, difference, self.prices)
        return "" if even is None else f"{even.text}."

    def sized(self, size: int) -> str:
        """How much smaller or larger than the baseline a model is, in words; empty where that is not known."""
        if self.baseline is None or not self.baseline.bytes or not size:
            return ""
        times = self.baseline.bytes / size
        return f"{format_ratio(times)} smaller" if times >= 1 else f"{format_ratio(1 / times)} larger"


def ask(named: Baseline | None) -> Today:
    """The fields, which begin with what the study file names.

    Args:
        named: by the study file; None where it names nothing.
    """
    problems: list[str] = []

    def field(label: str, key: str, usual: str, read: Callable[[str], Value]) -> Value | None:
        text = st.text_input(
            label, key=key, placeholder=usual or "not known", bind="query-params", max_chars=40
        )
        try:
            return read(str(text)) if (text or "").strip() else None
        except ValueError as error:
            problems.append(f"{label}: {error}")
            return None

    usual = named or Baseline(TODAY, math.nan)
    st.markdown("**What runs today**" + (f": {plain(named.name)}, of the study file" if named else ""))
    with st.container(horizontal=True):
        auc = field("Its AUC", "today_auc", format_auc(named.auc) if named else "", score)
        size = field("Its size", "today_bytes", format_bytes(usual.bytes) if usual.bytes else "", parse_bytes)
    with st.container(horizontal=True):
        p99_ms = field("p99 latency in ms", "today_p99", _number(usual.p99_ms), amount)
        cost = field("Cost of its training", "today_cost", _number(usual.cost), amount)
    st.markdown("**What a month brings and costs**")
    with st.container(horizontal=True):
        value = field("0.001 AUC brings in", "auc_value", "", amount)
        price = field("A GB in serving costs", "gb_price", "", amount)
        replicas = field("Replicas served", "replicas", "1", replica_count)
    if auc is None and named is None and any((size, p99_ms, cost, value, price)):
        problems.append("What runs today: fill in its AUC, by which models are compared with it")
        return Today(problems=tuple(problems))
    # With another AUC it is another model than the study file's, of whose scores nothing is known.
    baseline = named if auc is None else Baseline(TODAY, auc)
    if baseline is not None:
        baseline = replace(
            baseline,
            bytes=baseline.bytes if size is None else size,
            p99_ms=baseline.p99_ms if p99_ms is None else p99_ms,
            cost=baseline.cost if cost is None else cost,
        )
    if (value is None) != (price is None):
        problems.append("What a month brings and costs: fill in both, of 0.001 AUC and of a GB")
    prices = Prices(value, price, replicas or 1) if value is not None and price is not None else None
    if prices and baseline and not baseline.bytes:
        problems.append("What runs today: fill in its size, by which its memory is paid for")
    return Today(baseline, prices, tuple(problems))


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:g}"


def score(text: str) -> float:
    """An AUC, or a difference of two. Raises ValueError for anything that is not a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is not a number from 0 to 1: write it like 0.002")
    return value


def amount(text: str) -> float:
    """A number above 0. Raises ValueError for anything else."""
    try:
        value = float(text.strip().lstrip("$").replace(",", ""))
    except ValueError:
        value = math.nan
    if not 0 < value < 1e12:
        raise ValueError(f"{text!r} is not an amount above 0: write it like 2.50")
    return value


def replica_count(text: str) -> int:
    """How many copies of a model are served. Raises ValueError for anything but a whole number above 0."""
    if not text.strip().isdecimal() or not 0 < int(text) < 10**7:
        raise ValueError(f"{text!r} is not a number of replicas: write it like 40")
    return int(text)
