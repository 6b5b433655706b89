"""Tables of four and two bits that are trained in float32 first: when they change over, and that it is exact."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise import config as study_file
from sizewise.config.trial import TrialConfig
from sizewise.embedding import build
from sizewise.embedding.storage.rounding import round_tables
from sizewise.embedding.storage.table import Table, shipped
from sizewise.search.space import configure
from sizewise.training import loop
from sizewise.training.building import build_model
from sizewise.training.checkpoints import checkpoint
from sizewise.training.steps.step import Step
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest

TIMED = {"train_seconds", "samples_per_second", "peak_memory_bytes"}
Make = Callable[..., TrialConfig]


class KilledError(Exception):
    """Stands for the end of the process."""


def untimed(outcome: loop.Outcome) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMED} for row in outcome.evaluations]


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load_newest(folder)
    assert state is not None
    return dict(state["model"])


@pytest.mark.parametrize(
    "optimizer", ["adagrad", "adam"]
)  # one steps in the backward pass, the other does not
def test_killed_before_at_and_after_the_change_a_trial_ends_as_it_would_have(
    trial_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    config = trial_config(
        options={"storage": "int4", "group": "row"},
        float32_share=0.5,
        epochs=2,
        checkpoint_seconds=1e-9,
        optimizer=optimizer,
        decay="linear",
    )
    steps, taken, kills = Step.__call__, [0], list[int]()
    waiting: list[bool] = []

    def step(self: Step, *batch: Any) -> None:
        taken[0] += 1
        if taken[0] in kills:
            raise KilledError
        (table,) = (part for part in self.model.modules() if isinstance(part, Table))
        waiting.append(table.in_float32)
        steps(self, *batch)

    monkeypatch.setattr(Step, "__call__", step)
    calm = loop.train(config, tmp_path / "calm", lambda row: None)
    assert waiting == [True] * 25 + [False] * 25
    taken[0], kills = 0, [8, 27, 35]  # at iterations 7, 25 and 32
    for _ in kills:
        with pytest.raises(KilledError):
            loop.train(config, tmp_path / "killed", lambda row: None)
    resumed = loop.train(config, tmp_path / "killed", lambda row: None)
    assert taken[0] == 50 + len(kills)  # no step twice
    assert untimed(resumed) == untimed(calm)
    assert resumed.test == calm.test
    models = model_of(tmp_path / "killed"), model_of(tmp_path / "calm")
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_killed_while_its_tables_are_rounded_a_trial_ends_as_it_would_have(
    trial_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second storage of an evaluation, at the last one, and while the test split is scored."""
    config = trial_config(
        also_stored_as=["int4", "int2"], epochs=1, evaluate_every=0.5, checkpoint_seconds=1e-9
    )
    calm = loop.train(config, tmp_path / "calm", lambda row: None)
    steps, round_, test, taken, calls = Step.__call__, loop.stored_as, loop._Trial._test, [0], [0]

    def step(self: Step, *batch: Any) -> None:
        taken[0] += 1
        steps(self, *batch)

    def rounded(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] in (2, 5):
            raise KilledError
        return round_(*arguments)

    def scored(self: Any) -> Any:
        calls[0] += 1
        if calls[0] == 8:
            raise KilledError
        return test(self)

    monkeypatch.setattr(Step, "__call__", step)
    monkeypatch.setattr(loop, "stored_as", rounded)
    monkeypatch.setattr(loop._Trial, "_test", scored)
    for _ in range(3):
        with pytest.raises(KilledError):
            loop.train(config, tmp_path / "killed", lambda row: None)
    resumed = loop.train(config, tmp_path / "killed", lambda row: None)
    assert taken[0] == 25 + 2  # the two that were being evaluated
    assert untimed(resumed) == untimed(calm)
    assert [row.in_storages for row in resumed.evaluations] == [row.in_storages for row in calm.evaluations]
    assert resumed.test == calm.test


def test_what_is_scored_is_what_is_shipped(
    trial_config: Make, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded for evaluations alone: the weights that are kept give a fresh model's scores of them, in its bytes."""
    config = trial_config(options={"storage": "int2"}, float32_share=1.0, epochs=1)
    outcome = loop.train(config, tmp_path / "trial", lambda row: None)
    row = outcome.evaluations[-1]
    path = next((tmp_path / "trial").glob("best-*.safetensors"))
    weights = checkpoint.load_weights(path)
    assert not [name for name in weights if name.endswith(("master", "log_steps"))]
    model = build_model(config, Manifest.load(shards))
    model.load_state_dict(weights)
    assert model.embedding_bytes == row["embedding_bytes"] <= config.search.memory_budget
    again = shipped(model.eval().state_dict())
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    newest = model_of(tmp_path / "trial")
    (master,) = (name for name in newest if name.endswith("master"))
    assert len(newest[master].unique()) > 4  # trained in float32


@pytest.mark.parametrize("method", ["hash", "robe", "qr", "tt", "cce"])
def test_until_the_change_a_table_is_one_in_float32(method: str) -> None:
    """The same vectors and gradients while training, and rounded as `round_tables` does for evaluations."""
    made = [build(method, [50, 70], 8, 4_000, seed=1, storage=s) for s in ("float32", "int4")]
    of = [[part for part in one.modules() if isinstance(part, Table)] for one in made]
    made[1].train_in_float32()
    plain = made[0]
    if [t.shape for t in of[0]] != [t.shape for t in of[1]]:  # as many numbers take an eighth of the bytes
        plain = build(method, [50, 70], 8, 4_000, seed=1, storage="int4")
        for parent in list(plain.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, Table):
                    setattr(parent, name, Table(child.shape, child.seed, center=child.center))
    ids = torch.arange(100).view(50, 2)
    tables = [[part for part in one.modules() if isinstance(part, Table)] for one in (plain, made[1])]
    with torch.no_grad():
        for one, other in zip(*tables, strict=True):
            one.weight.copy_(other.weight)
    found = [one(ids) for one in (plain, made[1])]
    assert torch.equal(*found)
    for vectors in found:
        vectors.square().sum().backward()
    for one, other in zip(*tables, strict=True):
        assert one.weight.grad is not None
        assert torch.equal(one.weight.grad, other.weight.grad)
        assert not other.log_steps.grad.any()
    round_tables(plain, "int4")
    with torch.no_grad():
        assert torch.equal(plain.eval()(ids), made[1].eval()(ids))
        made[1].train().learn_steps()
    assert torch.equal(plain.eval()(ids), made[1](ids))


def test_it_is_a_setting_of_trials_in_few_bits_alone(
    trial_config: Make, shards: Path, tmp_path: Path
) -> None:
    assert trial_config(float32_share=0.0).digest() == trial_config().digest()
    packed = {"storage": "int4"}
    curves = [
        {trial_config(options=packed, epochs=epochs, float32_share=share).curve() for epochs in (1, 3)}
        for share in (0.0, 0.5, 1.0)
    ]
    assert [len(found) for found in curves] == [1, 2, 1]
    path = tmp_path / "study.yaml"
    path.write_text(
        f"name: a\ndata: {shards}\nsearch: {{memory_budget: 20kB, epochs: 1, learning_rate: 0.02}}\nsampler: random\n"
        "embedding: {method: robe, storage: {choices: [float32, int4]}, float32_share: {choices: [0.5, 1.0]}}\n"
    )
    spec = study_file.resolve(study_file.load(path), Manifest.load(shards), "study.yaml")
    assert study_file.from_text(study_file.to_text(spec), path) == spec
    import optuna

    for storage, share in (("float32", 0.0), ("int4", 0.5)):
        config = configure(spec, optuna.trial.FixedTrial({"storage": storage, "float32_share": 0.5}), 10**6)
        assert (config.embedding.options["storage"], config.embedding.float32_share) == (storage, share)
    for settings, message in (
        ({"embedding.storage": "int8"}, "embedding.float32_share: says how long .* storage is int8"),
        ({"embedding.float32_share": 1.5}, r"embedding.float32_share: input should be less .* 1, not 1.5"),
    ):
        with pytest.raises(InputError) as error:
            study_file.resolve(study_file.load(path, settings), Manifest.load(shards), str(path))
        assert re.search(message, str(error.value)), error.value
