"""The first page: every study in the folder, its progress, results and cost, updated while it runs."""

import streamlit as st

from sizewise.results import Point
from sizewise.results.cost import Cost
from sizewise.results.status import NEAR
from sizewise_core.errors import InputError
from sizewise_core.storage import Place, exists
from sizewise_core.units import format_auc, format_bytes, format_seconds
from sizewise_dashboard import snapshots
from sizewise_dashboard.parts import badge, plain

_COLUMNS = {"Study": 2.6, "State": 1.2, "Trials": 2.2, "Best": 1.7, "Smallest near it": 1.8, "Cost": 1.3}
_COLUMNS |= {"Time left": 1.1, "Failed": 0.7}

_PROBLEMS, _MOST_PROBLEMS = 2, 20  # shown of each study, and of all


def page(runs: Place, target: st.Page) -> None:
    """List the studies, each with a link to `target`."""
    st.title("Studies")
    st.fragment(_table, run_every=3)(runs, target)


def _table(runs: Place, target: st.Page) -> None:
    try:
        studies = snapshots.listed(runs)
    except InputError as error:
        if exists(runs):
            st.error(plain(str(error)))
        else:
            st.info(
                plain(f"There is no folder {runs} yet. It appears with the first study: ")
                + "`sizewise run STUDY.yaml`"
            )
        return
    if not studies:
        st.info(plain(f"No study in {runs} yet. ") + "`sizewise run STUDY.yaml` starts one.")
        return
    widths = list(_COLUMNS.values())
    for column, title in zip(st.columns(widths), _COLUMNS, strict=True):
        column.caption(title)
    for study in studies:
        cells = st.columns(widths, vertical_alignment="center")
        with cells[0]:
            st.page_link(target, label=f"**{plain(study['name'])}**", query_params={"study": study["name"]})
        with cells[1]:
            badge(study["state"])
        trials = study["trials"]
        done = trials["finished"] + trials["pruned"] + trials["failed"]
        cells[2].progress(min(study["progress"], 1.0), text=f"{done:,} of {trials['asked']:,}")
        cells[3].text(_point(study["best"]))
        cells[4].text(_point(study["smallest"]))
        cells[5].text(cost(study["cost"]))
        cells[6].text("" if study["seconds_left"] is None else format_seconds(study["seconds_left"]))
        cells[7].text(f"{trials['failed']:,}" if trials["failed"] else "")
    damaged = [
        f"{study['name']}: {problem}" for study in studies for problem in study["problems"][:_PROBLEMS]
    ]
    if damaged:
        lines = damaged[:_MOST_PROBLEMS] + (["..."] if len(damaged) > _MOST_PROBLEMS else [])
        st.warning("Not all could be read: what is missing may change an answer.")
        st.text("\n".join(lines))
    near = f"the smallest model within {NEAR:g} AUC of it"
    st.caption(f"Best: the highest validation AUC, and the size of its model. Smallest near it: {near}.")


def _point(point: Point | None) -> str:
    """A trial's AUC and its model's size."""
    if point is None:
        return ""
    return format_auc(point["auc"]) + ("" if point["bytes"] is None else f", {format_bytes(point['bytes'])}")


def cost(used: Cost) -> str:
    """The cost of trials so far, in money where the study has prices, otherwise in time."""
    if used["money"]:
        return f"{used['money']:,.2f} {used['currency']}"
    held = {"GPU": used["gpu_seconds"], "CPU": used["cpu_seconds"]}
    parts = [f"{format_seconds(seconds)} {kind}" for kind, seconds in held.items() if seconds]
    return ", ".join(parts)
