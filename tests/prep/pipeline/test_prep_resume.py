"""A preparation that is killed, starved or interrupted goes on, and ends with the bytes of one that was not."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killed_at_rename import KILLED_AT_RENAME
from sizewise_core.errors import InputError
from sizewise_prep.pipeline import prep
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.verifying import verify

Line = Callable[..., bytes]
Log = Callable[..., Path]

# Prepares argv[2:] into argv[1] in small pieces, and does what STOP says on the way.
PROGRAM = (
    """
import json, os, signal, sys
from sizewise_prep.pipeline import prep
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.raw.files import reader
parts.PIECE_BYTES, reader.BLOCK_BYTES = 20_000, 5_000
options = json.loads(os.environ["OPTIONS"])
"""
    + KILLED_AT_RENAME
    + """
if __name__ == "__main__":
    sys.addaudithook(at)
    prep.prepare(sys.argv[2:], sys.argv[1], **options)
"""
)


@pytest.fixture
def logs(line: Line, log: Log) -> list[str]:
    """Two plain files and a compressed one of some pieces each, with a bad row in every one."""
    paths = []
    for name, rows in (("a.tsv", 250), ("b.tsv", 30), ("c.tsv", 200)):
        lines = [line(j % 2, I1=str(j), C1=f"{j % 50:x}") for j in range(rows)]
        paths.append(log(*lines[:20], b"torn", *lines[20:], name=name))
    paths[2].write_bytes(gzip.compress(paths[2].read_bytes(), mtime=0))
    return [str(path) for path in paths]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pieces as in the program above, in this process."""
    monkeypatch.setattr("sizewise_prep.pipeline.jobs.parts.PIECE_BYTES", 20_000)
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 5_000)


def run(
    tmp_path: Path, out: Path, logs: list[str], options: dict[str, object], **more: str
) -> subprocess.Popen[bytes]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {"PYTHONPATH": path, "OPTIONS": json.dumps(options)} | more
    return subprocess.Popen([sys.executable, program, out, *logs], env=environment, stderr=subprocess.PIPE)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["raw", "contiguous"])
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    tmp_path: Path, logs: list[str], small_pieces: None, tokens: str
) -> None:
    options = {"tokens": tokens, "shard_rows": 90, "max_bad_fraction": 0.1, "shuffle": 3}
    prepare(logs, tmp_path / "whole", **options)
    kills = 0
    while True:
        # Each run may finish a few more files and dies just before the next one gets its name.
        ended = run(tmp_path, tmp_path / "out", logs, options, RENAMES=str(8 * 3**kills // 2**kills))
        ended.communicate()
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        kills += 1
        assert not (tmp_path / "out").exists()
    assert kills >= 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".out.partial"))


def test_what_is_done_is_not_done_again(tmp_path: Path, logs: list[str], small_pieces: None) -> None:
    out = tmp_path / "out"
    ended = run(tmp_path, out, logs, {"max_bad_fraction": 0.1}, RENAMES="20")
    ended.communicate()
    records = {p: p.stat().st_mtime_ns for p in (tmp_path / ".out.partial" / "work" / "parts").glob("*.json")}
    assert len(records) >= 5
    seen = {}

    def look(step: prep.Progress) -> None:
        if step.step == "read":
            seen.update({p: p.stat().st_mtime_ns for p in records})

    prepare(logs, out, max_bad_fraction=0.1, progress=look)
    assert seen == records


def test_a_damaged_part_is_read_again(tmp_path: Path, logs: list[str], small_pieces: None) -> None:
    options = {"max_bad_fraction": 0.1, "shard_rows": 50}
    prepare(logs, tmp_path / "whole", **options)
    run(tmp_path, tmp_path / "out", logs, options, RENAMES="24").communicate()
    damaged = sorted((tmp_path / ".out.partial" / "work" / "parts").glob("*.rows"))
    assert len(damaged) > 3
    damaged[0].write_bytes(damaged[0].read_bytes()[:-1])
    damaged[1].write_bytes(b"\0" * damaged[1].stat().st_size)
    damaged[-1].unlink()
    prepare(logs, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_damaged_shards_are_made_again_from_the_raw_files(
    tmp_path: Path, logs: list[str], small_pieces: None
) -> None:
    options = {"max_bad_fraction": 0.1, "shard_rows": 50}
    prepare(logs, tmp_path / "whole", **options)
    working = tmp_path / ".out.partial"
    for renames in range(30, 80, 2):
        run(tmp_path, tmp_path / "out", logs, options, RENAMES=str(renames)).communicate()
        if shards := sorted(working.glob("*.arrow")):
            break
    assert shards
    shards[0].write_bytes(b"")  # its parts were given up when it was written
    prepare(logs, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_columns_that_are_numbered_are_not_numbered_again(
    tmp_path: Path, logs: list[str], small_pieces: None
) -> None:
    options = {"tokens": "contiguous", "max_bad_fraction": 0.1, "shard_rows": 200}
    prepare(logs, tmp_path / "whole", **options)
    numbered = tmp_path / ".out.partial" / "work" / "numbered"
    renames = 45
    while len(list(numbered.glob("*.json"))) < 3:
        run(tmp_path, tmp_path / "out", logs, options, RENAMES=str(renames)).communicate()
        renames = 9
    records = sorted(numbered.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert len(records) < 26
    damaged = records[0]
    ids = numbered.with_name("ids") / f"{damaged.stem}.u32"
    ids.write_bytes(bytes(ids.stat().st_size))
    before = {path: path.stat().st_mtime_ns for path in records}
    after = {}

    def look(step: prep.Progress) -> None:
        after.update({path: path.stat().st_mtime_ns for path in records if path.exists()})

    prepare(logs, tmp_path / "out", progress=look, **options)
    assert {path for path in records if after[path] != before[path]} == {damaged}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_settings_and_other_files_are_refused(
    tmp_path: Path, logs: list[str], small_pieces: None
) -> None:
    run(tmp_path, tmp_path / "out", logs, {"max_bad_fraction": 0.1}, RENAMES="12").communicate()
    with pytest.raises(
        InputError, match=r"\.out\.partial: was made with other settings \(shard_rows 524288 inst"
    ):
        prepare(logs, tmp_path / "out", max_bad_fraction=0.1, shard_rows=7)
    with pytest.raises(InputError, match=r"\.out\.partial: was begun with other raw files"):
        prepare(logs[:2], tmp_path / "out", max_bad_fraction=0.1)
    prepare(logs, tmp_path / "out", max_bad_fraction=0.2)  # how many may be bad is judged at the end


def test_a_file_that_has_changed_is_read_again(
    tmp_path: Path, line: Line, logs: list[str], small_pieces: None
) -> None:
    run(tmp_path, tmp_path / "out", logs, {"max_bad_fraction": 0.1}, RENAMES="20").communicate()
    Path(logs[0]).write_bytes((line(1) + b"\n") * 300)
    manifest = prepare(logs, tmp_path / "out", max_bad_fraction=0.1)
    assert manifest.sources[0].rows == 300
    prepare(logs, tmp_path / "fresh", max_bad_fraction=0.1)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_mended_row_is_all_that_is_left_to_do(
    tmp_path: Path, line: Line, logs: list[str], small_pieces: None
) -> None:
    with pytest.raises(InputError, match=r"a\.tsv, line 21: is|a\.tsv, line 21: has 1 tab"):
        prepare(logs, tmp_path / "out")
    for path in logs:
        text = gzip.decompress(Path(path).read_bytes()) if path == logs[2] else Path(path).read_bytes()
        Path(path).write_bytes(text.replace(b"torn", line(1)))
    assert prepare(logs, tmp_path / "out").rows_quarantined == 0


def test_processes_die_with_the_one_that_started_them(
    tmp_path: Path, logs: list[str], small_pieces: None
) -> None:
    out, options = tmp_path / "out", {"workers": 2, "max_bad_fraction": 0.1}
    prepare(logs, tmp_path / "whole", max_bad_fraction=0.1)
    started = run(tmp_path, out, logs, options)
    records = tmp_path / ".out.partial" / "work" / "parts"
    while started.poll() is None and len(list(records.glob("*.json"))) < 2:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.communicate()  # ends when nobody holds the pipe any more, its workers included
    prepare(logs, out, max_bad_fraction=0.1)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_full_disk_is_named_and_the_work_goes_on(
    tmp_path: Path, logs: list[str], small_pieces: None
) -> None:
    import resource

    options = {"max_bad_fraction": 0.1}
    prepare(logs, tmp_path / "whole", **options)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # parts fit, the shard does not
    try:
        with pytest.raises(InputError, match=r"cannot be written completely \(File too large\); make room"):
            prepare(logs, tmp_path / "out", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / ".out.partial").glob("*.arrow")) == []  # no half a shard
    prepare(logs, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert verify(tmp_path / "out") == []
