"""Which model to ship: limits on size, iterations and AUC, the best within them, what each limit costs."""

import math
from dataclasses import asdict, dataclass, replace

import polars as pl
import streamlit as st

from sizewise import results
from sizewise.results import Choice, Study
from sizewise.units import format_auc, format_bytes, format_count
from sizewise_dashboard.parts import current_study, evaluation_table, plain, read_view, show_problems
from sizewise_prep.errors import InputError
from sizewise_prep.storage import Place

_NO_LIMIT = "no limit"
_MOST_RUNNERS_UP = 10


@dataclass(frozen=True)
class Limits:
    """What may at most or must at least be; None where there is no limit."""

    max_bytes: int | None
    max_iterations: int | None
    min_auc: float | None


def page(runs: Place) -> None:
    """Ask for the limits and show the choice."""
    study = read_view(runs, current_study()).study
    if study.candidates.is_empty():
        st.info(plain(results.answer(study).sentence))
        return
    limits = _ask(study)
    try:
        chosen = results.choose(study, **asdict(limits))
    except InputError as error:
        st.warning(plain(str(error)))
    else:
        _show(study, chosen, limits)
    show_problems(study)


def _ask(study: Study) -> Limits:
    """The limits, from sliders over what the study has measured."""
    points = study.candidates
    left, middle, right = st.columns(3, gap="large")
    with left:
        sizes = {format_bytes(size): size for size in ladder(points[study.size].drop_nulls().to_list())}
        max_bytes = _slider("Size at most", [*sizes, _NO_LIMIT], "max_bytes")
    with middle:
        steps = {format_count(step): step for step in ladder(points["iteration"].to_list())}
        max_iterations = _slider("Iterations at most", [*steps, _NO_LIMIT], "max_iterations")
    with right:
        # in thousandths, from the worst AUC to the best
        low, high = (math.ceil(1000 * float(auc)) for auc in points["auc"].sort()[[0, -1]])
        floors = {f"{thousandths / 1000:.3f}": thousandths / 1000 for thousandths in range(low, high + 1)}
        min_auc = _slider("AUC at least", [_NO_LIMIT, *floors], "min_auc")
    return Limits(sizes.get(max_bytes), steps.get(max_iterations), floors.get(min_auc))


def ladder(values: list[int]) -> list[int]:
    """Round steps (1, 1.5, 2, 3, 5, 7 times a power of ten) from above the least value to above the greatest.

    Round, and not the values themselves, so that a limit in the address stays a step while a study grows.
    """
    low, high = max(min(values), 1), max(values)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    steps = sorted({round(step * 10**power) for power in powers for step in (1, 1.5, 2, 3, 5, 7)})
    top = next(step for step in steps if step >= high)
    return [step for step in steps if low <= step <= top]


def _slider(label: str, steps: list[str], key: str) -> str:
    """A slider that starts at no limit; the address bar holds where it stands."""
    chosen: str = st.select_slider(label, steps, value=_NO_LIMIT, key=key, bind="query-params")
    return chosen


def _show(study: Study, chosen: Choice, limits: Limits) -> None:
    st.markdown(f"#### {plain(f'Take {_point(study, chosen)}')}")
    st.caption(plain(f"It is {chosen.why}."))
    relaxed = {"max_bytes": "size", "max_iterations": "iterations", "min_auc": "AUC"}
    for name, what in relaxed.items():
        if getattr(limits, name) is not None:
            other = results.choose(study, **asdict(replace(limits, **{name: None})))
            st.markdown(f"- {plain(f'Without the limit on {what}: {_point(study, other)}')}")
    others = _runners_up(study, chosen, limits)
    if not others.is_empty():
        st.subheader("Next best within the limits")
        evaluation_table(others, key="runners_up")


def _point(study: Study, choice: Choice) -> str:
    size = format_bytes(getattr(choice, study.size))
    steps = format_count(choice.iteration)
    return f"trial {choice.trial_id} at iteration {steps}: AUC {format_auc(choice.auc)} with {size}"


def _runners_up(study: Study, chosen: Choice, limits: Limits) -> pl.DataFrame:
    """The best evaluation of every other trial within the limits, in the order that the choice follows."""
    fitting = study.candidates.filter(pl.col("trial_id") != chosen.trial_id)
    if limits.max_bytes is not None:
        fitting = fitting.filter(pl.col(study.size) <= limits.max_bytes)
    if limits.max_iterations is not None:
        fitting = fitting.filter(pl.col("iteration") <= limits.max_iterations)
    order, down = ["auc", study.size, "iteration"], [True, False, False]
    if limits.min_auc is not None:
        fitting = fitting.filter(pl.col("auc") >= limits.min_auc)
        order, down = [study.size, "iteration", "auc"], [False, False, True]
    ranked = fitting.sort(order, descending=down)
    return ranked.unique("trial_id", keep="first", maintain_order=True).head(_MOST_RUNNERS_UP)
