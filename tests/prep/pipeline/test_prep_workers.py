"""Any number of workers leave the same bytes."""

import gzip
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.pipeline.workers import Local
from sizewise_prep.raw.files import reader

Line = Callable[..., bytes]
Log = Callable[..., Path]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["raw", "contiguous"])
def test_the_number_of_workers_and_the_size_of_pieces_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Line, log: Log, tokens: str
) -> None:
    lines = [line(int(j % 3 == 0), I1=str(j), C1=f"{j * 7919 % 301:x}") for j in range(400)]
    lines[5], lines[250] = b"torn", b"\0"
    first, second = log(*lines[:300], name="a.tsv", ending=b"\r\n"), log(*lines[300:], name="b.tsv")
    second.write_bytes(gzip.compress(second.read_bytes()))
    options = {"tokens": tokens, "shard_rows": 70, "max_bad_fraction": 0.1}
    whole = prepare([first, second], tmp_path / "whole", **options)
    monkeypatch.setattr(reader, "BLOCK_BYTES", 3_000)
    for piece_bytes, workers in ((10_000, 1), (10_000, 2), (777, 1)):
        monkeypatch.setattr(parts, "PIECE_BYTES", piece_bytes)
        out = tmp_path / f"{piece_bytes}-{workers}"
        pieces = prepare([first, second], out, workers=workers, **options)
        assert pieces.sources[0].pieces > 1
        reported = whole.model_copy(update={"sources": pieces.sources})  # the digest says how it was read
        assert pieces == reported
        assert contents(out) | {"manifest.json": b""} == contents(tmp_path / "whole") | {"manifest.json": b""}
        assert prepare([first, second], out, **options) == pieces  # and is known again
    assert contents(tmp_path / "10000-1") == contents(tmp_path / "10000-2")


def slow_double(number: int) -> Iterator[int]:
    yield 2 * number


def kill_first(marker: str) -> Iterator[str]:
    """Dies the first time, as a worker does that runs out of memory."""
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    yield marker


def kill_always(number: int) -> Iterator[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield number


def complain(number: int) -> Iterator[int]:
    raise InputError(f"{number} is bad")
    yield number


def fill(parts: int) -> Iterator[int]:
    """Takes memory in parts too small for the system to take each back by itself."""
    yield sum(len(part) for part in [bytes([1]) * (1 << 20) for _ in range(parts)])


def fill_in_a_thread(parts: int) -> Iterator[int]:
    """The same in a thread that ends."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(next, fill(parts)).result()


def resident(_: int) -> Iterator[int]:
    """Bytes of this process that are in memory."""
    yield int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def blocked(_: int) -> Iterator[bool]:
    """Whether Ctrl+C on the terminal passes this process by."""
    yield signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_is_for_the_command_and_not_for_its_workers() -> None:
    with Local(2) as workers:
        assert {found for found in workers.run(blocked, [1] * 4, 0) if found is not None} == {True}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("function", [fill, fill_in_a_thread])
def test_what_a_step_leaves_in_memory_is_not_there_in_the_next(
    function: Callable[[int], Iterator[int]],
) -> None:
    with Local(2) as workers:
        before = max(filter(None, workers.run(resident, [1] * 8, 0)))
        assert 50 << 20 in workers.run(function, [50] * 8, 0)
        assert max(filter(None, workers.run(resident, [1] * 8, 0))) < before + (20 << 20)


def test_jobs_of_a_lost_worker_are_done_again(tmp_path: Path) -> None:
    markers = [str(tmp_path / name) for name in "abc"]
    with Local(2) as workers:
        results = [result for result in workers.run(kill_first, markers, 0) if result is not None]
        assert set(results) == set(markers)
        doubles = [result for result in workers.run(slow_double, [1, 2, 3], 0) if result is not None]
        assert sorted(doubles) == [2, 4, 6]


def test_a_worker_that_is_lost_every_time_is_an_error() -> None:
    with Local(2) as workers, pytest.raises(RuntimeError, match="killed again and again"):
        list(workers.run(kill_always, [1, 2], 0))


def test_what_a_job_has_to_say_is_said_here() -> None:
    with pytest.raises(InputError, match=r"^[12] is bad$"), Local(2) as workers:
        list(workers.run(complain, [1, 2], 0))
    assert multiprocessing.active_children() == []


def test_a_bad_row_in_any_range_is_named_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Line, log: Log
) -> None:
    monkeypatch.setattr(parts, "PIECE_BYTES", 5_000)
    path = log(*[line()] * 120, line(I3="x"), *[line()] * 20)
    with pytest.raises(InputError, match=r"day_0\.tsv, line 121: field 4 \(I3\): 'x' is not an integer"):
        prepare([path], tmp_path / "out", workers=2)


def test_memory_bounds_the_workers(tmp_path: Path, line: Line, log: Log) -> None:
    with pytest.raises(InputError, match=r"memory = 1,000,000 bytes: one worker needs"):
        prepare([log(line())], tmp_path / "out", memory=10**6)


def test_who_only_has_others_work_imports_neither_numba_nor_polars(
    tmp_path: Path, line: Line, log: Log
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom sizewise_prep.pipeline.prep import prepare\n"
        "if __name__ == '__main__':\n"
        "    print(prepare(sys.argv[2:], sys.argv[1], workers=2).rows_out, {'numba', 'polars'} & {*sys.modules})\n"
    )
    logs = [log(line(), name=name) for name in "ab"]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, program, tmp_path / "out", *logs]
    reported = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
    )
    assert reported.stdout == b"2 set()\n"
