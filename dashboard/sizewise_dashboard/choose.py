"""Which model to deploy: limits on size, effort and AUC, the best model within them, and what each limit costs."""

import math
from dataclasses import asdict, dataclass, replace

import polars as pl
import streamlit as st

from sizewise import results
from sizewise.figures.reference import full_table
from sizewise.results import Choice, Study
from sizewise.results.commands import export, run_longer
from sizewise_core.errors import InputError
from sizewise_core.storage import Place
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio, format_seconds
from sizewise_dashboard import tables
from sizewise_dashboard.parts import opened, plain, show_problems

_NO_LIMIT = "no limit"
_MOST_RUNNERS_UP = 10
_EFFORTS = ("iterations", "hours", "dollars")
_PRICES = (0.01, 100_000.0)  # dollars an hour
_LOSSES = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Limits:
    """The limits on a model; None where there is none."""

    max_bytes: int | None = None
    max_iterations: int | None = None
    min_auc: float | None = None
    max_seconds: float | None = None


def page(runs: Place, details: st.Page | None = None) -> None:
    """Ask for the limits and show the choice."""
    study = opened(runs).study
    if study.candidates.is_empty():
        st.info(plain(results.answer(study).sentence))
        show_problems(study)
        return
    limits = _ask(study)
    try:
        chosen = results.choose(study, **asdict(limits))
    except InputError as error:
        st.warning(plain(str(error)))
    else:
        _show(study, chosen, limits, details)
    show_problems(study)


def _ask(study: Study) -> Limits:
    """The limits, from sliders over the values in the study; the address holds their positions."""
    points = study.candidates
    left, middle, right = st.columns(3, gap="large")
    with left:
        sizes = {format_bytes(size): size for size in ladder(points[study.size].drop_nulls().to_list())}
        max_bytes = sizes.get(_slider("Size at most", [*sizes, _NO_LIMIT], "max_bytes"))
    with middle:
        limits = _ask_effort(points)
    with right:
        min_auc = _ask_auc(study)
    return replace(limits, max_bytes=max_bytes, min_auc=min_auc)


def _ask_effort(points: pl.DataFrame) -> Limits:
    """A limit in iterations, or in hours of training, or in what those hours cost."""
    unit = st.session_state.get("effort_unit") or st.query_params.get("effort_unit", "iterations")
    seconds = points["train_seconds"].drop_nulls().to_list()
    if unit not in ("hours", "dollars") or not seconds:
        steps = {format_count(step): step for step in ladder(points["iteration"].to_list())}
        limit = steps.get(_slider("Iterations at most", [*steps, _NO_LIMIT], "max_iterations"))
        _ask_unit()
        return Limits(max_iterations=limit)
    longest = ladder([math.ceil(value) for value in seconds])
    if unit == "hours":
        times = {format_seconds(step): float(step) for step in longest}
        time_limit = times.get(_slider("Training at most", [*times, _NO_LIMIT], "max_time"))
        _ask_unit()
        return Limits(max_seconds=time_limit)
    price = _price()
    # In hundredths of a cent, so that short trials have steps too.
    cents = ladder([math.ceil(step / 3600 * price * 1e4) for step in longest])
    money = {f"${step / 1e4:,.4f}".rstrip("0").rstrip("."): step / 1e4 for step in cents}
    most = money.get(_slider("Training costs at most", [*money, _NO_LIMIT], "max_cost"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        _ask_unit()
        st.number_input(
            "Dollars an hour of one trial",
            min_value=_PRICES[0],
            max_value=_PRICES[1],
            value=1.0,
            key="price",
            bind="query-params",
            width=210,
        )
    return Limits(max_seconds=None if most is None else most / price * 3600)


def _price() -> float:
    """The price in its field, or in the address, where any text may be."""
    try:
        price = float(st.session_state.get("price") or st.query_params.get("price") or 1.0)
    except ValueError:
        return 1.0
    return price if _PRICES[0] <= price <= _PRICES[1] else 1.0


def _ask_unit() -> None:
    st.segmented_control(
        "Effort in",
        _EFFORTS,
        default="iterations",
        required=True,
        key="effort_unit",
        bind="query-params",
        label_visibility="collapsed",
    )


def _ask_auc(study: Study) -> float | None:
    """The lowest AUC, given directly or by how much may be lost against the full tables (or the best trial)."""
    points = study.candidates
    full = full_table(study)
    against = "full tables" if not full.is_empty() else "the best"
    top = float(full["auc"][0]) if not full.is_empty() else float(points["auc"].max())  # type: ignore[arg-type]
    kind = st.session_state.get("auc_as") or st.query_params.get("auc_as", "AUC")
    if kind == "AUC":
        # In thousandths, from the worst AUC to the best.
        low, high = (math.ceil(1000 * float(auc)) for auc in points["auc"].sort()[[0, -1]])
        floors = {f"{thousandths / 1000:.3f}": thousandths / 1000 for thousandths in range(low, high + 1)}
        floor = floors.get(_slider("AUC at least", [_NO_LIMIT, *floors], "min_auc"))
    else:
        losses = {f"{loss:g}": loss for loss in _LOSSES}
        label = f"AUC lost against {against} ({format_auc(top)}) at most"
        lost = losses.get(_slider(label, [*losses, _NO_LIMIT], "max_lost"))
        floor = None if lost is None else top - lost
    st.segmented_control(
        "Accuracy as",
        ["AUC", "lost against full"],
        default="AUC",
        required=True,
        key="auc_as",
        bind="query-params",
        label_visibility="collapsed",
    )
    return floor


def ladder(values: list[int]) -> list[int]:
    """Round steps (1, 1.5, 2, 3, 5, 7 times a power of ten) from above the least value to above the greatest.

    They are round, and not the values themselves, so that a limit in the address is still a step when the study grows.
    """
    low, high = max(min(values), 1), max(*values, 1)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    steps = sorted({round(step * 10**power) for power in powers for step in (1, 1.5, 2, 3, 5, 7)})
    top = next(step for step in steps if step >= high)
    return [step for step in steps if low <= step <= top]


def _slider(label: str, steps: list[str], key: str) -> str:
    """A slider that starts at no limit; the address holds its position."""
    chosen: str = st.select_slider(label, steps, value=_NO_LIMIT, key=key, bind="query-params")
    return chosen


def _show(study: Study, chosen: Choice, limits: Limits, details: st.Page | None) -> None:
    st.markdown(f"#### {plain(f'Take {_point(study, chosen)}')}")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plain(f"It is {chosen.why}."), width="content")
        if details:
            query = {"study": study.name, "trials": str(chosen.trial_id), "at": str(chosen.iteration)}
            st.page_link(details, label="Open the trial", query_params=query)
    relaxed = {
        "max_bytes": "size",
        "max_iterations": "iterations",
        "max_seconds": "training time",
        "min_auc": "AUC",
    }
    for name, what in relaxed.items():
        if getattr(limits, name) is not None:
            other = results.choose(study, **asdict(replace(limits, **{name: None})))
            bought = _difference(study, chosen, other)
            st.markdown(
                f"- {plain(f'Without the limit on {what}: {_point(study, other)}')}{plain(f'; {bought}')}"
            )
    left, right = st.columns(2)
    with left:
        st.caption(f"Export its model, to run without Sizewise{_exported(study, chosen)}:")
        st.code(export(study, chosen.trial_id, chosen.stored_as), language="bash", wrap_lines=True)
    with right, st.expander("Train it longer"):
        st.caption(
            "Twice the epochs, everything else as it was. Its curve says whether that can help: open the trial."
        )
        st.code(run_longer(study, chosen.trial_id), language="bash", wrap_lines=True)
    others = _runners_up(study, chosen, limits)
    if not others.is_empty():
        st.subheader("Next best within the limits")
        tables.show(others, "runners_up", tables.evaluation_columns(), alt="The runners-up")


def _exported(study: Study, chosen: Choice) -> str:
    """A note where the kept checkpoint, that of the trial's best AUC, is of another iteration than the chosen one."""
    kept = study.trials.filter(pl.col("trial_id") == chosen.trial_id)["iteration"][0]
    return (
        "" if kept == chosen.iteration else f" (the model that is kept is of iteration {format_count(kept)})"
    )


def _point(study: Study, choice: Choice) -> str:
    size = format_bytes(getattr(choice, study.size))
    steps = format_count(choice.iteration)
    size += f" in {choice.stored_as}" if choice.stored_as else ""
    return f"trial {choice.trial_id} at iteration {steps}: AUC {format_auc(choice.auc)} with {size}"


def _difference(study: Study, chosen: Choice, other: Choice) -> str:
    """What another choice has and costs beyond the chosen one."""
    if all(getattr(other, name) == getattr(chosen, name) for name in ("trial_id", "iteration", "stored_as")):
        return "the same, so this limit costs nothing"
    size = getattr(other, study.size) / max(getattr(chosen, study.size), 1)
    steps = other.iteration / max(chosen.iteration, 1)
    gain = f"{other.auc - chosen.auc:+.4f} AUC"
    return f"{gain} for {format_ratio(size)} the size and {format_ratio(steps)} the iterations"


def _runners_up(study: Study, chosen: Choice, limits: Limits) -> pl.DataFrame:
    """The best evaluation of every other trial within the limits, in the order of preference."""
    fitting = study.candidates.filter(pl.col("trial_id") != chosen.trial_id)
    if limits.max_bytes is not None:
        fitting = fitting.filter(pl.col(study.size) <= limits.max_bytes)
    if limits.max_iterations is not None:
        fitting = fitting.filter(pl.col("iteration") <= limits.max_iterations)
    if limits.max_seconds is not None:
        fitting = fitting.filter(pl.col("train_seconds") <= limits.max_seconds)
    order, down = ["auc", study.size, "iteration"], [True, False, False]
    if limits.min_auc is not None:
        fitting = fitting.filter(pl.col("auc") >= limits.min_auc)
        order, down = [study.size, "iteration", "auc"], [False, False, True]
    ranked = fitting.sort(order, descending=down)
    return ranked.unique("trial_id", keep="first", maintain_order=True).head(_MOST_RUNNERS_UP)
