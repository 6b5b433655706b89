"""Models that learn from a teacher, and rates that fall: exact in resume, blind to other splits."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS
from sizewise.training import loop
from sizewise.training.checkpoints import checkpoint
from sizewise.training.steps.schedule import STAIRS
from sizewise.training.steps.step import Step
from sizewise.training.teachers.teacher_files import file_teacher
from sizewise.training.teachers.teacher_sources import Source
from sizewise_core.errors import InputError

TIMED = {"train_seconds", "samples_per_second", "peak_memory_bytes"}
ROWS = 3_200
Make = Callable[..., TrialConfig]


@pytest.fixture
def data(shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards, tmp_path / "shards")


@pytest.fixture
def teacher(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "scores.npy"
    np.save(path, np.random.default_rng(2).normal(-1, 2, ROWS).astype(np.float32))
    digest = file_teacher(path, ROWS).digest
    return [Source(kind="scores", name="scores.npy", path=str(path), digest=digest, rows=ROWS).model_dump()]


def student(trial_config: Make, data: Path, **changes: Any) -> TrialConfig:
    settings = {"data": str(data), "distill_teacher": ["scores.npy"], "decay": "linear"}
    return trial_config(**{**settings, **changes})


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load_newest(folder)
    assert state is not None
    model: dict[str, torch.Tensor] = state["model"]
    return model


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam"}, {"distill_teacher": []}], ids=str)
def test_a_student_killed_in_the_middle_of_an_epoch_ends_as_it_would_have(
    trial_config: Make,
    data: Path,
    teacher: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    """And its rates were those of a line from the first to zero."""
    config = student(trial_config, data, checkpoint_seconds=1e-9, epochs=2, **changes)
    sources = teacher if config.train.distill_teacher else []
    steps, rates = Step.__call__, []

    def step(self: Step, *batch: Any) -> None:
        rates.append(self.optimizer.param_groups[0]["lr"])
        if len(rates) in kills:
            raise KilledError
        steps(self, *batch)

    monkeypatch.setattr(Step, "__call__", step)
    kills: list[int] = []
    calm = loop.train(config, tmp_path / "calm", lambda row: None, teacher=sources)
    assert rates == [0.02 * ((50 - i) / 50) for i in range(50)]
    rates.clear()
    kills = [8, 34]  # the second time after going on from a checkpoint
    for _ in kills:
        with pytest.raises(KilledError):
            loop.train(config, tmp_path / "killed", lambda row: None, teacher=sources)
    resumed = loop.train(config, tmp_path / "killed", lambda row: None, teacher=sources)
    without = [
        [{k: v for k, v in row.items() if k not in TIMED} for row in o.evaluations] for o in (resumed, calm)
    ]
    assert without[0] == without[1]
    assert resumed.test == calm.test
    assert equal(model_of(tmp_path / "killed"), model_of(tmp_path / "calm"))


def test_a_student_learns_what_its_teacher_says(
    trial_config: Make, data: Path, teacher: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A teacher that knows nothing of clicks makes it worse, one that knows the labels' better; a little, a little."""
    aucs = {}
    for weight in (0.01, 1.0):
        config = student(trial_config, data, distill_weight=weight)
        aucs[weight] = loop.train(config, tmp_path / str(weight), lambda row: None, teacher=teacher)
    labels = loop.train(
        student(trial_config, data, distill_teacher=[]), tmp_path / "labels", lambda row: None
    )
    last = [o.evaluations[-1]["auc"] for o in (aucs[1.0], aucs[0.01], labels)]
    assert last[0] < last[2] - 0.02
    assert last[1] == pytest.approx(last[2], abs=0.01)
    assert last[1] != last[2]


@pytest.mark.slow
def test_labels_of_other_splits_do_not_reach_a_student_through_its_teacher(
    trial_config: Make, data: Path, shards: Path, tmp_path: Path
) -> None:
    """The labels of validation and test rows permuted: the same teacher, and the same student to the last bit."""
    permuted = shutil.copytree(shards, tmp_path / "permuted")
    random, changed = np.random.default_rng(1), 0
    for path in [*permuted.glob("validation-*.arrow"), *permuted.glob("test-*.arrow")]:
        content = path.read_bytes()
        before = pl.read_ipc(io.BytesIO(content))["label"].to_numpy()
        assert content.count(before.tobytes()) == 1
        labels = random.permutation(before)
        changed += int((labels != before).sum())
        path.write_bytes(content.replace(before.tobytes(), labels.tobytes()))
    assert changed
    models, evaluations = [], []
    for folder in (data, permuted):
        config = trial_config(data=str(folder), dim=16, memory_budget=80_000, epochs=1, evaluate_every=1.0)
        made = tmp_path / f"teacher-{folder.name}"
        loop.train(config, made, lambda row: None)
        path = Path(str(checkpoint.newest(made)))
        source = Source(
            kind="trial",
            name="t/0",
            path=str(path),
            digest=checkpoint.digest_of(path),
            config=config.flat(),
        )
        config = student(trial_config, folder, distill_teacher=["t/0"])
        outcome = loop.train(
            config, tmp_path / f"student-{folder.name}", lambda row: None, teacher=[source.model_dump()]
        )
        models.append((model_of(made), model_of(tmp_path / f"student-{folder.name}")))
        evaluations.append(outcome.evaluations[-1]["auc"])
    assert equal(models[0][0], models[1][0])
    assert equal(models[0][1], models[1][1])
    assert evaluations[0] != evaluations[1]


def test_a_decayed_trial_has_a_curve_of_its_own(trial_config: Make) -> None:
    def curves(**changes: Any) -> set[str]:
        return {trial_config(epochs=epochs, **changes).curve() for epochs in (1, 3)}

    assert len(curves()) == len(curves(decay="none")) == 1
    assert len(curves(decay="linear")) == 2
    assert curves() == curves(decay="none")
    assert not curves(decay="linear") & curves()
    assert trial_config().digest() == trial_config(decay="none", distill_teacher=[]).digest()
    digests = [trial_config(distill_teacher=["a/1"], distill_weight=w).digest() for w in (0.9, 0.5)]
    assert len({trial_config().digest(), *digests}) == 3


def test_recorded_steps_take_few_rates(
    trial_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rate is a recording; here one that only repeats what it was given."""
    recorded: list[float] = []
    init = Step.__init__

    def recording(self: Step, *arguments: Any, **settings: Any) -> None:
        def recorder(work: Callable[[], None]) -> Callable[[], object]:
            recorded.append(self.optimizer.param_groups[0]["lr"])
            return work

        init(self, *arguments, **settings, recorder=recorder)

    monkeypatch.setattr(Step, "__init__", recording)
    config = trial_config(decay="linear", epochs=10, optimizer="sgd", evaluate_every=10.0)
    loop.train(config, tmp_path / "trial", lambda row: None)
    assert len(recorded) <= STAIRS < 250
    assert recorded == sorted(recorded, reverse=True)


def test_a_teacher_that_is_not_there_is_named(
    trial_config: Make, data: Path, teacher: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = student(trial_config, data)
    with pytest.raises(InputError, match=r"distill.teacher: scores.npy was not found"):
        loop.train(config, tmp_path / "a", lambda row: None)
    (tmp_path / "scores.npy").unlink()
    with pytest.raises(InputError, match=r"there is no such file of scores"):
        loop.train(config, tmp_path / "b", lambda row: None, teacher=teacher)
    other = [{**teacher[0], "kind": "export", "path": "/nowhere"}]
    with pytest.raises(InputError, match="not on this machine"):
        loop.train(config, tmp_path / "c", lambda row: None, teacher=other)


@pytest.mark.parametrize("method", METHODS.own)
def test_every_method_can_learn_from_a_teacher(
    trial_config: Make, contiguous_shards: Path, teacher: list[dict[str, Any]], tmp_path: Path, method: str
) -> None:
    """What the teacher says makes a difference, and what it learned comes back from a checkpoint."""
    settings = {"method": method, "options": {}, "memory_budget": 10**7 if method == "full" else 100_000}
    data = shutil.copytree(contiguous_shards, tmp_path / "data")
    models = []
    for weight in (0.5, 1.0):
        config = student(trial_config, data, **settings, epochs=1, evaluate_every=1.0, distill_weight=weight)
        outcome = loop.train(config, tmp_path / str(weight), lambda row: None, teacher=teacher)
        again = loop.train(config, tmp_path / str(weight), lambda row: None, teacher=teacher)
        assert again.evaluations == outcome.evaluations
        models.append(model_of(tmp_path / str(weight)))
    assert not equal(*models)
