"""The data that a study was trained on, from its manifest."""

import polars as pl
import streamlit as st

from sizewise.figures import data as figures
from sizewise.results import data as results
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, StorageError
from sizewise_core.units import format_bytes, format_count
from sizewise_dashboard import snapshots
from sizewise_dashboard.elements import chart, tables
from sizewise_dashboard.elements.parts import opened, plain, show_problems
from sizewise_dashboard.snapshots import Snapshot
from sizewise_prep.shards.cautions import cautions
from sizewise_prep.shards.manifest import Manifest


def page(runs: Place) -> None:
    """Show the data of the study that the address names."""
    now = opened(runs)
    record = now.study.record.data
    try:
        data = snapshots.kept(now, "data", lambda: results.data_of(now.study, runs))
    except (InputError, StorageError) as error:
        st.warning(plain(str(error)))
        if record.rows.train:
            st.text(
                f"study.json says: {record.rows.train:,} training, {record.rows.validation:,} validation and "
                f"{record.rows.test:,} test rows."
            )
        show_problems(now.study)
        return
    _numbers(now, data)
    for caution in cautions(data.manifest):
        st.warning(plain(caution))
    columns = results.columns(data.manifest)
    name = now.study.name
    left, right = st.columns(2)
    with left:
        chart.show(
            snapshots.drawn(now, "cardinalities", lambda: figures.cardinalities(name, columns)),
            "cardinalities",
            "Distinct values of each token column, a log scale.",
        )
    with right:
        chart.show(
            snapshots.drawn(now, "missing", lambda: figures.missing(name, columns)),
            "missing",
            "Share of rows without a value, of each column.",
        )
    left, right = st.columns(2)
    with left:
        _curve(now, data, columns)
    with right:
        tables.show(columns, "columns", height=430, alt="The columns of the log")
    _origin(data.manifest)
    show_problems(now.study)


def _numbers(now: Snapshot, data: results.Data) -> None:
    manifest = data.manifest
    st.caption(plain(str(data.folder)))
    numbers = {name.capitalize(): f"{split.rows:,}" for name, split in manifest.splits.items()}
    numbers["Click rate"] = f"{manifest.click_rate:.2%}"
    numbers["Distinct values"] = format_count(manifest.full_rows)
    if now.study.record.data.full_bytes:
        numbers["Full tables"] = format_bytes(now.study.record.data.full_bytes)
    numbers["Rows set aside"] = f"{manifest.rows_quarantined:,}"
    with st.container(horizontal=True, gap="large"):
        for label, value in numbers.items():
            st.metric(label, value, width="content")


def _curve(now: Snapshot, data: results.Data, columns: pl.DataFrame) -> None:
    """How often the values of one column occur; counted at the first visit, and cached."""
    tokens = columns.filter(pl.col("kind") == "token")["column"].to_list()
    largest = max(range(len(tokens)), key=data.manifest.cardinalities.__getitem__)
    chosen = st.selectbox("Column", tokens, index=largest, key="column", bind="query-params", width=160)
    token = tokens.index(chosen)
    try:
        # The data in a folder of shards never changes, so it is cached for as long as the snapshot.
        drawing = snapshots.drawn(
            now,
            ("frequency", token),
            lambda: figures.frequency_curve(now.study.name, chosen, results.frequencies(data, token)),
        )
    except (InputError, StorageError) as error:
        st.warning(plain(str(error)))
        return
    chart.show(
        drawing, "frequency", f"Occurrences of the values of {chosen}, most frequent first; log scales."
    )


def _origin(manifest: Manifest) -> None:
    """The raw files, and the rows that were set aside."""
    if manifest.quarantine.reasons:
        reasons = [{"reason": name, "rows": rows} for name, rows in manifest.quarantine.reasons.items()]
        st.subheader("Rows set aside")
        tables.show(pl.DataFrame(reasons), "quarantine", alt="Rows set aside, by reason")
    with st.expander(f"Sources ({len(manifest.sources)})"):
        sources = [source.model_dump() for source in manifest.sources]
        tables.show(pl.DataFrame(sources), "sources", alt="The raw files")
