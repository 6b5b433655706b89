"""Studies that go on while what their students learn from was removed, replaced, or exchanged in the study file."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from sizewise import cli
from sizewise import config as study_file
from sizewise.engine import run
from sizewise.engine.preparing import creating, teachers
from sizewise.export.deployed import PROGRAM
from sizewise.store.study_folder import StudyFolder
from sizewise.training.teachers.teacher_sources import Source, incomplete
from sizewise_prep.shards.manifest import Manifest

ROWS = 3_200
STUDY = """\
name: mine
data: {data}
train: {{distill: {{teacher: {teacher}}}}}
"""


class ReachedError(Exception):
    """Trials would have been started now."""


@pytest.fixture
def begun(shards: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Data, and a folder of studies with one that has begun, and learns from a file of scores."""
    data = Path(shutil.copytree(shards, tmp_path / "shards"))
    for name in ("one", "other"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(len(name)).normal(size=ROWS))
    path, runs = tmp_path / "study.yaml", tmp_path / "runs"
    path.write_text(STUDY.format(data=data, teacher=tmp_path / "one.npy"))
    manifest = Manifest.load(data)
    spec = study_file.resolve(study_file.load(path), manifest, str(path))
    (runs / "mine").mkdir(parents=True)
    creating.create(spec, runs / "mine", manifest, [], creating.find_teacher(spec, runs, manifest, str(path)))
    return data, runs


def resumed(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `sizewise resume` says before any trial is started; nothing where one would be."""

    def reached(*_: object) -> None:
        raise ReachedError

    monkeypatch.setattr(run, "_run_trials", reached)
    monkeypatch.setattr("sys.argv", ["sizewise", "resume", "mine", "--runs", str(runs)])
    with pytest.raises((ReachedError, SystemExit)) as ended:
        cli.main()
    if isinstance(ended.value, ReachedError):
        return ""
    assert isinstance(ended.value, SystemExit)
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_teacher_that_is_gone_or_another_is_named_before_ray_starts(
    begun: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, runs = begun
    scores = runs.parent / "one.npy"
    sources = creating.known_teacher(runs / "mine")
    assert resumed(runs, monkeypatch, capsys) == ""
    teachers.scores_of(sources, str(data)).complete([0])
    kept = scores.read_bytes()
    np.save(scores, np.zeros(ROWS))
    replaced = resumed(runs, monkeypatch, capsys)
    assert (
        "one.npy was replaced since the study began, and has yet to score training rows: bring back"
        in replaced
    )
    scores.unlink()
    gone = resumed(runs, monkeypatch, capsys)
    assert f"{runs / 'mine' / 'study.yaml'}: train.distill.teacher: " in gone
    assert "one.npy is gone, and has yet to score training rows: bring back" in gone
    scores.write_bytes(kept)
    teachers.scores_of(sources, str(data)).complete()
    scores.unlink()
    assert resumed(runs, monkeypatch, capsys) == ""  # nothing is left to be scored
    assert incomplete(sources, str(data)) == ""
    shutil.rmtree(data / "teachers")
    assert "one.npy is gone" in incomplete(sources, str(data))


def test_a_study_file_that_was_edited_before_its_first_student_has_the_teacher_that_it_names(
    begun: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = begun
    path = StudyFolder(runs / "mine").study_yaml
    assert isinstance(path, Path)
    lines = path.read_text().replace("one.npy", "other.npy").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert resumed(runs, monkeypatch, capsys) == ""
    assert [Path(source.path).name for source in creating.known_teacher(runs / "mine")] == ["other.npy"]
    path.write_text("".join(line for line in lines[:-1]).replace("other.npy", "none.npy"))
    assert "there is no such file of scores" in resumed(runs, monkeypatch, capsys)


def test_an_exported_model_that_was_exchanged_or_damaged_is_named_before_ray_starts(
    shards: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(shards, tmp_path / "shards"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / PROGRAM).write_bytes(b"a program")
    digest = hashlib.sha256(b"a program").hexdigest()
    sources = [Source(kind="export", name="mine/0000 (exported)", path=str(folder), digest=digest)]
    assert incomplete(sources, str(data)) == ""
    (folder / PROGRAM).write_bytes(b"another program")
    said = incomplete(sources, str(data))
    assert "mine/0000 (exported) was replaced since the study began, and has yet to score" in said
    assert f"bring back {folder}" in said
    (folder / PROGRAM).unlink()
    assert "mine/0000 (exported) is gone, and has yet" in incomplete(sources, str(data))
    shutil.rmtree(folder)
    assert "mine/0000 (exported) is gone, and has yet" in incomplete(sources, str(data))
