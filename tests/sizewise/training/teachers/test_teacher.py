"""A teacher's scores: computed once for each training row, checked, shared by processes, read with the batch."""

import errno
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sizewise.config.trial import TrialConfig
from sizewise.training.checkpoints import checkpoint
from sizewise.training.input.batches import Split
from sizewise.training.loop import build_model, predict, train
from sizewise.training.teachers.teacher import Numbers, Scorer, Teacher, TeacherScores, mean_of
from sizewise.training.teachers.teacher_files import file_teacher
from sizewise.training.teachers.teacher_models import model_teacher
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify


@pytest.fixture
def data(shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards, tmp_path / "shards")


class Counted:
    """A teacher whose score of a row is its number in the split, or shifted; it keeps what it was asked for."""

    def __init__(self, shift: float = 0.0, log: Path | None = None, fail_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.shift, self.log, self.fail_at = shift, log, fail_at

    @property
    def teacher(self) -> Teacher:
        return Teacher("rows", f"rows {self.shift}", lambda: self._score)

    def _score(self, shard: Split, first: int) -> Numbers:
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append(first)
        if self.log:
            with self.log.open("a") as log:
                log.write(f"{first}\n")
        return np.arange(first, first + shard.rows, dtype=np.float32) + self.shift


def scores_of(teacher: Teacher, data: Path) -> TeacherScores:
    return TeacherScores.of(teacher, str(data), Manifest.load(data), Split.open(data, "train"))


@pytest.mark.parametrize("world", [1, 3])
def test_batches_carry_the_score_of_each_of_their_rows(
    data: Path, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that cross blocks and shards too, for one worker and for several."""
    monkeypatch.setattr("sizewise.training.input.batches.BLOCK_ROWS", 150)
    plain = Split.open(data, "train")
    scores = scores_of(Counted().teacher, data)
    scores.complete()
    split = plain.with_teacher(scores.shard)
    rows = torch.cat([batch.ids.to(torch.int64) for batch in plain.in_order(1000)])
    seen = []
    for rank in range(world):
        batches = split.stream(0, 2 * split.iterations(256), 256, 1, rank, world, ahead=rank == 1)
        without = plain.stream(0, 2 * split.iterations(256), 256, 1, rank, world)
        for batch, alone in zip(batches, without, strict=True):
            assert batch.teacher is not None
            assert all(
                map(torch.equal, batch.tensors(), alone.tensors())
            )  # what there is without a teacher stays as it is
            assert torch.equal(rows[batch.teacher.long()], batch.ids.to(torch.int64))
            seen += batch.teacher.tolist()
    assert sorted(seen) == sorted(2 * list(range(3_200)))


def test_a_kill_in_the_middle_leaves_nothing_to_compute_twice(data: Path) -> None:
    killed = Counted(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        scores_of(killed.teacher, data).complete()
    resumed = Counted()
    scores_of(resumed.teacher, data).complete()
    assert killed.asked + resumed.asked == [0, 700, 1400, 2100, 2800]
    again = Counted()
    scores_of(again.teacher, data).complete()
    assert again.asked == []
    assert verify(data) == []  # they are no part of the data


@pytest.mark.parametrize("damage", ["number", "cut", "record", "gone", "link"])
def test_damaged_scores_are_computed_again(data: Path, damage: str, tmp_path: Path) -> None:
    scores_of(Counted().teacher, data).complete()
    path = next(data.glob("teachers/*/train-00001.f32"))
    content = path.read_bytes()
    if damage == "number":
        path.write_bytes(content[:100] + b"\x01" + content[101:])
    elif damage == "cut":
        path.write_bytes(content[:-4])
    elif damage == "record":
        path.with_suffix(".json").write_text("{}")
    else:
        path.rename(tmp_path / "elsewhere")
        if damage == "link":
            path.symlink_to(tmp_path / "elsewhere")
    again = Counted()
    scores = scores_of(again.teacher, data)
    with pytest.raises(DamagedError, match="train-00001"):
        scores.shard(1)
    scores.complete()
    assert again.asked == [700]
    assert scores.shard(1)[0] == 700


def test_scores_are_of_one_teacher_and_one_data_set(data: Path) -> None:
    for shift in (0.0, 1.0):
        scores_of(Counted(shift).teacher, data).complete()
    assert scores_of(Counted(1.0).teacher, data).shard(0)[0] == 1.0
    mean = mean_of([Counted(0.0).teacher, Counted(1.0).teacher])
    scores = scores_of(mean, data)
    scores.complete()
    assert scores.shard(2)[0] == 1400.5
    assert len(list((data / "teachers").iterdir())) == 3


def _complete(data: Path, log: Path) -> None:
    scores_of(Counted(log=log).teacher, data).complete()


def test_processes_share_the_work_and_do_none_of_it_twice(data: Path, tmp_path: Path) -> None:
    log, context = tmp_path / "log", multiprocessing.get_context("fork")
    processes = [context.Process(target=_complete, args=(data, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(map(int, log.read_text().split())) == [0, 700, 1400, 2100, 2800]


def test_a_data_folder_that_cannot_be_written_to_has_its_scores_in_the_cache(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    (data / "teachers").write_text("")  # root could write to any folder
    scores = scores_of(Counted().teacher, data)
    scores.complete()
    assert scores.shard(0).tolist() == list(range(700))
    assert len(list((tmp_path / "cache" / "teachers").glob("*/*.f32"))) == 5
    monkeypatch.setenv("SIZEWISE_CACHE", str(data / "teachers"))
    with pytest.raises(InputError, match="SIZEWISE_CACHE"):
        scores_of(Counted(1.0).teacher, data).complete()


@pytest.mark.parametrize("taken", [".train-00001.lock", "train-00001.f32", "train-00001.json"])
def test_a_folder_in_the_place_of_scores_is_named(data: Path, taken: str) -> None:
    scores = scores_of(Counted().teacher, data)
    (scores.folders[0] / taken).mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"scores cannot be kept there \(Is a directory\): remove that folder"
    ):
        scores.complete()
    shutil.rmtree(scores.folders[0])
    scores.complete()
    assert scores.missing() == []


def test_a_full_disk_is_said_to_be_full(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where not even a lock can be made: no inode is left."""
    scores, before = scores_of(Counted().teacher, data), os.open

    def opened(path: str | os.PathLike[str], *rest: int, **more: int) -> int:
        if ".train-00001.lock" in os.fspath(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return before(path, *rest, **more)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(InputError, match=r"No space left on device\): make room there: four bytes"):
        scores.complete()


def test_a_score_that_is_no_number_names_its_row(data: Path) -> None:
    def load() -> Scorer:
        return lambda shard, first: np.where(np.arange(shard.rows) + first == 1500, np.nan, 0).astype(
            np.float32
        )

    for teacher in (Teacher("broken", "b", load), mean_of([Counted().teacher, Teacher("broken", "b", load)])):
        with pytest.raises(InputError, match=r"broken gives nan for training row 1,501"):
            scores_of(teacher, data).complete()


def test_a_trial_scores_rows_as_its_evaluations_do(
    data: Path, trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config(data=str(data), epochs=1, evaluate_every=1.0)
    outcome = train(config, tmp_path / "trial", lambda row: None)
    best = tmp_path / "trial" / f"best-{outcome.evaluations[-1]['iteration']:012d}.safetensors"
    last = checkpoint.newest(tmp_path / "trial")
    model = build_model(config, Manifest.load(data))
    model.load_state_dict(checkpoint.load_weights(best))
    expected = predict(model, Split.open(data, "train").in_order(700), torch.device("cpu"))[1]
    for path in (best, Path(str(last))):
        teacher = model_teacher("study/0000", config, path, checkpoint.digest_of(path), data)
        scores = scores_of(teacher, data)
        scores.complete()
        ours = np.concatenate([scores.shard(index) for index in range(5)])
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    other = model_teacher("study/0000", trial_config(data=str(data), dim=16), best, "another", data)
    with pytest.raises(InputError, match=r"best-.*: was replaced since the study began"):
        scores_of(other, data).complete()
    best.unlink()
    with pytest.raises(DamagedError, match="No such file"):
        checkpoint.digest_of(best)


def write(path: Path, **columns: Any) -> Path:
    table = pl.DataFrame(columns)
    match path.suffix:
        case ".npy":
            np.save(path, np.column_stack(list(columns.values())).squeeze())
        case ".csv":
            table.write_csv(path)
        case ".parquet":
            table.write_parquet(path)
        case ".arrow":
            table.write_ipc(path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet", ".arrow"])
def test_a_file_of_scores_is_a_teacher(data: Path, tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(1).normal(-1, 1, 3_200).astype(np.float32)
    path = write(tmp_path / f"scores{suffix}", score=values)
    scores = scores_of(file_teacher(path, 3_200), data)
    scores.complete()
    ours = np.concatenate([scores.shard(index) for index in range(5)])
    np.testing.assert_allclose(ours, values, rtol=1e-6)


def test_a_column_says_by_its_name_what_it_holds(tmp_path: Path) -> None:
    odds = np.array([-2.0, 0.0, 3.0, 0.5])
    share = 1 / (1 + np.exp(-odds))
    read = {
        "scores.csv": {"file": ["a"] * 4, "log_odds": odds, "probability": share},
        "shares.csv": {"probability": share},
        "shares.parquet": {"probability": share},
    }
    for name, columns in read.items():
        scores = file_teacher(write(tmp_path / name, **columns), 4).load()
        assert scores(Split((Path(),), (4,), 1, 1), 0).tolist() == pytest.approx(odds.tolist(), rel=1e-5)
    (tmp_path / "plain.csv").write_text("-2\n0\n3\n0.5\n")  # no header
    assert file_teacher(tmp_path / "plain.csv", 4).load()(Split((Path(),), (2,), 1, 1), 2).tolist() == [
        3.0,
        0.5,
    ]


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("a.parquet", {"x": [1.0, 2.0, -3.0]}, r"has 3 scores, and the training split has 4 rows"),
        ("a.npy", {"x": [1.0, 2.0, -3.0, float("nan")]}, r"score 4 is nan"),
        ("a.csv", {"x": [1.0, None, -3.0, 1.0]}, r"score 2 of column 'x' is missing"),
        ("a.npy", {"x": [1.0, 1e300, -3.0, 1.0]}, r"score 2 is 1e\+300, .*float32"),
        ("a.npy", {"x": [0, 1, 1, 0]}, r"all scores lie between 0 and 1"),
        ("a.csv", {"probability": [0.5, None, 0.5, 0.5]}, r"score 2 of column 'probability' is missing"),
        ("a.csv", {"x": ["a", "b", "c", "d"]}, r"score 1 of column 'x' is 'a'"),
        ("a.csv", {"x": [1.0] * 4, "y": [1.0] * 4}, r"has 2 columns .*log_odds"),
        ("a.npy", {"x": [0.1, 0.2, 0.3, 0.4]}, r"all scores lie between 0 and 1"),
        ("a.csv", {"probability": [0.1, 0.2, 0.3, 1.4]}, r"score 4 is 1.4, and must be a probability"),
        ("a.npy", {"x": [1.0] * 4, "y": [1.0] * 4}, r"has the shape 4x2"),
        ("a.txt", {}, r"ends with .npy"),
        ("gone.npy", None, r"no such file"),
        ("torn.parquet", b"PAR1....", r"no table"),
        ("torn.npy", b"x", r"no NumPy file"),
        ("empty.csv", b"", r"no table"),
    ],
)
def test_a_file_that_holds_no_scores_is_refused_in_a_sentence(
    tmp_path: Path, name: str, columns: Any, message: str
) -> None:
    path = tmp_path / name
    if isinstance(columns, bytes):
        path.write_bytes(columns)
    elif columns:
        write(path, **columns)
    with pytest.raises(InputError, match=message) as error:
        file_teacher(path, 4)
    assert len(str(error.value).removeprefix(str(path))) < 250
    assert "\n" not in str(error.value)
