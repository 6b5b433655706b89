"""Studies whose models learn from a teacher: found and checked first, or trained first; exact however interrupted."""

import itertools
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from ruamel.yaml import YAML

import real_study
from sizewise import config as study_file
from sizewise import results
from sizewise.config import StudySpec
from sizewise.embedding import full_bytes
from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.preparing import creating, teachers
from sizewise.engine.simulated import Generated, simulate, simulated_engine
from sizewise.export import export
from sizewise.metrics.evaluation import Evaluation
from sizewise.results.commands import run_longer
from sizewise.results.decision.answering import answer
from sizewise.search.edited import disagreement
from sizewise.search.suggest import Search
from sizewise.search.teachers import teacher_config
from sizewise.store import facts
from sizewise.store.trials.ledger import Ledger
from sizewise.training import loop
from sizewise.training.steps.step import Step
from sizewise.training.teachers import teacher
from sizewise.training.teachers.teacher_sources import Source
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest

STUDY = """\
name: {name}
data: {data}
model: {{dim: 8, bottom_mlp: [16], top_mlp: [16]}}
embedding: {{method: robe, block_len: 8}}
search: {{memory_budget: {{low: 5kB, high: 40kB}}, epochs: 2, learning_rate: 0.02}}
train: {{batch_size: 128, evaluate_every: 0.5{train}}}
trials: 2
"""
FULL = ", distill: {teacher: full, teachers: 2}"


class KilledError(Exception):
    """Stands for the end of the process."""


def load(folder: Path, data: Path, train: str = FULL, name: str = "mine") -> StudySpec:
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(name=name, data=data, train=train))
    spec = study_file.load(path)
    return study_file.resolve(spec, Manifest.load(data), str(path))


def engine_of(spec: StudySpec, folder: Path, sources: list[Source] | None = None) -> Engine:
    manifest = Manifest.load(spec.data)
    if not folder.exists():
        folder.mkdir(parents=True)
        creating.create(spec, folder, manifest, [], sources or [])
    search = Search(spec, Ledger(folder), full_bytes(manifest.cardinalities, spec.model.largest_dim))
    return Engine(spec, folder, search, lambda *_: None, teacher=sources or [])


def drive(engine: Engine) -> None:
    """All trials one after another in this process."""
    while (record := engine.next_trial()) is not None:
        payload = engine.payload(record)
        outcome = real_study.one_thread(
            lambda r=record, p=payload: loop.train(
                engine.search.config(r), Path(p["folder"]), partial(engine.evaluated, r.trial_id), **p["how"]
            )
        )
        engine.finished(record.trial_id, outcome.evaluations, outcome.test, outcome.pruned)


@pytest.fixture(scope="module")
def made(contiguous_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data, and the runs folder of a study of two teachers and two students that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("distillation")
    data = Path(shutil.copytree(contiguous_shards, folder / "shards"))
    drive(engine_of(load(folder, data), folder / "runs" / "mine"))
    return data, folder / "runs"


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
    engine.failed(first.trial_id, "diverged")
    assert engine.next_trial() is None
    engine.failed(second.trial_id, "diverged too")
    assert engine.next_trial() is None
    assert "no teacher of this study's could be trained (diverged; diverged too)" in str(engine.paused)


def test_a_teacher_whose_weights_are_gone_pauses_its_study(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, runs = made
    folder = Path(shutil.copytree(runs / "mine", tmp_path / "mine"))
    record = Ledger(folder).records()[3]
    Ledger(folder).write(record.model_copy(update={"state": "running"}))
    for path in folder.glob("checkpoints/0001-*/*.ckpt"):
        path.unlink()
    engine = engine_of(load(tmp_path, data), folder)
    assert engine.next_trial() is None
    assert "mine/0001: its checkpoint is gone" in str(engine.paused)


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


@pytest.mark.slow
def test_a_finished_trial_an_export_and_a_file_are_teachers(made: tuple[Path, Path], tmp_path: Path) -> None:
    """An exported model scores the rows of shards as the trial does that it was made of."""
    data, runs = made
    manifest = Manifest.load(data)
    export(runs, "mine", 0, tmp_path / "model")
    export(runs, "mine", 2, tmp_path / "student")  # as any other model
    values = np.random.default_rng(1).normal(size=3_200)
    np.save(tmp_path / "scores.npy", values)
    names = ["mine/0000", str(tmp_path / "model"), str(tmp_path / "scores.npy")]
    found = teachers.find(names, runs, str(data), manifest, "other")
    assert [source.kind for source in found] == ["trial", "export", "scores"]
    assert [source.iterations for source in found][:2] == [25, 25]
    read = []
    for source in found:
        scores = teachers.scores_of([source], str(data))
        scores.complete()
        read.append(np.concatenate([scores.shard(index) for index in range(5)]))
    np.testing.assert_allclose(read[0], read[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(read[2], values, rtol=1e-6)
    mean = teachers.scores_of(found, str(data))
    mean.complete()
    np.testing.assert_allclose(mean.shard(0), np.mean(read, axis=0)[:700], rtol=1e-4, atol=1e-5)

    spec = load(tmp_path, data, f", distill: {{teacher: {names}}}", "other")
    engine = engine_of(spec, runs / "other", found)
    drive(engine)
    study = results.load(runs, "other")
    assert study.trials["role"].to_list() == ["student"] * 2
    sentence = answer(study).sentence
    assert "It learned from 3 teachers, whose training is not counted." in sentence
    assert creating.known_teacher(runs / "other") == found


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 450  # with temporary folders' long names
    return text


def test_what_cannot_be_a_teacher_is_refused_in_a_sentence(
    made: tuple[Path, Path], shards: Path, tmp_path: Path
) -> None:
    data, runs = made
    manifest = Manifest.load(data)

    def find(name: str, where: Path = data, own: str = "other") -> str:
        return refusal(lambda: teachers.find([name], runs, str(where), Manifest.load(where), own))

    assert "there is no study gone" in find("gone/0001")
    assert "study mine has no trial 9" in find("mine/9")
    assert "there is no 'fulll': use STUDY/NUMBER" in find("fulll")
    assert "contiguous tokens instead of raw ones" in find("mine/0000", shards)
    raw = shards.parent / "raw" / "day_0.tsv"
    prepare([raw], tmp_path / "other", shard_rows=900, tokens="contiguous", split="0.7,0.2,0.1")
    assert "another data set" in find("mine/0000", tmp_path / "other")
    assert "itself a student of this study" in find("mine/0002", own="mine")
    np.save(tmp_path / "short.npy", np.zeros(5) - 1)
    assert "has 5 scores, and the training split has 3,200 rows" in find(str(tmp_path / "short.npy"))
    np.save(tmp_path / "nan.npy", np.where(np.arange(3_200) == 7, np.nan, -1.0))
    assert "score 8 is nan" in find(str(tmp_path / "nan.npy"))
    export(runs, "mine", 0, tmp_path / "model")
    assert "contiguous tokens" in find(str(tmp_path / "model"), shards)
    assert "another data set" in find(str(tmp_path / "model"), tmp_path / "other")
    copied = Path(shutil.copytree(runs, tmp_path / "runs"))
    for path in copied.glob("mine/checkpoints/0000-*/*"):
        path.unlink()
    name = "mine/0000"
    gone = refusal(lambda: teachers.find([name], copied, str(data), manifest, "other"))
    assert "has no intact weights any more" in gone
    record = Ledger(copied / "mine").records()[0]
    Ledger(copied / "mine").write(record.model_copy(update={"state": "running"}))
    running = refusal(lambda: teachers.find([name], copied, str(data), manifest, "other"))
    assert "is still training" in running


def test_a_study_file_that_asks_for_an_impossible_teacher_is_refused(
    made: tuple[Path, Path], shards: Path, tmp_path: Path
) -> None:
    data, _ = made
    assert "needs contiguous ids" in refusal(lambda: load(tmp_path, shards))
    spec = load(tmp_path, shards, ", distill: {teacher: hot, memory_budget: 4x}")
    assert teacher_config(spec, 7, 400_000).flat()["memory_budget"] == 100_000
    asked = {
        ", distill: {teacher: [full, a/1]}": "full is trained by the study itself",
        ", distill: {teacher: a/1, teachers: 2}": "distill.teachers",
        ", distill: {teachers: 2}": "distill.teacher: give STUDY/NUMBER",
        ", distill: {teacher: {colum: ctr}}": "{column: NAME} of the data",
        ", distill: {teacher: full, weight: 0}": "distill.weight",
        ", distill: {teacher: full, weigth: 0.5}": "did you mean weight",
        ", distill: full": "distill: holds fields",
        ", distill: {teacher: robe, memory_budget: 8}": "distill.memory_budget: 8 B is too small for robe",
        ", distill: {teacher: full}}\npruning: {risk: 0.1": "pruning: compares AUC at equal iterations",
    }
    for train, message in asked.items():
        text = refusal(lambda train=train: load(tmp_path, data, train))
        assert message in text
        assert "mine.yaml" in text


def test_with_a_teacher_the_default_is_longer_and_falls(made: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    for train, epochs, decay in (
        ("", 4, "none"),
        ("train: {distill: {teacher: full}}\n", 16, "linear"),
        ("train: {distill: {teacher: full}, schedule: {decay: none}}\nsearch: {epochs: 2}\n", 2, "none"),
    ):
        path.write_text(f"name: a\ndata: {made[0]}\n{train}")
        spec = study_file.load(path)
        again = study_file.from_text(study_file.to_text(spec), path)
        assert again == spec
        assert getattr(spec.search.epochs, "high", spec.search.epochs) == epochs
        assert spec.train.decay == decay


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


def test_a_trial_that_scores_for_its_teacher_is_not_silent(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Whoever watches it sees shards become complete, until there is a checkpoint."""
    data = Path(shutil.copytree(made[0], tmp_path / "shards"))
    shutil.rmtree(data / "teachers")
    np.save(tmp_path / "scores.npy", np.linspace(-1, 1, 3_200))
    name = str(tmp_path / "scores.npy")
    sources = teachers.find([name], tmp_path, str(data), Manifest.load(data), "mine")
    engine = engine_of(load(tmp_path, data, f", distill: {{teacher: {name}}}"), tmp_path / "mine", sources)
    record = engine.next_trial()
    assert record is not None
    assert engine.progress(record.trial_id) == 0
    teachers.scores_of(sources, str(data)).complete([3])
    assert engine.progress(record.trial_id) == 1
    (tmp_path / "mine" / "checkpoints" / record.key).mkdir(parents=True)
    (tmp_path / "mine" / "checkpoints" / record.key / "000000000010.ckpt").touch()
    assert str(engine.progress(record.trial_id)).endswith("10.ckpt")


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


@pytest.mark.slow
def test_a_command_scores_for_a_named_teacher_on_the_cluster(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A task a shard, before the first student; a second study with this teacher computes nothing."""
    data = Path(shutil.copytree(made[0], tmp_path / "shards"))
    shutil.rmtree(data / "teachers")
    runs = Path(shutil.copytree(made[1], tmp_path / "runs"))
    path = tmp_path / "second.yaml"
    distill = ", distill: {teacher: mine/0000, weight: {low: 0.5, high: 1.0}}"
    path.write_text(STUDY.format(name="second", data=data, train=distill))
    with real_study.Command("run", path, "--runs", runs, "--set=trials=1") as command:
        code, out, err = command.end()
    assert code == 0, err
    assert "teacher mine/0000: scores 3,200 training rows" in err
    assert len(list(data.glob("teachers/*/*.f32"))) == 5
    assert "learned from a teacher (mine/0000), which took 25 iterations" in " ".join(out.split())
    record = Ledger(runs / "second").records()[0]
    assert 0.5 <= record.config["distill_weight"] <= 1.0
    source = creating.known_teacher(runs / "second")
    assert [one.name for one in source] == ["mine/0000"]
    assert teachers.scores_of(source, str(data)).missing() == []
