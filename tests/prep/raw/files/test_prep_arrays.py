"""Logs as NumPy arrays: TorchRec's three files a day, MLPerf's multi-hot ones, and those that DLRM processed."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.files import read_shard as stored_shard
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify

DRAW = np.random.default_rng(7)
ROWS = 120
WORDS = DRAW.integers(0, 2**32, (2 * ROWS, 26), dtype=np.uint32)
DENSE = np.log(DRAW.integers(0, 999, (2 * ROWS, 13)) + 3).astype(np.float32)
LABELS = DRAW.integers(0, 2, (2 * ROWS, 1), dtype=np.int32)


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """As `BinaryCriteoUtils.tsv_to_npys` writes them: words as signed integers."""
    folder = tmp_path / "days"
    folder.mkdir()
    for day in range(2):
        rows = slice(day * ROWS, (day + 1) * ROWS)
        np.save(folder / f"day_{day}_labels.npy", LABELS[rows])
        np.save(folder / f"day_{day}_dense.npy", DENSE[rows])
        np.save(folder / f"day_{day}_sparse.npy", WORDS[rows].view(np.int32))
    return folder


def test_torchrecs_days(tmp_path: Path, days: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 9_000)
    manifest = prepare(days, tmp_path / "out", format="torchrec", split="files:1,1")
    assert (manifest.rows_out, [source.rows for source in manifest.sources]) == (2 * ROWS, [ROWS, ROWS])
    assert manifest.sources[0].bytes == sum(path.stat().st_size for path in days.glob("day_0_*"))
    train = read_shard(tmp_path / "out" / "train-00000.arrow")
    assert np.array_equal(train.ids, WORDS[:ROWS])
    assert np.array_equal(train.dense, DENSE[:ROWS])
    assert np.array_equal(train.labels, LABELS[:ROWS, 0])
    assert manifest.settings.dense_is_log
    assert verify(tmp_path / "out") == []
    one = days / "day_0_dense.npy"
    assert (
        prepare([one, days / "day_1_labels.npy"], tmp_path / "out", format="torchrec", split="files:1,1")
        == manifest
    )
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    with pytest.raises(InputError, match="was made from other raw files"):
        prepare(days, tmp_path / "out", format="torchrec", split="files:1,1")


def test_mlperfs_multi_hot_days(tmp_path: Path, days: Path) -> None:
    lists = {str(column): WORDS[:ROWS, : column % 3 + 1].astype(np.int32) & 0xFFFF for column in range(26)}
    np.savez(days / "day_0_sparse_multi_hot.npz", **lists)
    manifest = prepare(days / "day_0_sparse_multi_hot.npz", tmp_path / "out", format="torchrec")
    layout = manifest.layout
    assert layout.tokens == [f"C{column + 1}" for column in range(0, 26, 3)]
    assert layout.token_lists == [f"C{column + 1}" for column in range(26) if column % 3]
    shard = manifest.splits["train"].shards[0]
    rows = stored_shard(tmp_path / "out" / shard.file, manifest.shape(shard))
    assert np.array_equal(rows.ids[:, 1], lists["3"][: len(rows), 0])
    assert np.array_equal(rows.lists[1].used.reshape(-1, 3), lists["2"][: len(rows)])
    assert verify(tmp_path / "out") == []


def test_what_dlrm_processed(tmp_path: Path) -> None:
    counts = DRAW.integers(0, 50, (ROWS, 13))
    ids = np.transpose(np.ascontiguousarray(DRAW.integers(0, 99, (26, ROWS))))  # written column by column
    path = tmp_path / "kaggleAdDisplayChallenge_processed.npz"
    np.savez_compressed(path, X_int=counts, X_cat=ids, y=LABELS[:ROWS, 0], counts=np.full(26, 99))
    manifest = prepare(path, tmp_path / "out", format="dlrm")
    train = read_shard(tmp_path / "out" / "train-00000.arrow")
    assert np.array_equal(train.ids, ids[:96])
    assert np.array_equal(train.dense, counts[:96].astype(np.float32))
    assert not Manifest.load(tmp_path / "out").settings.dense_is_log
    assert manifest.sources[0].rows == ROWS


@pytest.mark.parametrize(
    ("names", "absent"), [(["0", "1", "3"], 2), (["cat_0", "cat_1"], 0), (["1", "2"], 0)]
)
def test_a_multi_hot_day_without_one_of_its_arrays(
    names: list[str], absent: int, tmp_path: Path, days: Path
) -> None:
    (days / "day_1_sparse.npy").unlink()
    np.savez(days / "day_1_sparse_multi_hot.npz", **{name: np.ones((ROWS, 2), np.int32) for name in names})
    with pytest.raises(InputError, match=rf"day_1_sparse_multi_hot\.npz: has no array {absent};"):
        prepare(days / "day_1_dense.npy", tmp_path / "out", format="torchrec")


def test_arrays_that_are_none_are_named(tmp_path: Path, days: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"--format parquet: is none of torchrec, dlrm, libsvm, libffm"):
        prepare(days, out, format="parquet")
    with pytest.raises(
        InputError, match=r"--format dlrm: none of these files is one of it: give an \.npz file"
    ):
        prepare(days, out, format="dlrm")
    np.save(days / "day_1_labels.npy", LABELS[:7])
    with pytest.raises(
        InputError, match=r"day_1_labels\.npy: the arrays of the log have different numbers of rows"
    ):
        prepare(days, out, format="torchrec")
    LABELS_2 = LABELS[ROWS:].copy()
    LABELS_2[4] = 2
    np.save(days / "day_1_labels.npy", LABELS_2)
    with pytest.raises(InputError, match=r"day_1_labels\.npy, row 5: column label: '2' is not 0 or 1"):
        prepare(days, out, format="torchrec")
    np.save(days / "day_1_labels.npy", LABELS[ROWS:])
    dense = days / "day_1_dense.npy"
    dense.write_bytes(dense.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"day_1_dense\.npy: ends too early"):
        prepare(days, out, format="torchrec")
    np.save(dense, np.array([object()] * ROWS), allow_pickle=True)
    with pytest.raises(InputError, match=r"day_1_dense\.npy: is no NumPy array of numbers"):
        prepare(days, out, format="torchrec")
    dense.unlink()
    with pytest.raises(InputError, match=r"day_1_dense\.npy: not found"):
        prepare(days, out, format="torchrec")
    (tmp_path / "x.npz").write_bytes((tmp_path / "days" / "day_0_dense.npy").read_bytes())
    with pytest.raises(InputError, match=r"x\.npz: cannot be unpacked"):
        prepare(tmp_path / "x.npz", out, format="dlrm")


def test_an_archive_is_not_unpacked_beyond_a_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 9_000)
    path = tmp_path / "kaggle_processed.npz"
    arrays = {"X_int": DENSE, "X_cat": WORDS, "y": LABELS[:, 0]}

    def no_file() -> None:
        raise AssertionError("a temporary file")

    with monkeypatch.context() as context:
        context.setattr("sizewise_prep.raw.files.arrays.tempfile.TemporaryFile", no_file)
        np.savez_compressed(path, **arrays)
        prepare(path, tmp_path / "out", format="dlrm")
        assert np.array_equal(read_shard(tmp_path / "out" / "train-00000.arrow").ids, WORDS[:192])
    np.savez_compressed(path, **(arrays | {"X_cat": np.asfortranarray(WORDS)}))
    with monkeypatch.context() as context:
        context.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 9}))
        with pytest.raises(
            InputError, match=r"X_cat\.npy\): is stored column by column and takes 25,\d+ bytes"
        ):
            prepare(path, tmp_path / "no", format="dlrm")
    np.savez_compressed(path, **(arrays | {"X_cat": np.zeros((2 * ROWS, 200_000), np.int8)}))
    with pytest.raises(InputError, match=r"X_cat\.npy\): has 200,000 numbers a row, more than 100,000"):
        prepare(path, tmp_path / "no", format="dlrm")


def test_archives_that_are_damaged_are_named(tmp_path: Path) -> None:
    path = tmp_path / "kaggle_processed.npz"
    np.savez_compressed(path, X_int=DENSE, X_cat=WORDS, y=LABELS[:, 0])
    intact = path.read_bytes()
    middle = len(intact) // 2
    path.write_bytes(intact[:middle] + bytes(64) + intact[middle + 64 :])
    with pytest.raises(InputError, match=r"kaggle_processed\.npz.*(cannot be unpacked|ends too early)"):
        prepare(path, tmp_path / "no", format="dlrm")
    header = intact.index(b"PK\x01\x02")
    path.write_bytes(intact[: header + 8] + b"\x01" + intact[header + 9 :])  # says that it is encrypted
    with pytest.raises(InputError, match=r"kaggle_processed\.npz: cannot be unpacked"):
        prepare(path, tmp_path / "no", format="dlrm")
    with zipfile.ZipFile(path, "w") as archive:
        short = io.BytesIO()
        np.save(short, WORDS)
        archive.writestr("X_cat.npy", short.getvalue()[:-4])
    with pytest.raises(InputError, match=r"\(X_cat\.npy\): ends too early"):
        prepare(path, tmp_path / "no", format="dlrm")


def test_numbers_of_other_widths_and_byte_orders(tmp_path: Path) -> None:
    path = tmp_path / "kaggle_processed.npz"
    ids = WORDS.astype(">i8")
    np.savez(path, X_int=DENSE.astype(np.float16), X_cat=ids, y=LABELS[:, 0].astype(bool))
    prepare(path, tmp_path / "out", format="dlrm")
    train = read_shard(tmp_path / "out" / "train-00000.arrow")
    assert np.array_equal(train.ids, WORDS[:192])
    assert np.array_equal(train.dense, DENSE[:192].astype(np.float16).astype(np.float32))
    assert np.array_equal(train.labels, LABELS[:192, 0])
