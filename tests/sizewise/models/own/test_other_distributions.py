"""Embedding methods and models of other distributions: found by name, trained on workers; and faulty ones."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.sizewise.models.own.other_distribution import install

from sizewise import results
from sizewise.config.study_file import StudySpec
from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS, Embedding, build
from sizewise.models import MODELS
from sizewise.models import build as build_model
from sizewise_core.errors import InputError
from sizewise_core.registry import Registry

BAD_METHODS = {
    "missing": "someones:NotThere",
    "broken": "someones_broken:Anything",
    "model": "someones:Shallow",
    "half": "someones:HalfDone",
    "robe": "someones:Modulo",
    "Upper": "someones:Modulo",
    "twice": "someones:Modulo",
}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[Embedding]:
    """Our methods and those of an installed distribution, most of them faulty."""
    install(tmp_path, {**BAD_METHODS, "modulo": "someones:Modulo"}, {})
    install(tmp_path, {"twice": "someones:HalfDone"}, {}, name="others")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "someones", raising=False)
    own = {name: METHODS[name] for name in METHODS.own}
    return Registry("embedding method", "sizewise.methods", Embedding, own)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modullo", "unknown embedding method 'modullo': use one of full, .*did you mean modulo"),
        ("xyzzy", "or install the distribution that provides 'xyzzy'"),
        ("missing", "missing of someones 1.0 cannot be imported .AttributeError: .*fix or uninstall"),
        (
            "broken",
            "cannot be imported .ModuleNotFoundError: No module named 'a_library_that_is_not_installed'",
        ),
        ("model", "someones:Shallow is no subclass of sizewise.embedding.base.Embedding"),
        ("half", "someones:HalfDone does not define lookup"),
        ("Upper", "must be lower-case letters"),
        ("twice", "is provided by others and someones: uninstall all but one"),
    ],
)
def test_what_is_wrong_with_one_is_said_and_the_others_are_there(
    registry: Registry[Embedding], name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        registry[name]
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    assert registry["modulo"].__name__ == "Modulo"


def test_ours_are_first_and_nothing_is_imported_before_it_is_asked_for(registry: Registry[Embedding]) -> None:
    assert registry["robe"] is METHODS["robe"]  # and not the one that somebody else calls so
    assert "broken" in registry
    assert "nonsense" not in registry
    assert tuple(registry)[: len(METHODS.own)] == METHODS.own
    assert len(registry) == len(list(registry))
    assert "someones" not in sys.modules
    assert registry.get("nonsense") is None  # as of any mapping


def test_a_damaged_list_of_entry_points_matters_only_to_names_that_are_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install(tmp_path)
    (folder / "someones-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[sizewise.methods]\n\xff\xfe = \xff"
    )
    monkeypatch.syspath_prepend(str(folder))
    fresh = Registry("method", "sizewise.methods", Embedding, {"robe": METHODS["robe"]})
    assert fresh["robe"] is METHODS["robe"]
    with pytest.raises(InputError, match="cannot be listed"):
        fresh["modulo"]


def spec(**sections: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "s", "data": "d", **sections})


def test_a_study_of_ours_says_nothing_of_kinds_of_models() -> None:
    assert spec(model={"kind": "dlrm", "dim": 4}) == spec(model={"dim": 4})
    assert "kind" not in spec().model_dump()["model"]
    with pytest.raises(ValidationError, match=r"unknown model 'dlm': use one of dlrm.*did you mean dlrm"):
        spec(model={"kind": "dlm"})


def test_options_of_a_model_are_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path)))
    for registry in (METHODS, MODELS):
        monkeypatch.setattr(registry, "_classes", {name: registry[name] for name in registry.own})
        monkeypatch.setattr(registry, "_entry_points", None)
    study = spec(model={"kind": "shallow", "hidden": {"low": 2, "high": 9}}, embedding={"method": "modulo"})
    assert StudySpec.model_validate(study.model_dump()) == study  # as study.yaml is read again
    assert "hidden" in dict(study.searched())
    for model, message in (
        ({"hiden": 3}, "hiden: no such option of model shallow .did you mean hidden"),
        ({"hidden": 0}, "hidden: Input should be greater"),
        ({"hidden": {"choices": [4, "x"]}}, "hidden: Input should be a valid integer"),
        ({"top_mlp": [3]}, "top_mlp: no option of model shallow"),
    ):
        with pytest.raises(ValidationError, match=message):
            spec(model={"kind": "shallow", **model})
    with pytest.raises(ValidationError, match=r"train.precision: model shallow does not compute in bfloat16"):
        spec(model={"kind": "shallow"}, train={"precision": "bfloat16"})
    with pytest.raises(InputError, match=r"model shallow: model.hidden: .*greater than"):
        build_model("shallow", build("modulo", [9], 4, 64, 1), 2, {"hidden": 0})


def test_settings_of_a_trial_stand_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial_config: Any
) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path)))
    monkeypatch.setattr(MODELS, "_classes", {name: MODELS[name] for name in MODELS.own})
    monkeypatch.setattr(MODELS, "_entry_points", None)
    ours = trial_config()
    assert not {"model", "model_options"} & (set(ours.flat()) | set(ours.grouped()))
    other = trial_config(model="shallow", model_options={"hidden": 3}, bottom_mlp=[], top_mlp=[])
    assert other.flat()["hidden"] == 3
    assert TrialConfig.from_flat(other.flat()) == other == TrialConfig.model_validate(other.model_dump())
    wider = trial_config(model="shallow", model_options={"hidden": 4}, bottom_mlp=[], top_mlp=[])
    assert len({config.digest() for config in (ours, other, wider)}) == 3
    assert len({config.curve() for config in (ours, other, wider)}) == 3


@pytest.mark.slow
def test_a_study_with_both_runs_on_workers_and_is_exported_with_a_reason_only(
    tmp_path: Path, shards: Path
) -> None:
    bad = {"broken": "someones_broken:Anything"}
    folder = install(
        tmp_path / "site", {"modulo": "someones:Modulo", **bad}, {"shallow": "someones:Shallow", **bad}
    )
    (tmp_path / "study.yaml").write_text(
        f"name: theirs\ndata: {shards}\ntrials: 2\nseed: 3\n"
        "model: {kind: shallow, dim: 4, hidden: {choices: [4, 8]}}\n"
        "embedding: {method: modulo, shift: {low: 0, high: 9}}\n"
        "search: {memory_budget: {low: 1kB, high: 20kB}, epochs: 1}\n"
        "train: {evaluate_every: 1.0}\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sizewise.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=800,
        )

    refused = run("run", "study.yaml", "--set", "model.kind=broken")
    assert refused.returncode == 2, refused.stderr
    assert "model broken of someones 1.0 cannot be imported" in refused.stderr.replace("\n", " ")
    assert "Traceback" not in refused.stderr

    done = run("run", "study.yaml", "--json")
    assert done.returncode == 0, done.stderr
    rows = results.load(tmp_path / "runs", "theirs").trials.to_dicts()
    assert [(row["state"], row["method"], row["model"]) for row in rows] == [
        ("finished", "modulo", "shallow")
    ] * 2
    assert all(row["hidden"] in (4, 8) and 0 <= row["shift"] <= 9 for row in rows)

    exported = run("export", "theirs", "--trial", "0", "--out", "out")
    assert exported.returncode == 2, exported.stderr
    said = " ".join(exported.stderr.split())
    assert "model shallow with embedding.method modulo cannot be exported" in said
    assert "torch.ops.aten.sinh.default" in said
    assert not (tmp_path / "out").exists()
