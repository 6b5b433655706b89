"""A process that is killed at any of its writes leaves a study that goes on to the calm end, to the last bit."""

import multiprocessing
import os
import shutil
from pathlib import Path

from real_study import assert_equal, calm_study

STUDY = """\
name: killed
data: {data}
model: {{dim: 8, bottom_mlp: [16], top_mlp: [16]}}
embedding: {{method: {{choices: [robe, qr]}}}}
search: {{memory_budget: {{low: 100x, high: 10x}}, epochs: {{low: 1, high: 2}}}}
train: {{batch_size: 256, evaluate_every: 0.5, optimizer: adam}}
trials: 2
"""
KILLED = 9
# Processes are forked from one that has imported everything and computed nothing: kernels' threads survive no fork.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["sizewise.study.engine", "sizewise.train", "sizewise.search.suggest"])


def drive(study: Path, folder: Path, last: int, how: str) -> None:
    """Search and train, and die at write number `last`: `before` or `after` a rename, or with a line half-written.

    Exits with the number of writes there were, where there are fewer.
    """
    import sizewise.ledger as ledger

    writes, replace, append = 0, Path.replace, ledger.append_line

    def dies(now: str) -> bool:
        return writes == last and how == now

    def counted_replace(self: Path, target: Path) -> Path:
        nonlocal writes
        writes += 1
        if dies("before"):
            os._exit(KILLED)
        renamed = replace(self, target)
        if dies("after"):
            os._exit(KILLED)
        return renamed

    def counted_append(path: Path, line: bytes) -> None:
        nonlocal writes
        writes += 1
        if dies("half"):
            with path.open("ab") as file:
                file.write(line[: len(line) // 2])
            os._exit(KILLED)
        append(path, line)

    Path.replace, ledger.append_line = counted_replace, counted_append  # type: ignore[assignment,method-assign]
    calm_study(study, folder)
    (folder / "writes").write_text(str(writes))


def end_of(study: Path, folder: Path, last: int = 0, how: str = "") -> int | None:
    process = processes.Process(target=drive, args=(study, folder, last, how))
    process.start()
    process.join(120)
    return process.exitcode


def test_a_kill_at_any_write_changes_nothing(tmp_path: Path, shards: Path) -> None:
    study = tmp_path / "killed.yaml"
    study.write_text(STUDY.format(data=shards))
    assert end_of(study, tmp_path / "calm") == 0
    writes = int((tmp_path / "calm" / "writes").read_text())
    assert writes > 30
    kills = 0
    for last in range(1, writes + 1):
        for how in ("before", "after", "half"):
            folder = tmp_path / f"{last}-{how}"
            if end_of(study, folder, last, how) != KILLED:
                continue  # that write is not of this kind
            kills += 1
            assert end_of(study, folder) == 0
            assert_equal(folder, tmp_path / "calm")
            shutil.rmtree(folder)
    assert kills > 50
