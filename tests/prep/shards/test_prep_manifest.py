"""Reading manifests, and telling damage."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify


@pytest.fixture
def folder(tmp_path: Path, line: Callable[..., bytes], log: Callable[..., Path]) -> Path:
    path = log(*(line(j % 2, I1=str(j)) for j in range(30)), b"bad")
    prepare([path], tmp_path / "out", shard_rows=10, max_bad_fraction=0.5)
    return tmp_path / "out"


def test_every_damaged_file_is_named(folder: Path) -> None:
    assert verify(folder) == []
    (folder / "train-00000.arrow").unlink()
    flipped = bytearray((folder / "train-00001.arrow").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (folder / "train-00001.arrow").write_bytes(flipped)
    with (folder / "test-00000.arrow").open("ab") as stream:
        stream.write(b"x")
    (folder / "quarantine" / "rows.tsv").write_bytes(b"")
    (folder / "train-00009.arrow").write_bytes(b"")
    problems = verify(folder)
    assert [problem.split(":")[0] for problem in problems] == [
        "train-00000.arrow",
        "train-00001.arrow",
        "test-00000.arrow",
        "quarantine/rows.tsv",
        "train-00009.arrow",
    ]
    assert "is missing" in problems[0]
    assert "content has changed" in problems[1]
    assert "bytes instead of" in problems[2]
    assert "is not in the manifest" in problems[4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows_in": -1}, r"manifest\.json: rows_in"),
        ({"schema_version": 99}, r"manifest\.json: schema_version"),
        ({"extra": 1}, r"manifest\.json: extra"),
        ({"splits": {"train": {}}}, r"manifest\.json: splits\.train\.rows"),
    ],
)
def test_a_manifest_of_another_kind_names_the_field(
    folder: Path, change: dict[str, object], message: str
) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        Manifest.load(folder)


def test_what_is_no_folder_of_shards_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="absent: is not a folder"):
        Manifest.load(tmp_path / "absent")
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        Manifest.load(tmp_path)
    (folder / "manifest.json").write_bytes(b"\0\0")
    with pytest.raises(InputError, match=r"manifest\.json: Invalid JSON"):
        verify(folder)
