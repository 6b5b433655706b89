"""The JSON files of a study's folder as typed records: what a reader relies on, and nothing more.

Unknown fields are ignored, so that a newer writer's folder can still be read. A file that is not
what it should be becomes one readable line, never a traceback: see `parse`.
"""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from sizewise.sealed import DamagedError, unsealed
from sizewise_prep.names import PlainName
from sizewise_prep.storage import Place

Direction = Literal["maximize", "minimize"]
TrialState = Literal["running", "finished", "pruned", "failed", "infeasible"]


class Rows(BaseModel):
    """Rows of each split."""

    train: int = 0
    validation: int = 0
    test: int = 0


class DataRecord(BaseModel):
    """The data set of a study; `full_bytes` is what full embedding tables would weigh."""

    path: str = ""
    rows: Rows = Rows()
    full_bytes: int | None = None
    features: int | None = None
    click_rate: float | None = None


class Prices(BaseModel):
    """What an hour of a CPU and of a GPU costs."""

    cpu_hour: float = 0.0
    gpu_hour: float = 0.0
    currency: str = "USD"

    def of(self, cpu_seconds: float, gpu_seconds: float) -> float:
        """Money for so many seconds."""
        return (cpu_seconds * self.cpu_hour + gpu_seconds * self.gpu_hour) / 3600


class Limit(BaseModel):
    """The least and the most that a metric may be, both allowed."""

    min: float | None = None
    max: float | None = None


class StudyRecord(BaseModel):
    """study.json: what the study asks; `trials` is how many it asks for, replicates included."""

    schema_version: int = 1
    name: str = ""
    created: float | None = None
    trials: int | None = None
    objectives: dict[str, Direction] = Field(
        default={"auc": "maximize", "embedding_bytes": "minimize", "iterations": "minimize"}, min_length=1
    )
    prices: Prices | None = None
    constraints: dict[str, Limit] = {}
    data: DataRecord = DataRecord()


class DriverRecord(BaseModel):
    """driver.json: the process that runs the study; `beat` is when (unix seconds) it last wrote this."""

    host: str = ""
    pid: int = 0
    machine: str = ""
    born: int | None = None
    folder: str | None = None
    started: float | None = None
    beat: float = 0.0
    state: Literal["running", "stopped", "finished"]
    message: str = ""


class TrialRecord(BaseModel):
    """trials/NNNN.json: one trial of the ledger; times in unix seconds."""

    trial_id: int
    configuration: int | None = None  # which suggestion it is of; its own where no replicates are
    replicate: int = 0
    state: TrialState
    key: PlainName | Literal[""] = ""
    config: dict[str, Any] = {}
    values: dict[str, float | None] | None = None
    error: str | None = None
    reason: str | None = None
    reuses: int | None = None
    trained_epochs: float | None = None
    started: float | None = None
    finished: float | None = None
    attempts: int = 1
    lost: dict[int, str] = {}  # attempt: why it lost its worker


class TestRecord(BaseModel):
    """test/NNNN.json: the test split's scores, for the table and never for a decision."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    trial_id: int
    auc: float | None = None
    logloss: float | None = None
    normalized_entropy: float | None = None


Record = TypeVar("Record", bound=BaseModel)


def parse(path: Place, content: bytes | OSError, kind: type[Record], problems: list[str]) -> Record | None:
    """The record that `path` holds; None, with a line added to `problems`, when it is missing or unreadable."""
    try:
        if isinstance(content, OSError):
            raise content
        return kind.model_validate(unsealed(content))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the record"
        problem = f"{field}: {first['msg']}"
    except DamagedError as error:
        problem = str(error)
    except OSError as error:
        problem = error.strerror or str(error)
    problems.append(f"{path.parent.name}/{path.name} was skipped ({problem})")
    return None
