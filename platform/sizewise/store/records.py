"""The JSON files of a study's folder as typed records: what a reader relies on, and nothing more.

Unknown fields are ignored, so that a newer writer's folder can still be read. A file that is not
what it should be becomes one readable line, never a traceback: see `parse`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sizewise.metrics.registry import Direction, columns_of_test
from sizewise.metrics.scores import expected_error
from sizewise_core.errors import first_problem
from sizewise_core.files.sealed import DamagedError, JsonObject, unsealed
from sizewise_core.names import PlainName
from sizewise_core.stores.storage import Place

VERSION = 1
"""Of `study.json`."""
# `pruned` was stopped early; `infeasible` was never trained, for its size breaks a constraint
TrialState = Literal["running", "finished", "pruned", "failed", "infeasible"]
Identity = Annotated[int, Field(ge=0, le=10**9)]  # of a trial, a configuration, a replicate, an attempt
# What tables and clocks can hold: JSON's numbers have no end.
Count = Annotated[int, Field(ge=0, le=2**62)]
Instant = Annotated[float, Field(ge=-1e11, le=1e11)]  # unix seconds


class _Record(BaseModel):
    """One of a study's files; no number in it is beyond all measure."""

    model_config = ConfigDict(allow_inf_nan=False)


class Rows(_Record):
    """Rows of each split."""

    train: Count = 0
    validation: Count = 0
    test: Count = 0


class DataRecord(_Record):
    """The data set of a study; `full_bytes` is what full embedding tables would weigh."""

    path: str = ""
    rows: Rows = Rows()
    full_bytes: Count | None = None
    features: Count | None = None
    click_rate: float | None = None
    validation_click_rate: float | None = None

    @property
    def auc_error(self) -> float:
        """The standard error of an AUC on the validation split; 0 where an older version has not kept its clicks."""
        if self.validation_click_rate is None:
            return 0.0
        return expected_error(self.rows.validation, self.validation_click_rate)


class Prices(_Record):
    """What an hour of a CPU and of a GPU costs."""

    cpu_hour: float = Field(0.0, ge=0)
    gpu_hour: float = Field(0.0, ge=0)
    currency: str = "USD"

    def of(self, cpu_seconds: float, gpu_seconds: float) -> float:
        """Money for so many seconds."""
        return (cpu_seconds * self.cpu_hour + gpu_seconds * self.gpu_hour) / 3600


class Limit(_Record):
    """The least and the most that a metric may be, both allowed."""

    min: float | None = None
    max: float | None = None


class TeacherRecord(_Record):
    """A model or a file that the study's students learn from: its name, and what it took to train, where known."""

    name: str
    iterations: Count | None = None
    train_seconds: Annotated[float, Field(ge=0)] | None = None


class BaselineRecord(_Record):
    """What runs today, by which a study's models are judged.

    Attributes:
        name: as messages call it.
        auc: on the study's validation rows, or as it was given.
        logloss: on these rows; None where it is not known.
        bytes, p99_ms, cost: None where they are not known.
        digest: of what was scored, of the rows and of their order; "" of figures alone.
        auc_parts, logloss_parts: what the errors of its scores are made of, as text (see `metrics.errors`); "" where
            its scores of the rows are not known.
    """

    name: str = Field(max_length=1_000)
    auc: Annotated[float, Field(ge=0, le=1)]
    logloss: Annotated[float, Field(ge=0)] | None = None
    bytes: Count | None = None
    p99_ms: Annotated[float, Field(ge=0)] | None = None
    cost: Annotated[float, Field(ge=0)] | None = None
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    auc_parts: str = ""
    logloss_parts: str = ""


class StudyRecord(_Record):
    """study.json: what the study asks; `trials` is how many it asks for, replicates included."""

    schema_version: int = VERSION
    name: str = ""
    created: Instant | None = None
    trials: Annotated[int, Field(ge=0, le=10**9)] | None = None
    objectives: dict[str, Direction] = Field(
        default={"auc": "maximize", "embedding_bytes": "minimize", "iterations": "minimize"}, min_length=1
    )
    prices: Prices | None = None
    constraints: dict[str, Limit] = {}
    data: DataRecord = DataRecord()
    teacher: list[TeacherRecord] = []
    baseline: BaselineRecord | None = None


class DriverRecord(_Record):
    """driver.json: the process that runs the study; `beat` is when (unix seconds) it last wrote this."""

    host: str = ""
    pid: Annotated[int, Field(ge=0, le=2**31)] = 0
    machine: str = ""
    born: Count | None = None
    folder: str | None = None
    started: Instant | None = None
    beat: Instant = 0.0
    state: Literal["running", "stopped", "finished"]
    message: str = ""


class TrialRecord(_Record):
    """trials/NNNN.json: one trial of the ledger, as far as readers rely on it; times in unix seconds."""

    trial_id: Identity
    configuration: Identity | None = None  # which suggestion it is of; replicates share it
    replicate: Identity = 0
    state: TrialState
    key: PlainName | Literal[""] = ""  # names the trial's checkpoints
    params: JsonObject = {}  # what the sampler chose
    config: JsonObject = {}  # all settings, flat
    values: dict[str, float | None] | None = None  # metrics of the best evaluation by validation AUC
    error: str | None = None  # why it failed
    reason: str | None = None  # why it was pruned or not trained
    # By constraint: the share of the limit by which it is broken, if above 0
    violations: dict[str, float] = {}
    # The trial whose training this one continues, or whose evaluations answer it
    reuses: Identity | None = None
    trained_epochs: float | None = None  # epochs that it was trained for
    # Of these, those that others had trained before it began; absent where it trained all itself, or who knows
    inherited_epochs: Annotated[float | None, Field(exclude_if=lambda epochs: epochs is None)] = None
    started: Instant | None = None
    finished: Instant | None = None
    attempts: Identity = 1
    # Why an attempt lost its worker, by its number; the next attempt continued
    lost: dict[Identity, str] = {}
    evaluations: Count | None = None  # how many there are; unknown while it runs, and to older versions
    tested: bool | None = None  # whether there are test scores
    teacher: Identity | None = None  # its number among the teachers that the study trains for its students

    @field_validator("config")
    @classmethod
    def _measurable(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        """Settings may be anything but numbers that neither tables nor JSON can hold."""
        for name, value in config.items():
            if isinstance(value, int | float) and not -(2**63) <= value < 2**63:
                raise ValueError(f"{name} is beyond all measure")
        return config


class Record(TrialRecord):
    """The same as the driver writes it and reads it again: complete, and with no field that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)

    configuration: Identity
    key: PlainName
    params: JsonObject
    config: JsonObject
    values: dict[str, float] | None = None  # type: ignore[assignment]  # narrower, and frozen
    started: float
    finished: float | None = None
    evaluations: int | None = None

    @field_validator("config")
    @classmethod
    def _measurable(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        """Whatever the study file allows: the driver makes no tables."""
        return config

    @model_validator(mode="before")
    @classmethod
    def _older(cls, data: Any) -> Any:
        """Before there were replicates, every trial was a configuration of its own."""
        return {"configuration": data["trial_id"], **data} if "trial_id" in data else data


class TestRecord(_Record):
    """test/NNNN.json: the test split's scores, for the table and never for a decision."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    trial_id: Identity
    scores: dict[str, float | None]  # by metric

    @model_validator(mode="before")
    @classmethod
    def _by_metric(cls, data: Any) -> Any:
        """The file has them beside each other."""
        scores = {name: data[name] for name in columns_of_test() if name in data}
        return {**({"trial_id": data["trial_id"]} if "trial_id" in data else {}), "scores": scores}


Kind = TypeVar("Kind", bound=BaseModel)


def read_record(content: bytes | OSError, kind: type[Kind]) -> Kind:
    """The record in a file's content.

    Raises:
        OSError: the file could not be read.
        DamagedError: it is not what was written.
        ValidationError: it is no such record.
    """
    if isinstance(content, OSError):
        raise content
    return kind.model_validate(unsealed(content))


def parse(path: Place, content: bytes | OSError, kind: type[Kind], problems: list[str]) -> Kind | None:
    """The record that a file holds.

    Args:
        path: the file, for messages.
        content: its bytes, or why it cannot be read.
        kind: the model that the record is of.
        problems: gets a line when the record is missing or unreadable.

    Returns:
        The record; None when it is missing or unreadable.
    """
    try:
        return read_record(content, kind)
    except ValidationError as error:
        problem = first_problem(error)
    except DamagedError as error:
        problem = str(error)
    except OSError as error:
        problem = error.strerror or str(error)
    problems.append(f"{path.parent.name}/{path.name} was skipped ({problem})")
    return None
