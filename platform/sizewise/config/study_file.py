"""The study file's fields, as typed records. One class a section, its checks beside its fields."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from sizewise.config.fields import (
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
from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS
from sizewise.metrics import registry
from sizewise.models import DEFAULT, MODELS, precision_fault
from sizewise.store.ledger import NAME
from sizewise_core.errors import shown
from sizewise_core.units import format_bytes, parse_bytes

# The objectives by which pruning can tell that one trial is better than another.
COMPARED = {"auc", "embedding_bytes", "model_bytes", "iterations"}


WIDEST = 1_000_000  # units of a hidden layer; beyond are slips of the keyboard


_WIDTHS = ("bottom_mlp", "top_mlp")


class ModelSpec(BaseModel):
    """The model around the embeddings: DLRM's widths of hidden layers (Naumov et al. 2019), or another's options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str = DEFAULT
    dim: Searchable[Annotated[int, Field(ge=1, le=512)]] = 16
    bottom_mlp: Searchable[list[Annotated[int, Field(ge=1, le=WIDEST)]]] = [128, 64]
    top_mlp: Searchable[list[Annotated[int, Field(ge=1, le=WIDEST)]]] = [256, 128]

    @property
    def options(self) -> dict[str, Any]:
        """What a model of another kind declares beyond these fields: values, `Range`s and `Choices`."""
        return dict(self.model_extra or {})

    @property
    def largest_dim(self) -> int:
        """The longest vector that is searched; compressions are of full tables of this length."""
        return int(max(ends_of(self.dim)))

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        if value not in MODELS:
            raise ValueError(f"unknown model {shown(value)}: use one of {MODELS.choices(value)}")
        _ = MODELS[value]  # InputError where it cannot be imported
        return value

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, data: Any) -> Any:
        """Another kind's options with its own defaults, ranges and choices read."""
        kind = data.get("kind", DEFAULT) if isinstance(data, Mapping) else DEFAULT
        if kind == DEFAULT or not isinstance(kind, str) or kind not in MODELS:
            return data
        declared = MODELS[kind].options.model_fields
        parsed = {
            name: _searched(value) if name in declared and name not in _WIDTHS else value
            for name, value in data.items()
        }
        for name in _WIDTHS:
            if name not in declared and parsed.setdefault(name, []) != []:
                raise ValueError(f"{name}: no option of model {kind}: remove it")
            if name in declared:
                parsed.setdefault(name, declared[name].get_default(call_default_factory=True))
        return parsed

    @model_validator(mode="after")
    def _known_options(self) -> "ModelSpec":
        if self.kind == DEFAULT:
            if self.options:
                unknown = [
                    InitErrorDetails(type="extra_forbidden", loc=(name,), input=value)
                    for name, value in self.options.items()
                ]
                raise ValidationError.from_exception_data("ModelSpec", unknown)
            return self
        options = MODELS[self.kind].options
        declared = options.model_fields
        for name in self.options:
            if name not in declared:
                raise ValueError(
                    f"{name}: no such option of model {self.kind}{did_you_mean(name, declared)}; "
                    f"options are: {', '.join(sorted(declared)) or 'none'}"
                )
        given = {**self.options, **{name: getattr(self, name) for name in _WIDTHS if name in declared}}
        fixed = {name: value for name, value in given.items() if form_of(value) == "value"}
        for name, value in given.items():
            for end in ends_of(value):
                _check_options(options, {**fixed, name: end})
        if not given:
            _check_options(options, {})
        return self

    @model_serializer(mode="wrap")
    def _without_the_default_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {k: v for k, v in written.items() if (k, v) != ("kind", DEFAULT)}

    @model_validator(mode="after")
    def _possible(self) -> "ModelSpec":
        for value in ends_of(self.dim):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 512:
                raise ValueError(f"dim: must be a whole number from 1 to 512, not {value!r}")
        for field in ("bottom_mlp", "top_mlp"):
            given = getattr(self, field)
            if isinstance(given, Range):
                raise ValueError(f"{field}: widths are a list: search them as {{choices: [[64], [128, 64]]}}")
            for widths in ends_of(given) if isinstance(given, Choices) else [given]:
                if not isinstance(widths, list) or not all(
                    type(w) is int and 1 <= w <= WIDEST for w in widths
                ):
                    raise ValueError(f"{field}: must be a list of widths such as [128, 64], not {widths!r}")
        return self


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
                raise ValueError(f"unknown method {shown(str(method))}: use one of {METHODS.choices(method)}")
            _ = METHODS[method]  # InputError where it cannot be imported
        return value

    @model_validator(mode="before")
    @classmethod
    def _ranges(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        parsed = dict(data)
        for name, value in data.items():
            if name != "method":
                parsed[name] = _searched(value)
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
                        _check_options(METHODS[method].options, {**fixed, name: value})
        return self


def _searched(value: Any) -> Any:
    """An option as written: a range or choices as such, anything else as it is."""
    if form_of(value) == "value":
        return value
    return (Choices if form_of(value) == "choices" else Range).model_validate(value)


def _check_options(declared: type[BaseModel], options: dict[str, Any]) -> None:
    try:
        declared.model_validate(options)
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
    evaluate_every: float | int | Choices = 0.25
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


class Limit(Strict):
    """The least and the most that a metric may be, both allowed."""

    min: float | None = None
    max: float | None = None

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
    constraints: dict[str, Limit] = {}  # of any evaluated metric, such as model_bytes: {max: 16MB}
    sampler: Literal["tpe", "nsgaii", "nsgaiii", "gp", "random", "qmc", "grid"] = "tpe"
    warm_start: str | None = None  # another study, by name or folder, whose trials the sampler learns from
    pruning: PruningSpec | None = None
    replicates: ReplicatesSpec | None = None
    trials: int = Field(40, ge=1)  # configurations; with replicates, each may be trained several times
    seed: int = Field(1, ge=0, lt=2**63)  # as far as PyTorch counts
    resources: ResourcesSpec = ResourcesSpec()
    failures: FailuresSpec = FailuresSpec()
    prices: PricesSpec | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a study name: use letters, digits, - and _ only")
        return value

    @field_validator("data")
    @classmethod
    def _some_folder(cls, value: str) -> str:
        if not value.strip() or "\0" in value:
            raise ValueError(f"{value!r} names no folder: give that of the shards")
        return value

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: dict[str, str]) -> dict[str, str]:
        known = registry.objectives()
        for metric, direction in value.items():
            if metric not in known:
                near = did_you_mean(metric, known)
                raise ValueError(f"unknown objective {metric!r}{near}; use {', '.join(known)}")
            if direction != known[metric]:
                raise ValueError(f"{metric} can only be asked to {known[metric]}")
        if not value:
            raise ValueError("give at least one objective, such as auc: maximize")
        return value

    @field_validator("constraints")
    @classmethod
    def _known_metrics(cls, value: dict[str, Limit]) -> dict[str, Limit]:
        known = registry.constrainable()
        for metric in value:
            if metric not in known:
                raise ValueError(
                    f"{metric}: no evaluation holds it{did_you_mean(metric, known)}; use {', '.join(known)}"
                )
        return value

    @model_validator(mode="after")
    def _precision_of_the_model(self) -> "StudySpec":
        for precision in ends_of(self.train.precision):
            if precision not in MODELS[self.model.kind].precisions:
                raise ValueError(precision_fault(self.model.kind, precision))
        return self

    @model_validator(mode="after")
    def _options_have_names_of_their_own(self) -> "StudySpec":
        """A trial's settings stand side by side in tables and in the sampler."""
        of_model = set(MODELS[self.model.kind].options.model_fields) - set(_WIDTHS)
        of_trials = set(TrialConfig.model_fields)
        for method in self.embedding.methods:
            of_method = set(METHODS[method].options.model_fields)
            taken = sorted((of_model & of_method) | ((of_model | of_method) & of_trials))
            if taken:
                raise ValueError(
                    f"model {self.model.kind} with embedding.method {method}: two settings of a trial would be named "
                    f"{taken[0]}: rename that option in the distribution that provides it"
                )
        return self

    @model_validator(mode="after")
    def _prunable(self) -> "StudySpec":
        if self.pruning and ("auc" not in self.objectives or not COMPARED.issuperset(self.objectives)):
            raise ValueError(
                f"pruning: compares AUC at equal bytes and iterations, so objectives must be auc and any of "
                f"{', '.join(sorted(COMPARED - {'auc'}))}: change objectives or drop pruning"
            )
        return self

    @model_validator(mode="after")
    def _countable(self) -> "StudySpec":
        """A grid goes through every value, so there must be finitely many, and not millions."""
        for name, field in self.searched() if self.sampler == "grid" else ():
            if isinstance(field, Choices) or field.low == field.high:
                continue
            whole = isinstance(field, Range) and isinstance(field.low, int) and isinstance(field.high, int)
            if whole and name != "learning_rate":
                continue
            raise ValueError(
                f"sampler: grid cannot go through the continuous range of {name}: "
                f"write {name}: {{choices: [...]}}, or use qmc for an even spread"
            )
        return self

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
            **{k: getattr(self.train, k) for k in ("batch_size", "optimizer", "evaluate_every", "precision")},
            **{k: getattr(self.model, k) for k in ModelSpec.model_fields},
            **self.model.options,
        }
        return ((k, v) for k, v in fields.items() if isinstance(v, Range | SizeRange | Choices))
