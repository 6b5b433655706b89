"""The study file's fields, as typed records. One class a section, its checks beside its fields."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from sizewise.embedding import METHODS
from sizewise.ledger import NAME
from sizewise.spec.fields import (
    Choices,
    Range,
    Searchable,
    Size,
    SizeRange,
    Strict,
    did_you_mean,
    ends_of,
    form_of,
    parse_size,
)

# Every metric that can be an objective, with the only direction that makes sense for it.
OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "auc": "maximize",
    "logloss": "minimize",
    "normalized_entropy": "minimize",
    "embedding_bytes": "minimize",
    "model_bytes": "minimize",
    "iterations": "minimize",
    "train_seconds": "minimize",
    "cpu_seconds": "minimize",
    "gpu_seconds": "minimize",
}


class ModelSpec(Strict):
    """The DLRM around the embeddings: widths of hidden layers, as in Naumov et al. 2019."""

    dim: int = Field(16, ge=1, le=512)
    bottom_mlp: list[Annotated[int, Field(ge=1)]] = [128, 64]
    top_mlp: list[Annotated[int, Field(ge=1)]] = [256, 128]


class EmbeddingSpec(BaseModel):
    """The embedding method and its options; which options exist is for the method to say."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    method: str | Choices = "robe"

    @property
    def methods(self) -> list[str]:
        """The method or methods that the study may use."""
        return self.method.choices if isinstance(self.method, Choices) else [self.method]

    @property
    def options(self) -> dict[str, Any]:
        """The options as written: values, `Range`s and `Choices`."""
        return dict(self.model_extra or {})

    def options_of(self, method: str) -> dict[str, Any]:
        """Those of the options that `method` has."""
        return {k: v for k, v in self.options.items() if k in METHODS[method].options.model_fields}

    @field_validator("method", mode="before")
    @classmethod
    def _known_method(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = Choices.model_validate(dict(value))
        for method in value.choices if isinstance(value, Choices) else [value]:
            if method not in METHODS:
                raise ValueError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _ranges(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        parsed = dict(data)
        for name, value in data.items():
            if name != "method" and form_of(value) != "value":
                parsed[name] = (Choices if form_of(value) == "choices" else Range).model_validate(value)
        return parsed

    @model_validator(mode="after")
    def _known_options(self) -> "EmbeddingSpec":
        known = {name for m in self.methods for name in METHODS[m].options.model_fields}
        for name, given in self.options.items():
            if name not in known:
                raise ValueError(
                    f"{name}: no such option of {', '.join(self.methods)}{did_you_mean(name, known)}; "
                    f"options are: {', '.join(sorted(known)) or 'none'}"
                )
            for value in ends_of(given):
                for method in self.methods:
                    fields = METHODS[method].options.model_fields
                    if name in fields:
                        fixed = {k: v for k, v in self.options_of(method).items() if form_of(v) == "value"}
                        _check_options(method, {**fixed, name: value})
        return self


def _check_options(method: str, options: dict[str, Any]) -> None:
    try:
        METHODS[method].options.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None


class SearchSpec(Strict):
    """What is searched. Leave a field out for its default; give one value to fix it."""

    memory_budget: Annotated[
        Annotated[Size, Tag("value")]
        | Annotated[SizeRange, Tag("range")]
        | Annotated[Choices, Tag("choices")],
        Discriminator(form_of),
    ] = SizeRange(low="10000x", high="1x")
    learning_rate: Searchable[float] = Range(low=0.003, high=0.3, log=True)
    epochs: Searchable[int] = Range(low=1, high=4)

    @model_validator(mode="after")
    def _possible(self) -> "SearchSpec":
        for field in ("learning_rate", "epochs"):
            for value in ends_of(getattr(self, field)):
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                    raise ValueError(f"{field}: must be a number above 0, not {value!r}")
                if field == "epochs" and not isinstance(value, int):
                    raise ValueError(f"epochs: must be a whole number, not {value!r}")
        if isinstance(self.memory_budget, Choices):
            for value in self.memory_budget.choices:
                parse_size(value)
        return self


class TrainSpec(Strict):
    """How a trial trains."""

    batch_size: Searchable[Annotated[int, Field(ge=1)]] = 512
    optimizer: Searchable[Literal["sgd", "adagrad", "adam"]] = "adagrad"
    # A fraction of an epoch when written as 0.25 or 1.0, iterations when written as 500.
    evaluate_every: float | int = 0.25
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # between evaluations, at most this far apart

    @field_validator("evaluate_every")
    @classmethod
    def _above_zero(cls, value: float | int) -> float | int:
        if value <= 0:
            raise ValueError(f"must be above 0, not {value}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "TrainSpec":
        for value in ends_of(self.batch_size):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"batch_size: must be a whole number of rows above 0, not {value!r}")
        for value in ends_of(self.optimizer):
            if value not in ("sgd", "adagrad", "adam"):
                raise ValueError(f"optimizer: unknown {value!r}: use sgd, adagrad or adam")
        return self


class ResourcesSpec(Strict):
    """What one trial gets, and how many trials run at once."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    concurrent_trials: int = Field(1, ge=1)


class PricesSpec(Strict):
    """What an hour of a CPU and of a GPU costs, such as a machine's price over what it has."""

    cpu_hour: float = Field(0.0, ge=0)
    gpu_hour: float = Field(0.0, ge=0)
    currency: str = "USD"


class FailuresSpec(Strict):
    """What is done about trials that stand still, and about workers and machines that go away."""

    trial_seconds: Annotated[float, Field(gt=0)] | None = None  # a trial that trains for longer has failed
    silent_seconds: Annotated[float, Field(gt=0)] | None = (
        3600.0  # so has one without evaluation or checkpoint
    )
    retries: int = Field(3, ge=0)  # of a trial whose worker was lost, in a row, without an evaluation between


class StudySpec(Strict):
    """A whole study file."""

    name: str
    data: str
    model: ModelSpec = ModelSpec()
    embedding: EmbeddingSpec = EmbeddingSpec()
    search: SearchSpec = SearchSpec()
    first_trials: list[dict[str, Any]] = []  # settings of the first trials; what they leave open is sampled
    train: TrainSpec = TrainSpec()
    objectives: dict[str, Literal["maximize", "minimize"]] = {
        "auc": "maximize",
        "embedding_bytes": "minimize",
        "iterations": "minimize",
    }
    sampler: Literal["tpe", "random"] = "tpe"
    trials: int = Field(40, ge=1)
    seed: int = Field(1, ge=0)
    resources: ResourcesSpec = ResourcesSpec()
    failures: FailuresSpec = FailuresSpec()
    prices: PricesSpec | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a study name: use letters, digits, - and _ only")
        return value

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: dict[str, str]) -> dict[str, str]:
        for metric, direction in value.items():
            if metric not in OBJECTIVES:
                near = did_you_mean(metric, OBJECTIVES)
                raise ValueError(f"unknown objective {metric!r}{near}; use {', '.join(OBJECTIVES)}")
            if direction != OBJECTIVES[metric]:
                raise ValueError(f"{metric} can only be asked to {OBJECTIVES[metric]}")
        if not value:
            raise ValueError("give at least one objective, such as auc: maximize")
        return value

    @model_validator(mode="after")
    def _checkpoints_break_the_silence(self) -> "StudySpec":
        silent, every = self.failures.silent_seconds, self.train.checkpoint_seconds
        if silent is not None and silent <= every:
            raise ValueError(
                f"failures.silent_seconds: {silent:g} is not above train.checkpoint_seconds ({every:g}), so every "
                "trial would fail: raise it, or write null for no limit"
            )
        return self

    @model_validator(mode="after")
    def _first_trials_fit(self) -> "StudySpec":
        searched = dict(self.searched())
        for number, settings in enumerate(self.first_trials):
            for field in settings:
                if field not in searched:
                    raise ValueError(
                        f"first_trials[{number}].{field}: not a searched field"
                        f"{did_you_mean(field, searched)}; searched are: {', '.join(searched)}"
                    )
        return self

    def searched(self) -> Iterable[tuple[str, Any]]:
        """(field, range or choices) of everything that is searched, in a fixed order."""
        fields = {
            **{k: getattr(self.search, k) for k in SearchSpec.model_fields},
            "method": self.embedding.method,
            **self.embedding.options,
            "batch_size": self.train.batch_size,
            "optimizer": self.train.optimizer,
        }
        return ((k, v) for k, v in fields.items() if isinstance(v, Range | SizeRange | Choices))
