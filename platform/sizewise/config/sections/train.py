"""`train`: how a trial trains."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from sizewise.config.fields import Choices, OneOf, Range, Searchable, Size, ends_of, form_of
from sizewise.config.sections.grouped import Groups, grouped, place_of, ungrouped
from sizewise.config.sections.section import Section

GROUPS: Groups = {
    "schedule": {
        "decay": "decay",
        "warmup": "schedule_warmup",
        "decay_share": "decay_share",
        "decay_start": "decay_start",
        "power": "decay_power",
    },
    "distill": {
        "teacher": "distill_teacher",
        "teachers": "distill_teachers",
        "weight": "distill_weight",
        "temperature": "distill_temperature",
        "epochs": "distill_epochs",
        "learning_rate": "distill_learning_rate",
        "memory_budget": "distill_memory_budget",
    },
}
_ABSENT = {
    "decay": "none",
    "schedule_warmup": 0,
    "decay_share": 1.0,
    "decay_start": None,
    "decay_power": 2.0,
    "distill_teacher": [],
}
_FALL = ("decay_share", "decay_start", "decay_power")


def _length(value: Any) -> Any:
    """A share of a trial, or iterations when it is an integer."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"must be a share of the trial (0.05) or iterations (500), not {value!r}")
    if isinstance(value, float) and value > 1:
        raise ValueError(f"is a share of the trial, at most 1.0, or iterations as an integer, not {value!r}")
    return value


Length = Annotated[float | int, AfterValidator(_length)]


Optimizer = Literal["sgd", "rowwise_adagrad", "adagrad", "adam"]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]


COLUMN = "column:"
"""In front of the name of a column of the data whose scores are a teacher's."""


def _named(teacher: Any) -> Any:
    """A teacher as settings keep it: {column: NAME} as one text."""
    if isinstance(teacher, Mapping) and set(teacher) == {"column"} and isinstance(teacher["column"], str):
        return COLUMN + teacher["column"]
    return teacher


class TrainSpec(Section):
    """How a trial trains."""

    batch_size: Searchable[Annotated[int, Field(ge=1)]] = 512
    optimizer: Searchable[Optimizer] = "adagrad"
    # A fraction of an epoch when written as 0.25 or 1.0, iterations when written as 500.
    evaluate_every: OneOf[float | int] = 0.25
    # What else evaluations measure: AUC within the groups of a token column, log-loss by how often its values occur in
    # training rows, and the calibration error over so many bins of predictions.
    gauc_by: Annotated[str, Field(min_length=1)] | None = None
    frequency_of: Annotated[str, Field(min_length=1)] | None = None
    calibration_bins: Annotated[int, Field(ge=0, le=100_000)] = 0
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # between evaluations, at most this far apart
    precision: Searchable[Literal["float32", "bfloat16"]] = "float32"  # that the MLPs compute in
    embedding_learning_rate: Searchable[AboveZero | None] = (
        None  # of the embeddings, where it is not search's
    )
    weight_decay: Searchable[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = (
        0.0  # L2, of all parameters
    )
    dropout: Searchable[Annotated[float, Field(ge=0, lt=1)]] = 0.0  # behind every hidden layer
    clip_norm: Searchable[AboveZero | None] = None  # that the gradients of a step together have at most
    epsilon: Searchable[AboveZero | None] = None  # of Adagrad and Adam; PyTorch's where it is left out
    accumulate: Annotated[int, Field(ge=1)] = 1  # parts that a batch is computed in, one after another
    # `schedule`: how the learning rate rises to its highest value, and falls from it; see `training.steps.schedule`
    decay: Searchable[Literal["none", "linear", "cosine", "polynomial"]] = "none"
    schedule_warmup: Searchable[Length] = 0
    decay_share: Searchable[Length] = 1.0
    decay_start: Searchable[Length | None] = None
    decay_power: Searchable[Annotated[float, Field(gt=0, le=10)]] = 2.0  # of `polynomial`
    # `distill`: what the models learn from beside the labels: nothing, or the mean of these teachers
    distill_teacher: list[str] = []
    distill_teachers: Annotated[int, Field(ge=1, le=64)] = 1  # of a method that is trained for it: how many
    distill_weight: Searchable[Annotated[float, Field(gt=0, le=1)]] = 0.9  # the teacher's share of the loss
    distill_temperature: Searchable[Annotated[float, Field(ge=0.1, le=100)]] = 1.0
    # how teachers are trained that a study trains itself
    distill_epochs: Annotated[int, Field(ge=1)] = 1
    distill_learning_rate: AboveZero = 0.02
    distill_memory_budget: Size = "1x"  # bytes of embedding parameters, or a compression

    @model_validator(mode="before")
    @classmethod
    def _ungrouped(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("distill"), Mapping):
            distill = dict(data["distill"])
            teacher = distill.get("teacher")
            several = teacher if isinstance(teacher, list) else [teacher]
            distill["teacher"] = teacher = [_named(one) for one in several]
            if not teacher or not all(isinstance(one, str) for one in teacher):
                raise ValueError(
                    "distill.teacher: give STUDY/NUMBER of a finished trial, the folder of an exported model, a file "
                    "of scores, {column: NAME} of the data, a list of these, or `full` for models that the study "
                    "trains first"
                )
            data = {**data, "distill": distill}
        return ungrouped(data, GROUPS)

    @model_serializer(mode="wrap")
    def _grouped(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        own = handler(self)
        written = grouped(own, GROUPS, _ABSENT)
        if isinstance(schedule := written.get("schedule"), dict):
            written["schedule"] = {"decay": own["decay"], **schedule}
        if "distill" in written:  # without which a study's students would have a decay by default
            written.setdefault("schedule", {"decay": self.decay})
        return written

    @classmethod
    def written_as(cls, field: str) -> str:
        """The key of the study file, dotted, by which the section has a setting."""
        return ".".join(place_of(field, GROUPS))

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
            if value not in get_args(Optimizer):
                raise ValueError(f"optimizer: unknown {value!r}: use {', '.join(get_args(Optimizer))}")
        if self.epsilon is not None and ends_of(self.optimizer) == ["sgd"]:
            raise ValueError("epsilon: sgd has none: drop it, or use adagrad, adam or rowwise_adagrad")
        if self.accumulate > min(ends_of(self.batch_size)):
            raise ValueError(
                f"accumulate: {self.accumulate} parts of a batch of {min(ends_of(self.batch_size))} rows: lower it, or "
                "raise batch_size, which counts the rows of a step"
            )
        for value in ends_of(self.precision):
            if value not in ("float32", "bfloat16"):
                raise ValueError(f"precision: unknown {value!r}: use float32 or bfloat16")
        return self

    @model_validator(mode="after")
    def _schedule_is_possible(self) -> "TrainSpec":
        decays = ends_of(self.decay)
        changed = [name for name in _FALL if getattr(self, name) != _ABSENT[name]]
        if changed and decays == ["none"]:
            raise ValueError(
                f"{self.written_as(changed[0])}: no rate falls with decay: none: write decay: linear, cosine or "
                "polynomial as well"
            )
        if "decay_power" in changed and "polynomial" not in decays:
            raise ValueError("schedule.power: is that of decay: polynomial: write this, or drop power")
        for name in ("schedule_warmup", "decay_share", "decay_start"):
            field = getattr(self, name)
            if isinstance(field, Range) and not all(isinstance(end, float) for end in ends_of(field)):
                place = self.written_as(name)
                raise ValueError(f"{place}: a range holds shares (0.1 to 0.5): list iterations as choices")
        warm, fall = (max(ends_of(field)) for field in (self.schedule_warmup, self.decay_share))
        shares = isinstance(warm, float) and isinstance(fall, float) and decays != ["none"]
        if shares and self.decay_share != 1.0 and self.decay_start is None and warm + fall > 1:
            raise ValueError(
                f"schedule: a warmup of {warm:g} and a decay_share of {fall:g} are more than the trial: lower one"
            )
        if 0 in ends_of(self.decay_share):
            raise ValueError("schedule.decay_share: must be above 0: to keep the rate, write decay: none")
        return self

    @property
    def needs_gradients(self) -> bool:
        """Whether steps need the gradients of tables, which are stepped in the backward pass otherwise."""
        return self.clip_norm is not None or self.accumulate > 1

    @property
    def depends_on_length(self) -> bool:
        """Whether the rates of a trial's first iterations, or where they fall, are others when it is longer."""
        if isinstance(self.schedule_warmup, float) and self.schedule_warmup:
            return True
        fixed = isinstance(self.decay_start, int) and isinstance(self.decay_share, int)
        return self.decay != "none" and not fixed

    @property
    def stable(self) -> bool:
        """Whether trials of other lengths have the same rates up to where they fall."""
        if isinstance(self.schedule_warmup, float) and self.schedule_warmup:
            return False
        return self.depends_on_length and (self.decay_share != 1.0 or self.decay_start is not None)
