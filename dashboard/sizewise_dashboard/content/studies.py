"""The first page: every study in the folder, its progress, results and cost, updated while it runs."""

import time
from html import escape

import streamlit as st

from sizewise.results import Point
from sizewise.results.decision.choosing import NEAR
from sizewise.results.files.cost import Cost
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, exists
from sizewise_core.units import format_auc, format_bytes, format_seconds
from sizewise_dashboard.elements import listing, notes
from sizewise_dashboard.elements.parts import badge, plain

_PROBLEMS, _MOST_PROBLEMS = 2, 20  # shown of each study, and of all
_MOST_SHOWN = 100  # studies


def page(runs: Place, target: st.Page) -> None:
    """List the studies, each with a link to `target`."""
    st.title("Studies")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(
            "Search", key="find", placeholder="name, data, method or state", bind="query-params", width=320
        )
        order = st.selectbox("Sort by", listing.SORTS, key="sort", bind="query-params", width=220)
        archived = st.toggle("Archived too", key="archived_studies", bind="query-params")
    st.fragment(_list, run_every=3)(runs, target, words or "", order, archived)


def _list(runs: Place, target: st.Page, words: str, order: str, archived: bool) -> None:
    try:
        studies = listing.facts(runs)
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
    try:
        known = notes.load(runs)
    except InputError as error:
        st.warning(plain(str(error)))
        known = notes.Notes()
    said = {study.name: known.of(notes.Key(study.name)) for study in studies}
    shown = [
        study
        for study in listing.ordered(studies, order)
        if study.holds(words, said[study.name].tags) and (archived or not said[study.name].archived)
    ]
    if not shown:
        st.info(plain(f"None of {len(studies):,} studies has {words!r} in its name, data, method or state."))
    for study in shown[:_MOST_SHOWN]:
        _card(study, target, said[study.name])
    if len(shown) > _MOST_SHOWN:
        st.text(f"The first {_MOST_SHOWN} of {len(shown):,} studies: search for the others.")
    damaged = [
        f"{study.name}: {problem}" for study in studies for problem in study.status["problems"][:_PROBLEMS]
    ]
    if damaged:
        lines = damaged[:_MOST_PROBLEMS] + (["..."] if len(damaged) > _MOST_PROBLEMS else [])
        st.warning("Not all could be read: what is missing may change an answer.")
        st.text("\n".join(lines))
    near = f"the smallest model within {NEAR:g} AUC of it"
    st.caption(f"Best: the highest validation AUC, and the size of its model. Smallest near it: {near}.")


def _card(study: listing.Facts, target: st.Page, note: notes.Note) -> None:
    """One study: its name and state in a line, what it found and cost in the next."""
    status = study.status
    trials = status["trials"]
    done = trials["finished"] + trials["pruned"] + trials["failed"]
    with st.container(border=True, gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.page_link(
                target,
                label=f"{'★ ' if note.star else ''}**{plain(study.name)}**",
                query_params={"study": study.name},
            )
            badge(status["state"])
            st.progress(
                min(status["progress"], 1.0), text=f"{done:,} of {trials['asked']:,} trials", width=200
            )
        said = {
            "Best": _point(status["best"]),
            "Smallest near it": _point(status["smallest"]),
            "Cost": cost(status["cost"]),
            "Time left": "" if status["seconds_left"] is None else format_seconds(status["seconds_left"]),
            "Failed": f"{trials['failed']:,}" if trials["failed"] else "",
            "Tags": ", ".join(note.tags),
            "Note": note.text,
            "Methods": ", ".join(study.methods),
            "Data": study.data,
            "Created": ""
            if study.created is None
            else time.strftime("%Y-%m-%d %H:%M", time.localtime(study.created)),
        }
        facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in said.items() if v)
        st.html(f'<dl class="sizewise-facts">{facts}</dl>')


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
