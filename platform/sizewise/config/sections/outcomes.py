"""`pruning`, `replicates` and `constraints`: what is made of trials' outcomes."""

import math
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from sizewise.config.fields import Strict
from sizewise.metrics import registry
from sizewise.store.records import Limit as KeptLimit
from sizewise_core.units import format_bytes, parse_bytes


class PruningSpec(Strict):
    """When a trial is stopped early; see `sizewise.search.pruning` for the rule and what the risk covers."""

    # Never before this much training: epochs when written as 0.25 or 1.0, iterations when written as 500.
    grace: float | int = Field(0.25, ge=0)
    risk: float = Field(0.05, gt=0, lt=1)  # of stopping a trial that only noise made look worse


class ReplicatesSpec(Strict):
    """How many seeds a configuration is trained with, and which configurations are."""

    seeds: int = Field(3, ge=2)
    of: Literal["all", "front"] = "front"
    within: float = Field(0.002, ge=0)  # AUC below what the front has for as many bytes and iterations


class Limit(KeptLimit):
    """The least and the most that a metric may be, both allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=True)

    @field_validator("min", "max", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        # A size may have a unit; as a float, because a limit may be of any metric.
        return float(parse_bytes(value)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _possible(self) -> "Limit":
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both, such as {max: 16MB}")
        if any(end is not None and math.isnan(end) for end in (self.min, self.max)):
            raise ValueError("nan is no limit: give a number")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min:g}) is above max ({self.max:g}): swap them")
        return self

    def violation(self, value: float) -> float:
        """By how much `value` breaks the limit, as a share of it; zero or less when it keeps to it."""
        if math.isnan(value):
            return 1.0
        over = -1.0 if self.max is None else (value - self.max) / (abs(self.max) or 1.0)
        under = -1.0 if self.min is None else (self.min - value) / (abs(self.min) or 1.0)
        return max(over, under)

    def text(self, metric: str, value: float) -> str:
        """What is wrong with a value that breaks the limit, in words."""
        write = format_bytes if registry.unit_of(metric) == "bytes" else "{:g}".format
        bound = [f"at least {write(self.min)}"] if self.min is not None and not value >= self.min else []
        bound += [f"at most {write(self.max)}"] if self.max is not None and not value <= self.max else []
        return f"{metric} is {write(value)}, and the constraint is {' and '.join(bound)}"
