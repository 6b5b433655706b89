"""The first page: every study under the runs folder, how far it is and what it has found; live."""

import streamlit as st

from sizewise import results
from sizewise.units import format_auc, format_seconds
from sizewise_dashboard.parts import badge, plain
from sizewise_prep.errors import InputError
from sizewise_prep.storage import Place, StorageError

_WIDTHS = (3, 1.2, 3, 1.5, 1.5, 1.5)


def page(runs: Place, target: st.Page) -> None:
    """List the studies, each with a link to `target`."""
    st.title("Studies")
    st.fragment(_table, run_every=3)(runs, target)


def _table(runs: Place, target: st.Page) -> None:
    try:
        rows = results.studies(runs)
    except StorageError as error:
        st.error(plain(str(error)))
        return
    except InputError:
        st.info(
            plain(f"There is no folder {runs} yet. It appears with the first study: ")
            + "`sizewise run STUDY.yaml`"
        )
        return
    if rows.is_empty():
        st.info(plain(f"No study in {runs} yet. ") + "`sizewise run STUDY.yaml` starts one.")
        return
    for column, title in zip(
        st.columns(_WIDTHS), ("Study", "State", "Trials", "Best AUC", "Time left", "Failed"), strict=True
    ):
        column.caption(title)
    for row in rows.iter_rows(named=True):
        cells = st.columns(_WIDTHS, vertical_alignment="center")
        with cells[0]:
            st.page_link(target, label=f"**{plain(row['name'])}**", query_params={"study": row["name"]})
        with cells[1]:
            badge(row["state"])
        done = row["finished"] + row["pruned"] + row["failed"]
        cells[2].progress(min(row["progress"], 1.0), text=f"{done} of {row['asked']}")
        cells[3].text("" if row["best_auc"] is None else format_auc(row["best_auc"]))
        cells[4].text("" if row["seconds_left"] is None else format_seconds(row["seconds_left"]))
        cells[5].text(str(row["failed"]) if row["failed"] else "")
