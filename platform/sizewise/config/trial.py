"""One trial's configuration: the sections of its study's file that decide what is trained, each with one value a field.

    config.train.batch_size, config.embedding.options, config.model.dim

A setting is declared once, as a field of its section (see `sections.section`). All else follows from that: the flat
names by which tables, the ledger and samplers know it, and the digest that tells configurations apart.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from sizewise.config.fields import is_domain
from sizewise.config.sections.embedding import EmbeddingSpec
from sizewise.config.sections.model import ModelSpec
from sizewise.config.sections.search import SearchSpec
from sizewise.config.sections.section import Section, Setting
from sizewise.config.sections.train import TrainSpec
from sizewise.embedding import METHODS
from sizewise.models import DEFAULT, MODELS, is_own
from sizewise_core.errors import InputError

SECTIONS: Mapping[str, type[Section]] = {
    "model": ModelSpec,
    "embedding": EmbeddingSpec,
    "search": SearchSpec,
    "train": TrainSpec,
}
# What records and digests of version 0.1 have, in the order of its records. All that came later is left out of digests
# where it has its default, so that these stay what they were: a new setting is not to be added here.
_OF_0_1 = (
    *(
        "data",
        "dim",
        "bottom_mlp",
        "top_mlp",
        "method",
        "options",
        "memory_budget",
        "learning_rate",
        "epochs",
    ),
    *("batch_size", "optimizer", "evaluate_every", "checkpoint_seconds", "seed"),
)
# Later ones that every record has; others are in the records of studies that say something of them.
_ALWAYS_WRITTEN = (*_OF_0_1, "precision")
_OPTIONS = ("options", "model_options")


def flat_name(section: str, field: str) -> str:
    """The name of a setting where all stand side by side."""
    return "model" if (section, field) == ("model", "kind") else field


@cache
def all_settings() -> Mapping[str, Setting]:
    """Every field of the sections that make up a trial, by its flat name."""
    return {
        flat_name(section, field): setting
        for section, kind in SECTIONS.items()
        for field, setting in kind.settings().items()
    }


@cache
def dotted_names() -> Mapping[str, str]:
    """Where a study file has each setting, by its flat name: `search.epochs` for `epochs`."""
    return {
        flat_name(section, field): f"{section}.{kind.written_as(field)}"
        for section, kind in SECTIONS.items()
        for field in kind.settings()
    }


@cache
def reserved_names() -> frozenset[str]:
    """Names that no option of a method or a model can have."""
    return frozenset({"data", "seed", *_OPTIONS, *all_settings()})


@cache
def later_defaults() -> Mapping[str, object]:
    """What a record does not say that was written before a setting existed, or by a study that does not use it."""
    return {
        name: setting.default
        for name, setting in all_settings().items()
        if name not in _OF_0_1 and not is_domain(setting.default)
    }


def model_options(kind: str, method: str, names: Iterable[str]) -> set[str]:
    """Which options of a trial are its model's; of one's own model, all that are not its method's.

    Args:
        kind, method: the trial's.
        names: of the options of both.
    """
    if is_own(kind):
        return set(names) - set(METHODS[method].options.model_fields)
    return set(names) & set(MODELS[kind].options.model_fields)


def said_settings(section: str, values: Section) -> Mapping[str, object]:
    """What a study's section says, by flat names: also by default what every record has, and nothing newer."""
    return {
        name: getattr(values, field)
        for field, setting in values.settings().items()
        if (name := flat_name(section, field)) in _ALWAYS_WRITTEN
        or is_domain(getattr(values, field))
        or getattr(values, field) != setting.default
    }


class TrialConfig(BaseModel):
    """All settings of one trial. Two equal configurations train equal models.

    Attributes:
        data: folder of shards.
        model: what is around the embeddings.
        embedding: the method and its options.
        search: the memory budget in bytes, and what else is searched by default.
        train: how it trains.
        seed: of its weights and of the order of its rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    model: ModelSpec
    embedding: EmbeddingSpec
    search: SearchSpec
    train: TrainSpec
    seed: int

    @model_validator(mode="after")
    def _one_value_each(self) -> "TrialConfig":
        for section in SECTIONS:
            for name, value in getattr(self, section):
                if is_domain(value):
                    raise ValueError(f"{section}.{name}: a trial has one value, not {value!r}")
        return self

    @classmethod
    def from_flat(cls, settings: Mapping[str, Any]) -> "TrialConfig":
        """The configuration that `flat` wrote; what is no setting of a section is an option of its model or method.

        Options are taken as they are: whoever builds the model checks them.

        Raises:
            InputError: a setting is missing that every trial has.
        """
        if missing := [name for name in _OF_0_1 if name not in settings and name not in _OPTIONS]:
            raise InputError(f"a trial's settings lack {missing[0]}: restore its record")
        options = {name: value for name, value in settings.items() if name not in reserved_names()}
        of_model = model_options(settings.get("model", DEFAULT), settings["method"], options)
        extra = {
            "model": {name: value for name, value in options.items() if name in of_model},
            "embedding": {name: value for name, value in options.items() if name not in of_model},
        }
        sections: Mapping[str, Any] = {
            name: kind.model_construct(**_given(name, kind, settings), **extra.get(name, {}))
            for name, kind in SECTIONS.items()
        }
        return cls.model_construct(data=str(settings["data"]), seed=int(settings["seed"]), **sections)

    def flat(self) -> dict[str, object]:
        """The settings as one level of names, for tables and for the ledger.

        A setting that is newer than many records is left out where the study says nothing of it.
        """
        silent = self._silent()
        return {name: value for name, value in self.complete().items() if name not in silent}

    def grouped(self) -> dict[str, object]:
        """As `flat`, with the options of the method and those of the model in a dictionary each."""
        silent = self._silent()
        silent |= {"model_options"} if "model" in silent else set()
        return {name: value for name, value in self.settings().items() if name not in silent}

    def _silent(self) -> set[str]:
        said = {
            flat_name(section, field)
            for section in SECTIONS
            for field in getattr(self, section).model_fields_set
        }
        return set(later_defaults()) - said - set(_ALWAYS_WRITTEN)

    def complete(self) -> dict[str, object]:
        """Every setting as one level of names, also those that `flat` leaves out."""
        fields = {name: value for name, value in self.settings().items() if name not in _OPTIONS}
        return {**fields, **self.embedding.options, **self.model.options}

    def settings(self) -> dict[str, object]:
        """Every setting by its flat name; options of the method and of the model in a dictionary each."""
        fields: dict[str, object] = {"data": self.data, "seed": self.seed}
        for section, kind in SECTIONS.items():
            values = getattr(self, section)
            fields |= {flat_name(section, field): _plain(getattr(values, field)) for field in kind.settings()}
        fields |= {"options": self.embedding.options, "model_options": self.model.options}
        order = dict.fromkeys([*_OF_0_1, "model", "model_options", *fields])
        return {name: fields[name] for name in order}

    def options_of_model(self) -> Mapping[str, Any]:
        """All options of the model, the widths of hidden layers among them where it has such."""
        widths = {"bottom_mlp": self.model.bottom_mlp, "top_mlp": self.model.top_mlp}
        if is_own(self.model.kind):
            had = {name for name, value in widths.items() if value}
        else:
            had = set(MODELS[self.model.kind].options.model_fields)
        return {**{name: value for name, value in widths.items() if name in had}, **self.model.options}

    def curve(self) -> str:
        """What tells this configuration's learning curve from others, whatever its length.

        A step does not depend on how many steps there will be, so one configuration with fewer epochs has the
        first part of the same curve; unless its learning rate depends on it, or its method has a schedule that does
        (`Options.depends_on_epochs`).
        """
        exclude = {"checkpoint_seconds"}
        if not (self.train.depends_on_length or self._method_depends_on_epochs()):
            exclude.add("epochs")
        return self._identity(exclude)

    def stable_part(self) -> str:
        """What tells the part of the curve before the learning rate falls from others; "" where it has none.

        Trials that differ in length, and in how their rate falls, have the same one.
        """
        if not self.train.stable or self._method_depends_on_epochs():
            return ""
        falls = {"decay", "decay_share", "decay_start", "decay_power"}
        return "until the rate falls: " + self._identity({"checkpoint_seconds", "epochs", *falls})

    def _method_depends_on_epochs(self) -> bool:
        options = METHODS[self.embedding.method].options(**self.embedding.options)
        return options.depends_on_epochs or 0 < self.embedding.float32_share < 1

    def digest(self) -> str:
        """Eight hex digits that tell this configuration from others."""
        return hashlib.sha256(self._identity().encode()).hexdigest()[:8]

    def _identity(self, exclude: Collection[str] = ()) -> str:
        """All settings as text but those left at a default, which are newer than some digests."""
        later = {**later_defaults(), "model_options": {}}
        said = {
            name: value
            for name, value in self.settings().items()
            if name not in exclude and not (name in later and value == later[name])
        }
        return json.dumps(said, sort_keys=True)


def _given(section: str, kind: type[Section], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a section that are among the settings, as their types read them."""
    fields = {field: flat_name(section, field) for field in kind.settings()}
    return {
        field: kind.settings()[field].value.validate_python(settings[name])
        for field, name in fields.items()
        if name in settings
    }


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value
