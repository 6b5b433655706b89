"""Several studies against each other: method against method, data against data."""

import polars as pl
import streamlit as st

from sizewise.figures import comparing as figures
from sizewise.results.quality import comparing as results
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place
from sizewise_core.units import format_auc, format_bytes
from sizewise_dashboard import snapshots
from sizewise_dashboard.elements import chart, listing, tables
from sizewise_dashboard.elements.parts import current_study, plain, study_names
from sizewise_dashboard.snapshots import Snapshot


def page(runs: Place) -> None:
    """Ask for the studies to compare with the one that the address names, and show them."""
    name = current_study()
    others = [other for other in study_names(runs) if other != name]
    if not others:
        st.info("There is only one study here. Start another one to compare them: `sizewise run STUDY.yaml`.")
        return
    chosen = st.multiselect(
        "Compare with",
        others,
        default=_first_on_the_same_data(runs, name, others),
        max_selections=figures.MOST - 1,
        key="others",
        bind="query-params",
    )
    found = []
    for other in (name, *chosen):
        try:
            now = snapshots.read(runs, other)
        except InputError as error:
            st.error(plain(str(error)))
            continue
        if now.study.problems:
            st.warning(
                plain(f"{other}: {len(now.study.problems):,} problems, such as {now.study.problems[0]}")
            )
        if now.study.candidates.is_empty():
            st.warning(plain(f"{other}: {now.answer.sentence}"))
        else:
            found.append(now)
    if len(found) == 1 and not chosen:
        st.info("No other study here has models of the same data. Pick one above to compare it all the same.")
    if found:
        _show(found)


def _first_on_the_same_data(runs: Place, name: str, others: list[str]) -> list[str]:
    """The study to compare with by default: the first with an evaluated trial that reads the same data, if any does."""
    try:
        found = {fact.name: fact for fact in listing.facts(runs)}
    except InputError:
        return []
    own = found[name].data if name in found else ""
    return [
        other
        for other in others
        if other in found and found[other].data == own and found[other].status["best"]
    ][:1]


def _show(found: list[Snapshot]) -> None:
    studies = [now.study for now in found]
    versions = tuple(now.version for now in found)
    if len({study.record.data.path for study in studies}) > 1:
        st.warning("These studies read different data: their AUCs are scores on different rows.")
    columns = st.columns(min(len(studies), 2))
    names = ", ".join(study.name for study in studies)
    with columns[0]:
        chart.show(
            snapshots.drawn(found[0], ("fronts", versions), lambda: figures.fronts(studies)),
            "fronts",
            f"Best validation AUC at each size or below of the studies {names}.",
        )
    if len(studies) > 1:
        with columns[1]:
            against = st.session_state.get("against_study") or st.query_params.get("against_study")
            second = next((s for s in studies[1:] if s.name == against), studies[1])
            chart.show(
                snapshots.drawn(
                    found[0],
                    ("difference", second.name, versions),
                    lambda: figures.attained_difference(studies[0], second),
                ),
                "difference",
                f"AUC that {studies[0].name} attains beyond {second.name} at each size or below.",
            )
            if len(studies) > 2:
                st.selectbox(
                    "against",
                    [s.name for s in studies[1:]],
                    key="against_study",
                    bind="query-params",
                    width=300,
                )
    _table(found, versions)


def _table(found: list[Snapshot], versions: tuple[str, ...]) -> None:
    """Each study's numbers, its hypervolume from one reference point with its interval."""
    studies = [now.study for now in found]
    volumes: list[results.Interval] | list[None]
    try:
        volumes = snapshots.kept(found[0], ("volumes", versions), lambda: results.volumes(studies))
    except ValueError as error:
        st.warning(f"No hypervolume: {error}.")
        volumes = [None] * len(studies)
    rows = []
    for now, volume in zip(found, volumes, strict=True):
        best, smallest = now.answer.best, now.answer.smallest
        rows.append(
            {
                "study": now.study.name,
                "state": now.study.state,
                "data": now.study.record.data.path,
                "trials": now.study.trials.height,
                "best AUC": format_auc(best.auc) if best else "",
                f"smallest within {now.answer.tolerance:g}": (
                    format_bytes(getattr(smallest, now.study.size)) if smallest else ""
                ),
                "hypervolume": f"{volume.value:.4f}" if volume else "",
                "95 % interval": f"{volume.low:.4f} to {volume.high:.4f}" if volume else "",
            }
        )
    tables.show(pl.DataFrame(rows), "compared", alt="The studies side by side")
    st.caption(
        "Hypervolumes are from one reference point, the worst of all these studies in every objective that they "
        "share. Where all configurations have replicates, values are means over them, with Student's interval. "
        "Elsewhere intervals resample trials: they say how much hangs on single trials, not what another seed would "
        "have found."
    )
