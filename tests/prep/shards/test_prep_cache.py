"""Shards in an object store: brought to this machine once, checked, by however many processes ask."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3_server import S3Server
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, place, read, write
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.cache import cache_folder, local_shards
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify

ASK = """
import sys
from sizewise_prep.shards import cache
brought, fetch = [], cache.fetch
cache.fetch = lambda path, target: (brought.append(path.name), fetch(path, target))
print(cache.local_shards(sys.argv[1]), len(brought))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    planted.generate(tmp_path / "raw", 2_000, seed=3)
    prepare([tmp_path / "raw" / "day_0.tsv"], tmp_path / "shards", shard_rows=300)
    return tmp_path / "shards"


@pytest.fixture
def uri(s3: S3Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same shards in a bucket; the cache is empty."""
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    there = place(f"s3://studies/data-{tmp_path.name}/shards")
    for path in folder.iterdir():
        write(there / path.name, path.read_bytes())
    return there


def test_a_local_folder_is_what_it_is(folder: Path) -> None:
    assert local_shards(str(folder)) == folder


def test_shards_are_fetched_whole_and_once(uri: Place, folder: Path, tmp_path: Path) -> None:
    assert Manifest.load(str(uri)) == Manifest.load(folder)
    found = local_shards(str(uri))
    assert found.is_relative_to(tmp_path / "cache")
    assert verify(found) == verify(folder) == []
    times = {path: path.stat().st_mtime_ns for path in found.iterdir()}
    assert local_shards(uri) == found
    assert {path: path.stat().st_mtime_ns for path in found.iterdir()} == times


@pytest.mark.slow
def test_many_processes_at_once_fetch_every_shard_once(uri: Place) -> None:
    command = [sys.executable, "-c", ASK, str(uri)]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=600)[0].split() for process in asking]
    assert len({found for found, _ in answers}) == 1
    shards = [shard for split in Manifest.load(uri).splits.values() for shard in split.shards]
    assert sum(int(brought) for _, brought in answers) == len(shards) > 5
    assert verify(answers[0][0]) == []


def test_shards_that_were_prepared_anew_are_fetched_anew(uri: Place, folder: Path, tmp_path: Path) -> None:
    first = local_shards(uri)
    prepare([tmp_path / "raw" / "day_0.tsv"], tmp_path / "anew", shard_rows=500)
    for path in (tmp_path / "anew").iterdir():
        write(uri / path.name, path.read_bytes())
    second = local_shards(uri)
    assert second != first
    assert Manifest.load(second) == Manifest.load(tmp_path / "anew")


def test_a_fetch_that_was_cut_off_is_taken_up(uri: Place) -> None:
    found = local_shards(uri)
    (found / "train-00001.arrow").unlink()
    (found / "train-00001.arrow.part").write_bytes(b"half")
    assert verify(local_shards(uri)) == []
    assert not list(found.glob("*.part"))


def test_a_shard_that_is_not_the_manifests_is_refused(uri: Place) -> None:
    from sizewise_core.stores.storage import remove

    data = bytearray(read(uri / "train-00001.arrow"))
    data[-100] ^= 1
    write(uri / "train-00001.arrow", bytes(data))
    with pytest.raises(InputError, match=r"train-00001.arrow: is not the shard that .*SHA-256 differs"):
        local_shards(uri)
    assert not list(cache_folder().rglob("train-00001.arrow*"))
    remove(uri / "train-00001.arrow")
    with pytest.raises(InputError, match=r"train-00001.arrow: this shard is missing"):
        local_shards(uri)


@pytest.mark.parametrize("name", ["../../../elsewhere", "/tmp/elsewhere", "a/../../b", "", "x\0"])
def test_a_manifest_names_no_file_outside_its_folder(uri: Place, name: str) -> None:
    content = json.loads(read(uri / "manifest.json"))
    content["splits"]["train"]["shards"][0]["file"] = name
    write(uri / "manifest.json", json.dumps(content).encode())
    with pytest.raises(InputError, match=r"manifest\.json: splits\.train\.shards\.0\.file: .* is not"):
        local_shards(uri)
    assert not cache_folder().exists()  # nothing was fetched, and so nothing written anywhere


def test_what_is_missing_is_said(uri: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"s3://absent/shards/manifest\.json: there is no such bucket"):
        local_shards("s3://absent/shards")
    with pytest.raises(InputError, match="s3://studies/nothing: is not a folder; make a folder of shards"):
        local_shards("s3://studies/nothing")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"the cache cannot be written .* set SIZEWISE_CACHE"):
        local_shards(uri)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIZEWISE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path(os.path.expanduser("~/.cache/sizewise"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert cache_folder() == Path("/scratch/cache/sizewise")
    monkeypatch.setenv("SIZEWISE_CACHE", "/fast")
    assert cache_folder() == Path("/fast")
