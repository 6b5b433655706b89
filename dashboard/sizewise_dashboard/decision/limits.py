"""The limits on a model (typed, dragged in the figure, or from the address), and the model that is chosen within them.

    asked = ask(study)            # the fields, and what they say
    asked.limits.choose(study)    # as `sizewise choose` does

Without any change they ask for the smallest model that loses at most 0.002 AUC against the best trial, which is the
model in the sentence.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import polars as pl
import streamlit as st

from sizewise import results
from sizewise.figures.elements.reference import full_table
from sizewise.figures.tradeoffs.decision import SIZE_LINE
from sizewise.results import Choice, Study
from sizewise.results.decision.baseline import of_study
from sizewise.results.decision.choosing import NEAR
from sizewise.results.decision.intervals import Interval
from sizewise_core.errors import InputError
from sizewise_core.units import format_auc, format_bytes, parse_bytes
from sizewise_dashboard.elements import today
from sizewise_dashboard.elements.chart import Dragged
from sizewise_dashboard.elements.today import TODAY, Today, amount, score

BEST, FULL = "the best trial", "full tables"
_NOISE = 1e-12  # differences of AUC below it come from floating-point numbers
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s|)", re.IGNORECASE)
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "min": 60.0, "m": 60.0, "s": 1.0, "": 1.0}
_BEYOND = 1.05  # a line that was dragged beyond this many times the largest size asks for no limit
Value = TypeVar("Value")


@dataclass(frozen=True)
class Limits:
    """The limits on a model; None where there is none.

    Args:
        max_bytes: of the study's size.
        max_lost: AUC that may be lost against `reference`.
        against: what `reference` is the AUC of.
        reference: an AUC.
        min_auc: the least AUC.
        max_iterations: optimizer steps.
        max_seconds: of training.
        confident: the worse end of the interval, and not the estimate alone, must be within `max_lost`.
    """

    max_bytes: int | None = None
    max_lost: float | None = NEAR
    against: str = BEST
    reference: float = 1.0
    min_auc: float | None = None
    max_iterations: int | None = None
    max_seconds: float | None = None
    confident: bool = False

    @property
    def floor(self) -> float | None:
        """The least AUC that both limits on it allow."""
        floors = [] if self.max_lost is None else [self.reference - self.max_lost]
        floors += [] if self.min_auc is None else [self.min_auc]
        return max(floors, default=None)

    @property
    def floor_text(self) -> str:
        """The least AUC in words."""
        if self.max_lost is None or self.floor == self.min_auc:
            return "" if self.floor is None else f"AUC of at least {format_auc(self.floor)}"
        return f"lose at most {self.max_lost:g}" + ("" if self.against == BEST else f" to {self.against}")

    def met(self, size: str) -> pl.Expr:
        """Which candidates are within the limits.

        Args:
            size: the study's.
        """
        met = pl.lit(True)
        if self.max_bytes is not None:
            met &= pl.col(size) <= self.max_bytes
        if self.max_iterations is not None:
            met &= pl.col("iteration") <= self.max_iterations
        if self.max_seconds is not None:
            met &= pl.col("train_seconds") <= self.max_seconds
        if self.floor is not None:
            met &= pl.col("auc") >= self.floor - _NOISE
        return met

    def choose(self, study: Study) -> tuple[Choice, str, Interval | None]:
        """The model within the limits as `sizewise choose` takes it, why, and what the sentence says that it loses.

        Raises InputError where none fits.
        """
        if self.max_lost is None or self.against != BEST:
            found = results.choose(study, self.max_bytes, self.max_iterations, self.floor, self.max_seconds)
            size = format_bytes(getattr(found, study.size))
            return found, f"Take trial {found.trial_id} ({size}): it is {found.why}.", None
        beside = results.Limits(self.max_bytes, self.max_iterations, self.min_auc, self.max_seconds)
        answer = results.answer(study, self.max_lost, self.confident, beside)
        if not answer.met or answer.smallest is None:
            raise InputError(answer.sentence)
        return answer.smallest, answer.sentence, answer.loss

    def without(self) -> Iterator[tuple[str, "Limits"]]:
        """Each limit that there is, in words, and the limits without it."""
        if self.max_bytes is not None:
            yield "size", replace(self, max_bytes=None)
        if self.max_iterations is not None:
            yield "iterations", replace(self, max_iterations=None)
        if self.max_seconds is not None:
            yield "training time", replace(self, max_seconds=None)
        if self.floor is not None:
            yield "AUC", replace(self, max_lost=None, min_auc=None, confident=False)


@dataclass(frozen=True)
class Asked:
    """What the fields say, what is wrong with those that say nothing, and what the model that was chosen loses."""

    limits: Limits
    problems: tuple[str, ...] = ()
    today: Today = field(default_factory=Today)
    lost: Interval | None = None


def ask(study: Study) -> Asked:
    """The two fields of the first screen; what models are compared with, and further limits, behind buttons."""
    problems: list[str] = []

    @contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            problems.append(str(error))

    limits = Limits()
    with noted():
        limits = replace(limits, max_bytes=_field("Size at most", "max_bytes", "any size", _size_of(study)))
    with noted():
        limits = replace(limits, max_lost=_field("AUC lost at most", "max_lost", "any", score, f"{NEAR:g}"))
    against, reference, compared = _against(study)
    limits = replace(limits, against=against, reference=reference)
    with st.popover("More limits"):
        sure = st.toggle(
            "Sure to lose no more",
            key="confident",
            bind="query-params",
            help="The worse end of the 95 % interval of what a model loses must be within the limit, not the estimate "
            "alone; it allows for the choice among all candidates.",
        )
        limits = replace(limits, confident=bool(sure))
        with noted():
            limits = replace(
                limits, max_iterations=_field("Iterations at most", "max_iterations", "any", count)
            )
        with noted():
            limits = replace(limits, min_auc=_field("AUC at least", "min_auc", "any", score))
        with noted():
            limits = replace(limits, max_seconds=_training())
    if limits.confident and limits.max_lost is not None and against != BEST:
        problems.append(
            f"Sure to lose no more is known against {BEST} alone: compare with it, or leave that out"
        )
    return Asked(limits, (*problems, *compared.problems), compared)


def _against(study: Study) -> tuple[str, float, Today]:
    """What a loss counts from, its AUC, and what runs today, behind a button that names the first."""
    named = st.session_state.get("lost_against") or st.query_params.get("lost_against") or BEST
    with st.popover(f"against {named}", key="against"):
        choice = st.empty()
        compared = today.ask(of_study(study))
        known = {name: float(row["auc"][0]) for name, row in references(study).items()}
        if compared.baseline is not None:
            known[TODAY] = compared.baseline.auc
        if st.session_state.get("lost_against") not in known:
            st.session_state.pop("lost_against", None)
        chosen = choice.selectbox(
            "AUC lost against",
            list(known),
            key="lost_against",
            bind="query-params",
        )
    return chosen, known[chosen], compared


def _training() -> float | None:
    """A limit on the time of training, or on its price."""
    seconds = _field("Training at most", "max_time", "such as 2 h 30 min", duration)
    money = _field("Training costs at most", "max_cost", "any", amount)
    price = _field("Price of an hour of one trial", "price", "1", amount)
    if money is None:
        return seconds
    paid = money / (price or 1.0) * 3600
    return paid if seconds is None else min(paid, seconds)


def references(study: Study) -> dict[str, pl.DataFrame]:
    """The evaluations that a loss may be counted from, a row of the candidates each."""
    highest = study.candidates.filter(pl.col("auc") == pl.col("auc").max())
    best = highest.sort(study.size, "iteration", maintain_order=True).head(1)
    full = full_table(study)
    return {BEST: best} | ({FULL: full} if not full.is_empty() else {})


def _field(label: str, key: str, empty: str, read: Callable[[str], Value], value: str = "") -> Value | None:
    """A field for one limit, None while it is empty. Raises ValueError for what `read` does not take."""
    text = st.text_input(
        label, value=value, key=key, placeholder=empty, bind="query-params", max_chars=40, width=130
    )
    if not (text or "").strip() or text == "no limit":
        return None
    try:
        return read(str(text))
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None


def _size_of(study: Study) -> Callable[[str], int]:
    """Reads a size in bytes, or as a compression ("100x") of the study's full tables."""

    def read(text: str) -> int:
        full, ratio = study.record.data.full_bytes, text.strip().lower().replace(",", "")
        if full and ratio.endswith("x"):
            times = amount(ratio.removesuffix("x"))
            return math.floor(full / times) if times else full
        return parse_bytes(text.replace(",", ""))

    return read


def count(text: str) -> int:
    """A whole number above 0. Raises ValueError for anything else."""
    digits = text.strip().replace(",", "")
    if not digits.isdecimal() or not 0 < int(digits) < 10**15:
        raise ValueError(f"{text!r} is not a number of iterations: write it like 5000")
    return int(digits)


def duration(text: str) -> float:
    """Seconds in a text such as "90", "10 s" or "2 h 30 min". Raises ValueError for anything else."""
    words = text.strip().replace(",", "")
    parts = _TIME.findall(words)
    if not parts or re.sub(r"\s", "", _TIME.sub("", words)):
        raise ValueError(f"{text!r} is not a duration: write it like 45 s or 2 h 30 min")
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)


def follow(study: Study, limits: Limits, line: Dragged) -> None:
    """Write what a line was dragged to into its field.

    Args:
        study: the study in the figure.
        limits: before the line was dragged.
        line: which one, and where it is now.
    """
    if line.name == SIZE_LINE:
        largest = study.candidates[study.size].max() or 1
        beyond = line.value > _BEYOND * float(largest)  # type: ignore[arg-type]
        st.session_state["max_bytes"] = "" if beyond else format_bytes(max(round(line.value), 1))
        return
    st.session_state["max_lost"] = f"{max(round(limits.reference - line.value, 4), 0.0):g}"
    st.session_state["min_auc"] = ""
