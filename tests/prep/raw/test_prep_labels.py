"""A label of several columns: `[like, share]: any`."""

from pathlib import Path

import polars as pl
import pytest
from tests.prep.raw.tables.table_logs import shard

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.files.sources import resolve
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.row_readers import for_scoring
from sizewise_prep.shards.manifest import Manifest

ROWS = range(60)
LOG = pl.DataFrame(
    {
        "like": [j % 3 == 0 for j in ROWS],
        "share": [int(j % 5 == 0) for j in ROWS],
        "user": [j % 7 for j in ROWS],
    }
)
ANY = "columns: {[like, share]: any, user: token}"


def layout_of(folder: Path, text: str) -> Layout:
    (folder / "log.yaml").write_text(text)
    return Layout.load(folder / "log.yaml")


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_a_row_is_a_click_where_any_column_says_so(form: str, tmp_path: Path) -> None:
    raw = tmp_path / f"log.{form}"
    getattr(LOG, f"write_{form}")(raw)
    layout = layout_of(tmp_path, f'separator: ","\nheader: true\n{ANY}\n')
    prepare(raw, tmp_path / "out", layout=layout, split="rows:60,0")
    assert shard(tmp_path / "out").labels.tolist() == [int(j % 3 == 0 or j % 5 == 0) for j in ROWS]
    assert Manifest.load(tmp_path / "out").layout.labels == ["like", "share"]


def test_a_file_to_be_scored_has_all_columns_of_the_label_or_none(tmp_path: Path) -> None:
    LOG.drop("share").write_parquet(tmp_path / "log.parquet")
    found = for_scoring(resolve(tmp_path / "log.parquet")[0], layout_of(tmp_path, f"{ANY}\n"))
    assert (found.label, list(found.columns)) == (None, ["user"])
    without_names = layout_of(tmp_path, f'separator: ","\n{ANY}\n')
    LOG.select("user").with_columns(pl.lit("x")).write_csv(tmp_path / "two.csv", include_header=False)
    LOG.select("user").write_csv(tmp_path / "one.csv", include_header=False)
    assert for_scoring(resolve(tmp_path / "one.csv")[0], without_names).label is None
    assert for_scoring(resolve(tmp_path / "two.csv")[0], without_names).label == "like"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {[like]: any, user: token}", "of two or more columns write"),
        ("columns: {[like, share]: all, user: token}", "of two or more columns write"),
        ("columns: {[like, share]: any, like: token}", "names like twice"),
        ("columns: {[like, share]: any, y: label, user: token}", "3 columns are the label; name one"),
        ("columns: {like: label any, user: token}", "1 columns are the label; name one, or several"),
        (
            "columns: {like: label, share: label, user: token}",
            "2 columns are the label; name one, or several",
        ),
    ],
)
def test_a_label_of_several_columns_that_cannot_be(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"log\.yaml(:\d+)?: .*{message}"):
        layout_of(tmp_path, text)


def test_a_column_of_the_label_without_a_value_makes_a_bad_row(tmp_path: Path) -> None:
    LOG.with_columns(like=pl.when(pl.col("user") == 3).then(None).otherwise("like")).write_parquet(
        tmp_path / "log.parquet"
    )
    bad = prepare(
        tmp_path / "log.parquet",
        tmp_path / "out",
        layout=layout_of(tmp_path, f"{ANY}\n"),
        max_bad_fraction=0.5,
    )
    assert bad.quarantine.reasons == {"label": sum(j % 7 == 3 for j in ROWS)}


@pytest.mark.parametrize("kind", ["string", "hex", "token"])
def test_a_label_has_the_same_forms_in_every_text(kind: str, tmp_path: Path) -> None:
    """Also in layouts that the reader of plain text reads, where Criteo's own logs have 0 and 1 alone."""
    forms = ["1", "true", "TRUE", "1.0", "01", "0", "false", "0.0", "00", "2", "yes", "1.5", ""]
    (tmp_path / "log.csv").write_text("".join(f"{form},a{j % 3}\n" for j, form in enumerate(forms)))
    layout = layout_of(tmp_path, f'separator: ","\ncolumns: {{y: label, user: {kind}}}')
    options = {"layout": layout, "split": "rows:9,0", "max_bad_fraction": 0.5}
    found = prepare(tmp_path / "log.csv", tmp_path / "out", **options)
    assert found.quarantine.reasons == {"label": 4}
    assert shard(tmp_path / "out").labels.tolist() == [1] * 5 + [0] * 4
    assert (tmp_path / "out/quarantine/rows.tsv").read_text().splitlines()[0].endswith("\t10\tlabel\t2,a0")
