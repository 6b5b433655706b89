"""Shards that are sent to an object store: the manifest last, whatever ends the command, with the bytes of a folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from s3_server import S3Server
from sizewise.cli import app
from sizewise_core.errors import InputError
from sizewise_prep.pipeline import remote
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.cache import local_shards
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify

Line = Callable[..., bytes]
OPTIONS = {"tokens": "contiguous", "shard_rows": 70, "max_bad_fraction": 0.1}

# Prepares argv[2] into argv[1], and is killed when it sends its nth file, before or after, or renames its nth.
PROGRAM = """
import os, signal, sys
from sizewise_prep.pipeline import prep, remote
left, at = int(sys.argv[3]), sys.argv[4]
def count(event):
    global left
    if at == event:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
send, write, remove = remote.send, remote.write, remote.remove
def counted(function):
    def call(path, *rest):
        count("before")
        function(path, *rest)
        count("after")
    return call
remote.send, remote.write, remote.remove = map(counted, (send, write, remove))
sys.addaudithook(lambda event, arguments: count("rename") if event == "os.rename" else None)
if __name__ == "__main__":
    prep.prepare(sys.argv[2], sys.argv[1], tokens="contiguous", shard_rows=70, max_bad_fraction=0.1)
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def raw(tmp_path: Path, line: Line) -> Path:
    lines = [line(j % 2, I1=str(j), C1=f"{j % 50:x}") for j in range(300)]
    (tmp_path / "log.tsv").write_bytes(b"".join(row + b"\n" for row in [*lines[:9], b"torn", *lines[9:]]))
    return tmp_path / "log.tsv"


@pytest.fixture
def store() -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    yield "memory://bucket/data"
    memory.rm("/bucket", recursive=True) if memory.exists("/bucket") else None


def contents(uri: str) -> dict[str, bytes]:
    filesystem, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    names = filesystem.find(root)
    return {name.removeprefix(root.rstrip("/") + "/"): filesystem.cat_file(name) for name in names}


def in_folder(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_store_gets_the_bytes_of_a_folder(
    tmp_path: Path, raw: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = prepare(raw, tmp_path / "folder", **OPTIONS)
    sent = []

    def failing(path: Path, target: object) -> None:
        if len(sent) == 3:
            raise KeyboardInterrupt
        sent.append(path.name)
        send(path, target)  # type: ignore[arg-type]

    send = remote.send
    monkeypatch.setattr(remote, "send", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(raw, store, **OPTIONS)
    assert len(contents(store)) == 4  # and what they are for; no manifest yet
    with pytest.raises(
        InputError, match=r"memory:/+bucket/data: was made with other settings \(shard_rows 70"
    ):
        prepare(raw, store, **{**OPTIONS, "shard_rows": 71})
    fsspec.filesystem("memory").pipe_file("/bucket/data/train-00099.arrow", b"of another raw file")
    sent.clear()
    monkeypatch.setattr(remote, "send", lambda path, target: (sent.append(path.name), send(path, target)))
    assert prepare(raw, store, **OPTIONS) == wanted
    assert len(sent) == len(wanted.files) - 3
    assert contents(store) == in_folder(tmp_path / "folder")
    assert not any((tmp_path / "cache" / "prep").rglob("*.arrow"))

    sent.clear()
    assert prepare(raw, store, **OPTIONS) == Manifest.load(store) == wanted  # nothing to do
    assert not sent
    assert (local_shards(store) / "train-00000.arrow").exists()
    assert verify(store) == []
    with pytest.raises(InputError, match="was made with other settings"):
        prepare(raw, store, shard_rows=70, max_bad_fraction=0.1)
    raw.write_bytes(raw.read_bytes() * 2)
    with pytest.raises(InputError, match="was made from other raw files"):
        prepare(raw, store, **OPTIONS)
    fsspec.filesystem("memory").pipe_file("/bucket/other/notes.txt", b"mine")
    with pytest.raises(InputError, match="other: is not empty and holds no finished shards"):
        prepare(raw, "memory://bucket/other", **OPTIONS)


def test_shards_in_a_store_are_verified(raw: Path, store: str, tmp_path: Path) -> None:
    manifest = prepare(raw, store, **OPTIONS)
    memory = fsspec.filesystem("memory")
    first, second = (shard.file for shard in manifest.splits["train"].shards[:2])
    content = memory.cat_file(f"/bucket/data/{first}")
    memory.pipe_file(f"/bucket/data/{first}", content[:-1] + bytes([content[-1] ^ 1]))
    memory.rm_file(f"/bucket/data/{second}")
    memory.pipe_file("/bucket/data/quarantine/more.tsv", b"of someone else")
    ran = CliRunner().invoke(app, ["prep", "--verify", store, "--json"])
    assert ran.exit_code == 1, ran.output
    assert json.loads(ran.stdout)["damaged"] == [
        f"{first}: its content has changed (its SHA-256 differs)",
        f"{second}: is missing",
        "quarantine/more.tsv: is not in the manifest; remove it",
    ]


@pytest.mark.slow
def test_killed_at_any_instant_the_store_ends_with_the_same_bytes(
    tmp_path: Path, raw: Path, s3: S3Server
) -> None:
    wanted = prepare(raw, tmp_path / "folder", **OPTIONS)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    s3.bucket("shards")
    ends = []
    for left, at in [
        *((5, "rename"), (60, "rename"), (0, "before"), (0, "after"), (9, "after"), (14, "before")),
        *((len(wanted.files) - 24, "after"), (0, "rename"), (10**6, "never")),
    ]:
        command = [sys.executable, program, "s3://shards/data", raw, str(left), at]
        ends.append(subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False).returncode)
        there = contents("s3://shards/data")
        there.pop(".partial.json", None)
        assert "manifest.json" not in there or there == in_folder(tmp_path / "folder")
    assert ends[0] == ends[2] == ends[3] == ends[4] == -signal.SIGKILL
    assert ends[-1] == 0
    assert contents("s3://shards/data") == in_folder(tmp_path / "folder")
