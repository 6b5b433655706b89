"""`train`: how a trial trains."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sizewise.config.fields import Choices, OneOf, Searchable, ends_of, form_of
from sizewise.config.sections.section import Section


class TrainSpec(Section):
    """How a trial trains."""

    batch_size: Searchable[Annotated[int, Field(ge=1)]] = 512
    optimizer: Searchable[Literal["sgd", "adagrad", "adam"]] = "adagrad"
    # A fraction of an epoch when written as 0.25 or 1.0, iterations when written as 500.
    evaluate_every: OneOf[float | int] = 0.25
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # between evaluations, at most this far apart
    precision: Searchable[Literal["float32", "bfloat16"]] = "float32"  # that the MLPs compute in

    @field_validator("evaluate_every", mode="before")
    @classmethod
    def _above_zero(cls, value: Any) -> Any:
        if form_of(value) != "value":
            value = Choices.model_validate(dict(value) if isinstance(value, Mapping) else value)
        for each in ends_of(value):
            if isinstance(each, bool) or not isinstance(each, int | float) or not 0 < each < math.inf:
                raise ValueError(f"must be above 0 (epochs as 0.25, iterations as 500), not {each!r}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "TrainSpec":
        for value in ends_of(self.batch_size):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"batch_size: must be a whole number of rows above 0, not {value!r}")
        for value in ends_of(self.optimizer):
            if value not in ("sgd", "adagrad", "adam"):
                raise ValueError(f"optimizer: unknown {value!r}: use sgd, adagrad or adam")
        for value in ends_of(self.precision):
            if value not in ("float32", "bfloat16"):
                raise ValueError(f"precision: unknown {value!r}: use float32 or bfloat16")
        return self
