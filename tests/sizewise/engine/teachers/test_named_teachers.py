"""Teachers that a study file names: trials, exports and files of scores, found and checked first."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.sizewise.engine.teachers.distilling import STUDY, drive, engine_of, load

import real_study
from sizewise import config as study_file
from sizewise import results
from sizewise.engine.preparing import creating, teachers
from sizewise.export import export
from sizewise.results.decision.answering import answer
from sizewise.search.teachers import teacher_config
from sizewise.store.trials.ledger import Ledger
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest


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
    from sizewise.engine.ray_tune.worker import _score_by_exports  # which imports Ray

    _score_by_exports(found, str(data))  # as a worker does where somebody has removed the scores
    mean = teachers.scores_of(found, str(data))
    assert mean.missing() == []
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
    assert "study mine has no such trial: use a finished one (0, 1, 2, 3)" in find("mine/9")
    assert "there is no 'fulll' (did you mean full?): use STUDY/NUMBER" in find("fulll")
    assert "'s3://bucket/scores.npy' is no path on this machine" in find("s3://bucket/scores.npy")
    twice = refusal(lambda: teachers.find(["mine/0", "mine/00"], runs, str(data), manifest, "other"))
    assert "mine/0000 is named twice" in twice
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
    (tmp_path / "model" / "model.json").write_text("{")
    assert re.match(r"distill.teacher: .*model.json: .*export the trial again", find(str(tmp_path / "model")))
    copied = Path(shutil.copytree(runs, tmp_path / "runs"))
    weights = next(copied.glob("mine/checkpoints/0000-*/best-*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-8] + bytes(8))
    damaged = refusal(lambda: teachers.find(["mine/0"], copied, str(data), manifest, "other"))
    assert "mine/0000 has no intact weights any more: use a finished one" in damaged
    for path in copied.glob("mine/checkpoints/0000-*/*"):
        path.unlink()
    name = "mine/0000"
    gone = refusal(lambda: teachers.find([name], copied, str(data), manifest, "other"))
    assert "has no intact weights any more" in gone
    record = Ledger(copied / "mine").records()[0]
    Ledger(copied / "mine").write(record.model_copy(update={"state": "running"}))
    running = refusal(lambda: teachers.find([name], copied, str(data), manifest, "other"))
    assert "is still training, or was interrupted" in running
    Ledger(copied / "mine").write(record.model_copy(update={"state": "failed"}))
    failed = refusal(lambda: teachers.find([name], copied, str(data), manifest, "other"))
    assert "has not finished (its state is failed): use a finished one (1, 2, 3)" in failed


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
        ", distill: {teacher: a/1, epochs: 3}": "distill.epochs: is for teachers that the study trains itself",
        ", distill: {teacher: full, memory_budget: 3x}": "memory_budget: full has the bytes of all rows",
        ", distill: {teacher: full, learning_rate: .inf}": "distill.learning_rate",
        ", distill_weight: 0.5": "distill.weight: is for students, and there is no distill.teacher",
        ", distill: {teacher: robe, memory_budget: 8}": "distill.memory_budget: 8 B is too small for robe",
        ", distill: {teacher: full}}\npruning: {risk: 0.1": "pruning: compares AUC at equal iterations",
    }
    for train, message in asked.items():
        text = refusal(lambda train=train: load(tmp_path, data, train))
        assert message in text
        assert "mine.yaml" in text


@pytest.mark.slow
def test_a_teacher_whose_own_data_lies_elsewhere_by_now_scores_the_same_rows(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    """Also one that takes counts of its data's values, in few bits."""
    first = Path(shutil.copytree(made[0], tmp_path / "first"))
    path = tmp_path / "hot.yaml"
    text = STUDY.format(name="hot", data=first, train="").replace("robe, block_len: 8", "hot, storage: int4")
    path.write_text(text.replace("trials: 2", "trials: 1"))
    runs = tmp_path / "runs"
    drive(engine_of(study_file.resolve(study_file.load(path), Manifest.load(first), str(path)), runs / "hot"))

    def scored(data: Path) -> np.ndarray:
        shutil.rmtree(data / "teachers", ignore_errors=True)
        found = teachers.find(["hot/0"], runs, str(data), Manifest.load(data), "other")
        scores = teachers.scores_of(found, str(data))
        scores.complete()
        return np.array(scores.shard(0))

    before = scored(first)
    np.testing.assert_array_equal(scored(first.rename(tmp_path / "moved")), before)


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
