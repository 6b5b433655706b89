"""`resources`, `failures` and `prices`: where trials run, and what that costs."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sizewise.config.fields import Strict
from sizewise.store.records import Prices
from sizewise_core.units import parse_bytes


class ResourcesSpec(Strict):
    """What one trial gets, and how many trials run at once."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1, gt=0)
    # `auto`: a share of one card, by the memory that the trial's configuration takes
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    gpu_memory: Annotated[int, BeforeValidator(parse_bytes)] | None = None  # of a card; else it is asked
    concurrent_trials: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _whole_cards(self) -> "ResourcesSpec":
        gpus = self.gpus_per_worker
        if isinstance(gpus, float | int) and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_worker: {gpus:g}: more than one card comes in whole cards only")
        return self


class PricesSpec(Prices):
    """What an hour of a CPU and of a GPU costs, such as a machine's price over what it has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FailuresSpec(Strict):
    """What is done about trials that stand still, and about workers and machines that go away."""

    trial_seconds: Annotated[float, Field(gt=0)] | None = None  # a trial that trains for longer has failed
    silent_seconds: Annotated[float, Field(gt=0)] | None = (
        3600.0  # so has one without evaluation or checkpoint
    )
    retries: int = Field(3, ge=0)  # of a trial whose worker was lost, in a row, without an evaluation between
