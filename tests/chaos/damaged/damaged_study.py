"""A tiny study with every kind of file that a study can hold, made without Ray, and damages to do to each.

runs = make_studies(folder, shards)        # runs/finished, and runs/interrupted in the middle of its third trial
damage(runs / "finished" / "study.json", "half", other)
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from real_study import one_thread
from sizewise import config
from sizewise.engine import run as study
from sizewise.engine.deciding.decisions import Engine
from sizewise.metrics.evaluation import Evaluation
from sizewise.training.loop import train
from sizewise_core.files.sealed import LAST_LINE, sealed, unsealed

DAMAGES = (
    "gone",
    "empty",
    "half",
    "a flipped bit",
    "a folder",
    "a link",
    "a pipe",
    "a device",
    "unreadable",
    "100 MB of one line",
    "another trial's",
    "a newer version's",
)
NOBODY = 65534
OUTSIDE = '{"secret": "of somebody else"}\n'
"""What a link in a study leads to: neither read, nor written to."""
STUDY = """\
name: {name}
data: {data}
model: {{dim: 4, bottom_mlp: [8], top_mlp: [8]}}
embedding: {{method: robe, block_len: 4}}
search: {{memory_budget: {{low: 1000x, high: 10x}}, epochs: {{low: 1, high: 2}}}}
train: {{batch_size: 512, evaluate_every: 0.5, optimizer: adagrad}}
pruning: {{}}
prices: {{cpu_hour: 1.0, gpu_hour: 2.0}}
trials: 4
seed: 1
"""


class _Killed(BaseException):
    """The driver is no more."""


def run_trials(engine: Engine, *_: Any, kill_in: int = -1) -> None:
    """Trials trained one after another in this process; the second fails, `kill_in` loses its driver."""
    while (record := engine.next_trial()) is not None:
        number = record.trial_id
        engine.began(number)
        if number == 1:
            engine.failed(number, "DivergedError: diverged \x1b[31m[bold]", "Traceback\n\x1b[2Jerror\n")
            continue
        payload = engine.payload(record)

        def report(row: Evaluation, number: int = number) -> None:
            engine.evaluated(number, row)
            if number == kill_in:
                raise _Killed

        outcome = one_thread(
            lambda r=record, p=payload, say=report: train(
                engine.search.config(r),
                Path(p["folder"]),
                say,
                resumed=partial(engine.resumed, r.trial_id),
                **p["how"],
            )
        )
        engine.finished(number, outcome.evaluations, outcome.test, outcome.pruned)


def make_studies(folder: Path, shards: Path, patch: pytest.MonkeyPatch) -> Path:
    """The runs folder, with both studies, and `teacher`, from which they have learnt."""
    runs = folder / "runs"
    for name, kill_in in (("teacher", -1), ("finished", -1), ("interrupted", 2)):
        path = folder / f"{name}.yaml"
        path.write_text(
            STUDY.format(name=name, data=shards) + ("" if name == "teacher" else "warm_start: teacher\n")
        )
        patch.setattr(study, "_run_trials", partial(run_trials, kill_in=kill_in))
        try:
            study.run(config.load(path), runs)
        except _Killed:
            facts = unsealed((runs / name / "driver.json").read_bytes())
            killed = json.dumps({**facts, "state": "running", "born": 1})
            (runs / name / "driver.json").write_text(sealed(killed))
    patch.setattr(study, "_run_trials", run_trials)
    return runs


def files(folder: Path) -> list[str]:
    """The files of a study, without those that hold no bytes."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(str(path.relative_to(folder)) for path in found)


def other_of(folder: Path, name: str) -> Path | None:
    """The same kind of file of another trial; None where a study has one of it."""
    path = Path(name)
    kin = [other for other in folder.glob(f"{path.parts[0]}/**/*{path.suffix}") if other.is_file()]
    for other in sorted(kin):
        different = (
            other.name != path.name
            if path.parts[0] != "checkpoints"
            else other.parent.name != path.parent.name
        )
        if len(path.parts) > 1 and path.parts[0] != "logs" and different:
            return other
    return None


def damage(folder: Path, name: str, how: str) -> bool:
    """Damage one file of a study; False where this damage cannot be done to it, or here."""
    path = folder / name
    content = path.read_bytes()
    if how == "unreadable" and os.geteuid() == 0 and not _nobody_reaches(path):
        return False
    if how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(content[: len(content) // 2])
    elif how == "a flipped bit":
        at = next(
            (n for n, byte in enumerate(content) if n > len(content) // 2 and chr(byte).isdigit()),
            len(content) // 2,
        )
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif how == "unreadable":
        path.chmod(0)
    elif how == "100 MB of one line":
        with path.open("wb") as file:
            for _ in range(100):
                file.write(b"7" * 10**6)
    elif how == "another trial's":
        other = other_of(folder, name)
        if other is None:
            return False
        path.write_bytes(other.read_bytes())
    elif how == "a newer version's":
        newer = _newer(name, content)
        if newer is None:
            return False
        path.write_bytes(newer)
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()
        elif how == "a link":
            outside = folder.parent / "outside"
            outside.write_text(OUTSIDE)
            outside.chmod(0o666)
            path.symlink_to(outside)
        elif how == "a pipe":
            os.mkfifo(path)
        elif how == "a device":
            try:
                os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: it has no end
            except PermissionError:
                return False
    return True


def _newer(name: str, content: bytes) -> bytes | None:
    """A file as a later version may write it: with fields that this one does not know."""
    if name.endswith((".json", ".before", ".count")) and content[:1] == b"{":
        return sealed(json.dumps({**unsealed(content), "schema_version": 2, "shape": "round"})).encode()
    if name.endswith(".jsonl"):
        rows = [unsealed(line) for line in content.splitlines()]
        return b"".join(sealed(json.dumps({**row, "shape": "round"})).encode() + b"\n" for row in rows)
    if name in ("study.yaml", "study.before"):
        import zlib

        text = content.rpartition(LAST_LINE)[0] + b"shape: round\n"
        return text + LAST_LINE + b"%08x\n" % zlib.crc32(text)
    if name.endswith(".ckpt"):
        import hashlib
        import io

        state = torch.load(io.BytesIO(content[:-32]), weights_only=True)
        buffer = io.BytesIO()
        torch.save({**state, "shape": "round"}, buffer)
        return buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest()
    return None


def _nobody_reaches(path: Path) -> bool:
    """Whether a user without rights gets to a folder."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


@contextmanager
def as_another_user(folder: Path, really: bool) -> Iterator[None]:
    """Be a user to whom permissions mean something: root reads whatever it likes."""
    if not really or os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def copy_of(runs: Path, name: str, target: Path) -> Path:
    """A study copied into a runs folder of its own."""
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o777)
    return Path(shutil.copytree(runs / name, target / name))
