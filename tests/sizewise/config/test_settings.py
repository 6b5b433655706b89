"""A setting of trials is one line in its section: everything that asks for it, keeps it or shows it finds it there.

The line is added to a copy of the package, and a process of its own uses that copy.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.trial import TrialConfig
from sizewise.store.trials.ledger import Ledger

PACKAGE = Path(__file__).parents[3] / "platform" / "sizewise"
DIGESTS = ["825e8749", "931d6511", "f8268ed8"]
FIRST_FIELD = "    batch_size: Searchable["
LINE = "    warmup: Searchable[Annotated[float, Field(ge=0)]] = 0.0\n"
STUDY = """\
name: warm
data: {data}
search: {{memory_budget: {{low: 2kB, high: 20kB}}, epochs: 1}}
train: {{warmup: {{low: 1, high: 2}}}}
sampler: random
trials: 2
"""
SCRIPT = """\
import json, sys
from pathlib import Path

from sizewise import config, results
from sizewise.config.trial import TrialConfig
from sizewise.engine.simulated import Generated, simulate, simulated_engine
from sizewise.search.edited import disagreement
from sizewise.store.trials.ledger import Ledger
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest

study, folder, before = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])


def spec(**overrides):
    asked = config.load(study, {name.replace("__", "."): value for name, value in overrides.items()})
    return config.resolve(asked, Manifest.load(asked.data), "study")


def refusal(value):
    try:
        spec(train__warmup=value)
    except InputError as error:
        return str(error)


searched, curves = spec(), Generated(iterations_per_epoch=20)
engine = simulated_engine(searched, curves, folder / "warm")
simulate(engine, curves)
records = list(Ledger(folder / "warm").records().values())
configs = [TrialConfig.from_flat(record.config) for record in records]
fixed = spec(train__warmup=1.5)
old = list(Ledger(before).records().values())
print(json.dumps({
    "searched": [name for name, _ in searched.searched()],
    "params": [record.params["warmup"] for record in records],
    "config": [config.train.warmup for config in configs],
    "same": [engine.search.config(record) == config for record, config in zip(records, configs)],
    "key": [record.key.endswith(config.digest()) for record, config in zip(records, configs)],
    "other": [TrialConfig.from_flat(record.config | {"warmup": 0.0}).digest() for record in records],
    "digests": [config.digest() for config in configs],
    "table": results.load(folder, "warm").trials["warmup"].to_list(),
    "refusals": [refusal({"choices": [1, -1]}), refusal("long"), refusal({"low": 2, "high": 1})],
    "set": TrialConfig.from_flat(simulated_engine(fixed, curves).search.ask().config).train.warmup,
    "yaml": config.from_text(config.to_text(fixed), study).train.warmup,
    "old": [[record.key, TrialConfig.from_flat(record.config).digest(), TrialConfig.from_flat(record.config).flat()]
            for record in old],
    "resumed": [disagreement(spec(train__warmup=0.0), old, 10**6), disagreement(fixed, old, 10**6)],
}))
"""


def run(script: str, arguments: list[str], **environment: str) -> Any:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def before(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the package as it is, without the setting."""
    folder = tmp_path_factory.mktemp("before")
    (folder / "study.yaml").write_text(
        STUDY.format(data=shards).replace("train: {warmup: {low: 1, high: 2}}\n", "")
    )
    script = (
        "import sys\nfrom pathlib import Path\nfrom sizewise import config\n"
        "from sizewise.engine.simulated import Generated, simulate, simulated_engine\n"
        "from sizewise_prep.shards.manifest import Manifest\n"
        "asked = config.load(Path(sys.argv[1]))\n"
        "spec = config.resolve(asked, Manifest.load(asked.data), 'study')\n"
        "curves = Generated(iterations_per_epoch=20)\n"
        "simulate(simulated_engine(spec, curves, Path(sys.argv[2])), curves)\nprint(1)\n"
    )
    run(script, [str(folder / "study.yaml"), str(folder / "study")])
    return folder / "study"


@pytest.fixture(scope="module")
def found(shards: Path, before: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a package says that has one more line."""
    folder = tmp_path_factory.mktemp("settings")
    shutil.copytree(PACKAGE, folder / "site" / "sizewise", ignore=shutil.ignore_patterns("__pycache__"))
    section = folder / "site" / "sizewise" / "config" / "sections" / "train.py"
    text = section.read_text()
    assert text.count(FIRST_FIELD) == 1
    section.write_text(text.replace(FIRST_FIELD, LINE + FIRST_FIELD))
    (folder / "study.yaml").write_text(STUDY.format(data=shards))
    paths = os.pathsep.join([str(folder / "site"), *sys.path])
    return run(SCRIPT, [str(folder / "study.yaml"), str(folder), str(before)], PYTHONPATH=paths)


def test_searched(found: Any) -> None:
    """In the space, as a parameter of the sampler's: a range of fractions, though its ends are whole numbers."""
    assert "warmup" in found["searched"]
    assert len(found["params"]) == 2
    assert all(1 < value < 2 for value in found["params"])


def test_in_the_ledger_the_digest_and_the_table(found: Any) -> None:
    assert found["config"] == found["params"] == found["table"]
    assert found["same"] == found["key"] == [True, True]
    assert not set(found["digests"]) & set(found["other"])


def test_set_and_written(found: Any) -> None:
    """`--set train.warmup=1.5` reaches the trial, and `study.yaml`."""
    assert found["set"] == found["yaml"] == 1.5


def test_mistakes_are_named(found: Any) -> None:
    choices, word, swapped = found["refusals"]
    assert choices.endswith("train.warmup: input should be greater than or equal to 0, not -1")
    assert "train.warmup: input should be a valid number" in word
    assert "low (2) is above high (1)" in swapped


def test_what_was_trained_before_there_was_such_a_setting_stays_as_it_is(found: Any, before: Path) -> None:
    """Digests and records are those of then, and the study may be resumed with the setting's default only."""
    records = list(Ledger(before).records().values())
    assert found["old"] == [
        [record.key, TrialConfig.from_flat(record.config).digest(), record.config] for record in records
    ]
    assert all(record.key.endswith(TrialConfig.from_flat(record.config).digest()) for record in records)
    assert found["resumed"] == ["", "warmup: was 0.0 for trial 0, and is 1.5 now"]


def test_digests_of_version_0_1() -> None:
    """Eight digits that name folders of checkpoints, of records that version 0.1 wrote and of what came later."""
    record = {
        "data": "data/criteo",
        "dim": 16,
        "bottom_mlp": [128, 64],
        "top_mlp": [256, 128],
        "method": "robe",
        "memory_budget": 20_000,
        "learning_rate": 0.02,
        "epochs": 2,
        "batch_size": 512,
        "optimizer": "adagrad",
        "evaluate_every": 0.25,
        "checkpoint_seconds": 60.0,
        "seed": 1,
        "block_len": 16,
    }
    old = TrialConfig.from_flat(record)
    assert old.digest() == DIGESTS[0]
    assert list(old.flat()) == [*list(record)[:-1], "precision", "block_len"]
    assert list(old.grouped()) == [*list(record)[:5], "options", *list(record)[5:-1], "precision"]
    assert TrialConfig.from_flat({**record, "precision": "bfloat16"}).digest() == DIGESTS[1]
    assert TrialConfig.from_flat({**record, "method": "full"}).digest() == DIGESTS[2]
    assert TrialConfig.model_validate(old.model_dump()) == old
