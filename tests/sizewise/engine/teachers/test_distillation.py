"""Studies that train their teachers first: exact however interrupted."""

import itertools
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML
from tests.sizewise.engine.teachers.distilling import drive, engine_of, load

import real_study
from sizewise import config as study_file
from sizewise import results
from sizewise.embedding import full_bytes
from sizewise.engine import run
from sizewise.engine.simulated import Generated, simulate, simulated_engine
from sizewise.metrics.evaluation import Evaluation
from sizewise.results.commands import run_longer
from sizewise.results.decision.answering import answer
from sizewise.search.edited import disagreement
from sizewise.store import facts
from sizewise.store.trials.ledger import Ledger
from sizewise.training.steps.step import Step
from sizewise.training.teachers import teacher
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest


class KilledError(Exception):
    """Stands for the end of the process."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> Iterator[None]:
    """The process ends at a call of a function."""
    calls, function = [0], getattr(owner, name)

    def counted(*arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise KilledError
        return function(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counted)
        try:
            yield
        except KilledError:
            return
    pytest.fail(f"{name} was called {calls[0]} times")


def test_a_study_trains_its_teachers_first_and_says_so(made: tuple[Path, Path]) -> None:
    _, runs = made
    records = Ledger(runs / "mine").records()
    assert [(r.teacher, r.replicate, r.config["method"], r.params) for r in list(records.values())[:2]] == [
        (0, 0, "full", {}),
        (1, 1, "full", {}),
    ]
    assert [r.teacher for r in list(records.values())[2:]] == [None, None]
    assert {r.config["seed"] for r in list(records.values())[:2]} != {1}
    study = results.load(runs, "mine")
    assert study.trials["role"].to_list() == ["teacher", "teacher", "student", "student"]
    taken = 25 + 25  # an epoch each
    assert study.trials["teacher_iterations"].to_list() == [None, None, taken, taken]
    assert study.trials["teacher_seconds"][2] > 0
    assert study.trials["decay"].to_list()[2:] == ["linear"] * 2
    found = answer(study)
    assert found.smallest is not None
    student = study.trials.filter(trial_id=found.smallest.trial_id)["role"].item() == "student"
    who = "It" if student else "The study's students"
    assert f"{who} learned from 2 teachers, which took 50 iterations" in found.sentence
    assert facts.load(runs / "mine")["trials"] == 4  # type: ignore[index]
    assert results.status(runs, "mine")["trials"]["finished"] == 4


def test_wherever_it_is_killed_a_study_ends_as_it_would_have(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a teacher, between teachers and students, in the teacher's pass, and in a student's epoch."""
    data = Path(shutil.copytree(made[0], tmp_path / "shards"))
    shutil.rmtree(data / "teachers")
    spec = load(tmp_path, data)
    folder = tmp_path / "mine"
    scored: list[int] = []
    compute = teacher.TeacherScores._compute

    def noted(self: teacher.TeacherScores, index: int, scorer: Any) -> None:
        compute(self, index, scorer)
        scored.append(index)

    monkeypatch.setattr(teacher.TeacherScores, "_compute", noted)
    with killed_at(monkeypatch, Step, "__call__", 40):
        drive(engine_of(spec, folder))
    assert [r.state for r in Ledger(folder).records().values()] == ["finished", "running"]
    with killed_at(monkeypatch, teacher.TeacherScores, "complete", 1):
        drive(engine_of(spec, folder))
    assert [r.state for r in Ledger(folder).records().values()] == ["finished", "finished", "running"]
    with killed_at(monkeypatch, teacher.TeacherScores, "_compute", 3):
        drive(engine_of(spec, folder))
    with killed_at(monkeypatch, Step, "__call__", 20):
        drive(engine_of(spec, folder))
    drive(engine_of(spec, folder))
    assert scored == [0, 1, 2, 3, 4]
    calm = made[1] / "mine"
    found, expected = (Ledger(f).records() for f in (folder, calm))
    assert [(r.state, r.params, r.teacher) for r in found.values()] == [
        (r.state, r.params, r.teacher) for r in expected.values()
    ]
    assert real_study.curves(folder) == real_study.curves(calm)
    assert real_study.scores_of(folder) == real_study.scores_of(calm)


def test_students_wait_for_all_teachers_and_go_on_without_one_that_failed(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    engine = engine_of(load(tmp_path, made[0]), tmp_path / "mine")
    assert engine.remaining == 4
    first, second = engine.next_trial(), engine.next_trial()
    assert first is not None
    assert second is not None
    assert engine.next_trial() is None  # as yet
    assert engine.remaining == 4
    engine.evaluated(
        0, Evaluation({"iteration": 25, "epoch": 1.0, "auc": 0.7, "embedding_bytes": 1, "train_seconds": 1.0})
    )
    reason = "DivergedError: diverged: loss or predictions are not finite at iteration 9: search lower learning rates"
    engine.failed(first.trial_id, reason, "Traceback ...")
    assert engine.next_trial() is None
    assert engine.paused is None
    engine.failed(second.trial_id, "another")
    assert engine.next_trial() is None
    assert engine.ended
    assert str(engine.paused) == (
        "mine cannot go on, for all of its 2 teachers failed: DivergedError: diverged: loss or predictions are not "
        f"finite at iteration 9 (traceback: {tmp_path}/mine/logs/0000.txt): start another study with a lower "
        "distill.learning_rate"
    )
    # Before Ray starts, and with nothing said of resuming.
    with pytest.raises(InputError, match="all of its 2 teachers failed"):
        run.resume("mine", tmp_path)
    assert results.status(tmp_path, "mine")["message"] == engine.paused
    error = Ledger(tmp_path / "mine").records()[0].error
    assert error == reason.replace("search lower learning rates", "set a lower distill.learning_rate")
    table = results.load(tmp_path, "mine").trials  # without a student that never trains
    assert table.select("role", "state").rows() == [("teacher", "failed")] * 2


def test_a_teacher_whose_weights_are_gone_pauses_its_study(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, runs = made
    folder = Path(shutil.copytree(runs / "mine", tmp_path / "mine"))
    record = Ledger(folder).records()[3]
    Ledger(folder).write(record.model_copy(update={"state": "running"}))
    for path in folder.glob("checkpoints/0001-*/*.ckpt"):
        path.unlink()
    engine = engine_of(load(tmp_path, data), folder)
    assert engine.next_trial() is None
    assert "mine/0001: its checkpoint is gone: bring it back and resume" in str(engine.paused)


def test_a_study_file_that_was_edited_must_agree_with_its_teachers(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    data, runs = made
    records, tables = (
        list(Ledger(runs / "mine").records().values()),
        full_bytes(Manifest.load(data).cardinalities, 8),
    )
    assert disagreement(load(tmp_path, data), records, tables) == ""
    other = ", distill: {teacher: full, teachers: 2, learning_rate: 0.05}"
    assert "learning_rate: was 0.02 for trial 0, a teacher" in disagreement(
        load(tmp_path, data, other), records, tables
    )
    fewer = ", distill: {teacher: full}"
    assert "trial 1 is a teacher, and no longer wanted" in disagreement(
        load(tmp_path, data, fewer), records, tables
    )


def test_teachers_take_nothing_from_what_is_searched(made: tuple[Path, Path]) -> None:
    """Students are suggested as in a study without teachers but for their numbers; teachers are not searched."""
    frame = results.load(made[1], "mine").trials
    assert frame.filter(pl.col("role") == "student")["configuration"].to_list() == [1, 2]
    assert frame.filter(pl.col("role") == "teacher")["configuration"].to_list() == [0, 0]


def test_commands_for_longer_training_keep_what_a_trial_learned_from(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    _, runs = made
    asked = {}
    for trial in (0, 2):
        words = shlex.split(run_longer(results.load(runs, "mine"), trial))
        pairs = [word.partition("=")[::2] for flag, word in itertools.pairwise(words) if flag == "--set"]
        settings = {name: YAML(typ="safe").load(value) for name, value in pairs}
        asked[trial] = study_file.load(Path(words[2]), settings)
    assert (asked[0].train.distill_teacher, asked[0].train.decay, asked[0].embedding.method) == (
        [],
        "none",
        "full",
    )
    assert (asked[2].train.distill_teacher, asked[2].train.decay) == (["full"], "linear")
    assert (asked[0].search.epochs, asked[2].search.epochs) == (2, 4)


@pytest.mark.parametrize("sampler", ["tpe", "grid", "nsgaii"])
def test_a_search_with_teachers_goes_on_as_it_would_have(
    made: tuple[Path, Path], tmp_path: Path, sampler: str
) -> None:
    """Its first trials are students; teachers come on top of `trials`; replicates are of students."""
    path, curves = tmp_path / "study.yaml", Generated(iterations_per_epoch=20)
    path.write_text(
        f"name: a\ndata: {made[0]}\nsampler: {sampler}\ntrials: 5\nreplicates: {{seeds: 2, of: all}}\n"
        "embedding: {method: robe}\n"
        "search: {memory_budget: {choices: [5kB, 10kB]}, epochs: {low: 1, high: 3}, learning_rate: 0.02}\n"
        "train: {distill: {teacher: full, teachers: 3}}\nfirst_trials: [{memory_budget: 10kB, epochs: 3}]\n"
    )
    spec = study_file.resolve(study_file.load(path), Manifest.load(made[0]), "study")
    searches = []
    for name, kills in (("calm", []), ("killed", [1, 3, 2])):
        (tmp_path / name).mkdir()
        for trials in [*kills, None]:
            engine = simulated_engine(spec, curves, tmp_path / name)
            simulate(engine, curves, trials=trials)
        assert engine.remaining == 0
        records = engine.search.records.values()
        searches.append([(r.params, r.teacher, r.configuration, r.replicate) for r in records])
    assert searches[0] == searches[1]
    assert [teacher for _, teacher, *_ in searches[0]] == [0, 1, 2] + [None] * 10
    assert searches[0][3] == ({"memory_budget": 10_000, "epochs": 3}, None, 1, 0)
