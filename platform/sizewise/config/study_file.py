"""The study file: its sections and single fields, and what must agree between them."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sizewise.config.default_search import with_default_search
from sizewise.config.fields import Choices, Range, SizeRange, Strict, did_you_mean, ends_of, is_domain
from sizewise.config.sections.embedding import EmbeddingSpec
from sizewise.config.sections.model import WIDTHS, ModelSpec
from sizewise.config.sections.outcomes import Limit, PruningSpec, ReplicatesSpec
from sizewise.config.sections.running import FailuresSpec, PricesSpec, ResourcesSpec
from sizewise.config.sections.search import SearchSpec
from sizewise.config.sections.section import check_ends
from sizewise.config.sections.train import TrainSpec
from sizewise.config.trial import SECTIONS, all_settings, flat_name, reserved_names
from sizewise.embedding import METHODS
from sizewise.metrics import registry
from sizewise.models import MODELS, is_own, precision_fault, precisions
from sizewise.store.baselines import BaselineAsked
from sizewise.store.study_folder import NAME

# The objectives by which pruning can tell that one trial is better than another.
COMPARED = {"auc", "embedding_bytes", "model_bytes", "iterations"}


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
    baseline: BaselineAsked | None = None  # what runs today: figures, or a model or a file to be scored

    # Runs after the next one (pydantic begins with the last), whose epochs the first trials look at.
    @model_validator(mode="before")
    @classmethod
    def _searched_by_default(cls, data: Any) -> Any:
        return with_default_search(data, ModelSpec().dim) if isinstance(data, Mapping) else data

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_students(cls, data: Any) -> Any:
        """With a teacher: up to 16 epochs, at a learning rate that falls to zero, unless the file says otherwise."""
        train = data.get("train") if isinstance(data, Mapping) else None
        if not isinstance(train, Mapping) or not train.get("distill"):
            return data
        search = data.get("search", {})
        if isinstance(search, Mapping):
            search = {"epochs": {"low": 1, "high": 16, "log": True}, **search}
        return {**data, "search": search, "train": {"schedule": {"decay": "linear"}, **train}}

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
        known = registry.objectives(asked=True)
        for metric, direction in value.items():
            if metric not in known:
                near = did_you_mean(metric, known)
                raise ValueError(f"unknown objective {metric!r}{near}; use {_some(known)}")
            if direction != known[metric]:
                raise ValueError(f"{metric} can only be asked to {known[metric]}")
        if not value:
            raise ValueError("give at least one objective, such as auc: maximize")
        return value

    @field_validator("constraints")
    @classmethod
    def _known_metrics(cls, value: dict[str, Limit]) -> dict[str, Limit]:
        known = registry.constrainable(asked=True)
        for metric in value:
            if metric not in known:
                raise ValueError(
                    f"{metric}: no evaluation holds it{did_you_mean(metric, known)}; use {_some(known)}"
                )
        return value

    @model_validator(mode="after")
    def _precision_of_the_model(self) -> "StudySpec":
        for kind in self.model.kinds:
            for precision in ends_of(self.train.precision):
                if precision not in precisions(kind):
                    raise ValueError(precision_fault(kind, precision))
        return self

    @model_validator(mode="after")
    def _metrics_are_measured(self) -> "StudySpec":
        for where, metrics in (("objectives", self.objectives), ("constraints", self.constraints)):
            for metric in metrics:
                setting = registry.METRICS[registry.column_of(metric)].asked
                if setting and not getattr(self.train, setting.removeprefix("train.")):
                    raise ValueError(
                        f"{where}: {metric} is measured where {setting} says by what: set that as well"
                    )
        return self

    @model_validator(mode="after")
    def _ends_are_possible(self) -> "StudySpec":
        for section in SECTIONS:
            check_ends(section, getattr(self, section))
        return self

    @model_validator(mode="after")
    def _options_have_names_of_their_own(self) -> "StudySpec":
        """A trial's settings stand side by side in tables and in the sampler."""
        of_trials = reserved_names()
        for kind, method in product(self.model.kinds, self.embedding.methods):
            own = is_own(kind)
            of_model = set(self.model.options_of(kind) if own else MODELS[kind].options.model_fields) - set(
                WIDTHS
            )
            of_method = set(METHODS[method].options.model_fields)
            taken = sorted((of_model & of_method) | ((of_model | of_method) & of_trials))
            if taken:
                raise ValueError(
                    f"model {kind} with embedding.method {method}: two settings of a trial would be named "
                    f"{taken[0]}: rename that option in {'the model' if own else 'the distribution that provides it'}"
                )
        return self

    @model_validator(mode="after")
    def _teachers_go_together(self) -> "StudySpec":
        names = self.train.distill_teacher
        trained = [name for name in names if name in METHODS]
        if trained and len(names) > 1:
            raise ValueError(
                f"train.distill.teacher: {trained[0]} is trained by the study itself, which then has no other "
                "teachers: give it alone, and how many in distill.teachers"
            )
        if names and not trained and self.train.distill_teachers > 1:
            raise ValueError(
                "train.distill.teachers: counts the models that the study trains itself, as with `teacher: full`: give "
                "other teachers as a list"
            )
        return self

    @model_validator(mode="after")
    def _prunable(self) -> "StudySpec":
        if self.pruning and ("auc" not in self.objectives or not COMPARED.issuperset(self.objectives)):
            raise ValueError(
                f"pruning: compares AUC at equal bytes and iterations, so objectives must be auc and any of "
                f"{', '.join(sorted(COMPARED - {'auc'}))}: change objectives or drop pruning"
            )
        if self.pruning and "none" not in ends_of(self.train.decay):
            raise ValueError(
                "pruning: compares AUC at equal iterations, and says little of trials whose learning rate is still to "
                "fall (train.schedule.decay): drop pruning, or write decay: none"
            )
        return self

    @model_validator(mode="after")
    def _countable(self) -> "StudySpec":
        """A grid goes through every value, so there must be finitely many, and not millions."""
        for name, field in self.searched() if self.sampler == "grid" else ():
            if isinstance(field, Choices) or field.low == field.high:
                continue
            if isinstance(field, Range) and holds_whole_numbers(name, field):
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
        fields: dict[str, object] = {}
        for section in ("search", "embedding", "train", "model"):
            values: Any = getattr(self, section)
            fields |= {
                flat_name(section, name): getattr(values, name) for name in SECTIONS[section].settings()
            }
            fields |= values.model_extra or {}
        return ((name, field) for name, field in fields.items() if is_domain(field))


def _some(metrics: Iterable[str]) -> str:
    """The names of the first metrics."""
    plain = list(metrics)
    return ", ".join(plain[:10] + ["..."] * (len(plain) > 10))


def holds_whole_numbers(name: str, domain: Range | SizeRange) -> bool:
    """Whether a setting or option takes only whole numbers from this range."""
    setting = all_settings().get(name)
    fractional = setting is not None and not setting.whole
    return isinstance(domain.low, int) and isinstance(domain.high, int) and not fractional
