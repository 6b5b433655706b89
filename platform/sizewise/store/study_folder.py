"""Every path of a study on disk, and how large each of its files can be.

study = StudyFolder(runs / "mine")
study.record(7)                       # .../trials/0007.json
study.checkpoints_of(record.key).weights(200)

study.yaml, study.before    the study file, and another copy of it
study.json                  what readers need to know of it
trials/NNNN.json            the ledger: a record a trial; beside it .before, the record before the newest
evaluations/NNNN.jsonl      a trial's evaluations; .count says how many there are
test/NNNN.json              its scores on the test split
checkpoints/KEY/            its checkpoints and weights (see `TrialFolder`)
logs/                       messages, tracebacks, and Ray's own files
driver.json, driver.lock    who drives the study; drivers/ in an object store
usage.jsonl, holding.json   for how long trials held CPUs and GPUs
warm_start.json             the trials of another study that the sampler learns from
pruning.json                the front that running trials are compared with
baselines/DIGEST.json       how good what runs today is on the validation rows
code.zip                    modules of the user's own models that lay beside the study file
"""

import re
from dataclasses import dataclass
from typing import Literal

from sizewise_core.stores.storage import Place

NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")  # what a study, and so its folder, may be called
MOST_BYTES = 16 << 20
"""Of a record, which has a few thousand."""
MOST_CURVE_BYTES = 128 << 20
"""Of a trial's evaluations."""
MOST_LINE_BYTES = 1 << 20
"""Of one evaluation, which has some hundreds."""
MOST_YAML_BYTES = 1 << 20
"""Of `study.yaml`, which has one or two thousand; reading YAML is slow."""

Part = Literal["trials", "evaluations", "test"]
PARTS: tuple[Part, ...] = ("trials", "evaluations", "test")
ENDINGS: dict[Part, str] = {"trials": ".json", "evaluations": ".jsonl", "test": ".json"}


def number_name(trial_id: int) -> str:
    """How a trial's files are called, without their ending."""
    return f"{trial_id:04d}"


def file_name(part: Part, trial_id: int) -> str:
    """The name of a trial's file in one part of a study."""
    return number_name(trial_id) + ENDINGS[part]


@dataclass(frozen=True)
class TrialFolder:
    """A trial's checkpoints and weights.

    On a file system they lie in the folder itself, which one process at a time locks. In an object store each process
    claims a number and works in the folder of that number.
    """

    path: Place

    @property
    def lock(self) -> Place:
        """Held by the process that trains the trial."""
        return self.path / "lock"

    @property
    def claims(self) -> Place:
        """Of the processes that train or trained it, in an object store."""
        return self.path / "claims"

    def of_claim(self, number: int) -> "TrialFolder":
        """Where the process with that claim works."""
        return TrialFolder(self.path / f"{number:04d}")

    def checkpoint(self, iteration: int) -> Place:
        """The state after that many steps."""
        return self.path / f"{iteration:012d}.ckpt"

    def stable(self, iteration: int, weights: int) -> Place:
        """The state after that many steps, for other trials; its best weights are those of iteration `weights`."""
        return self.path / f"stable-{iteration:012d}-{weights:012d}.state"

    def weights(self, iteration: int) -> Place:
        """The weights of the best evaluation so far."""
        return self.path / f"best-{iteration:012d}.safetensors"

    def earlier_weights(self, iteration: int) -> Place:
        """The weights of an evaluation that was the best until a later one was better."""
        return self.path / f"front-{iteration:012d}.safetensors"


def weights_iteration(path: Place) -> int:
    """The iteration of a file of weights, by its name; -1 where it has none."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


@dataclass(frozen=True)
class StudyFolder:
    """A study's folder."""

    path: Place

    @property
    def study_yaml(self) -> Place:
        """The study file; with it the study exists."""
        return self.path / "study.yaml"

    @property
    def study_before(self) -> Place:
        """Another copy of the study file."""
        return self.path / "study.before"

    @property
    def facts(self) -> Place:
        """What readers need to know of the study beside its trials."""
        return self.path / "study.json"

    @property
    def driver(self) -> Place:
        """Who drives the study, and its heartbeat."""
        return self.path / "driver.json"

    @property
    def driver_lock(self) -> Place:
        """Held by the driver, where files can be locked."""
        return self.path / "driver.lock"

    @property
    def drivers(self) -> Place:
        """The drivers' claims, in an object store."""
        return self.path / "drivers"

    @property
    def usage(self) -> Place:
        """What attempts that ended held."""
        return self.path / "usage.jsonl"

    @property
    def holding(self) -> Place:
        """What attempts under way hold."""
        return self.path / "holding.json"

    @property
    def warm_start(self) -> Place:
        """The trials of another study that the sampler learns from."""
        return self.path / "warm_start.json"

    @property
    def pruning(self) -> Place:
        """The front that running trials are compared with."""
        return self.path / "pruning.json"

    def baseline(self, digest: str) -> Place:
        """What the baseline with that digest was scored as."""
        return self.path / "baselines" / f"{digest}.json"

    @property
    def code(self) -> Place:
        """Modules of the study's own models, which workers import."""
        return self.path / "code.zip"

    @property
    def logs(self) -> Place:
        """Messages and tracebacks."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Place:
        """The folders of all trials' checkpoints."""
        return self.path / "checkpoints"

    def part(self, part: Part) -> Place:
        """The folder of one part, a file or a few a trial."""
        return self.path / part

    def record(self, trial_id: int) -> Place:
        """A trial's record in the ledger."""
        return self.part("trials") / file_name("trials", trial_id)

    def evaluations(self, trial_id: int) -> Place:
        """A trial's evaluations, one a line."""
        return self.part("evaluations") / file_name("evaluations", trial_id)

    def count(self, trial_id: int) -> Place:
        """How many evaluations a running trial has."""
        return self.evaluations(trial_id).with_suffix(".count")

    def test(self, trial_id: int) -> Place:
        """A trial's test scores."""
        return self.part("test") / file_name("test", trial_id)

    def traceback(self, trial_id: int) -> Place:
        """The traceback of a trial that failed."""
        return self.logs / f"{number_name(trial_id)}.txt"

    @classmethod
    def of_checkpoints(cls, folder: Place) -> "StudyFolder":
        """The study that a trial's folder of checkpoints is in."""
        return cls(folder.parent.parent)

    @classmethod
    def of_weights(cls, path: Place) -> "StudyFolder":
        """The study that a file of weights or a checkpoint is in: a trial's folder may have one for each claim."""
        return next(cls(folder.parent) for folder in path.parents if folder.name == "checkpoints")

    def checkpoints_of(self, key: str) -> TrialFolder:
        """The checkpoints of the trial with that key."""
        return TrialFolder(self.checkpoints / key)


def before(path: Place) -> Place:
    """Where the content of a file before its newest is kept."""
    return path.with_suffix(".before")


def damaged(path: Place) -> str:
    """The name under which a damaged file is set aside."""
    return f"{path.stem}.damaged"
