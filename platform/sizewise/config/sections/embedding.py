"""`embedding`: the method that gives vectors, and its options."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from sizewise.config.fields import Choices, OneOf, Searchable, did_you_mean, ends_of, form_of
from sizewise.config.sections.options import check_options, searched
from sizewise.config.sections.section import Section
from sizewise.embedding import METHODS, MultiHotLists, Pooling
from sizewise.embedding.storage.rounding import Rounded
from sizewise_core.errors import shown


class EmbeddingSpec(Section):
    """The embedding method and its options; which options exist is for the method to say."""

    model_config = ConfigDict(extra="allow")

    method: OneOf[str] = "robe"
    # What trained float32 models are rounded to, and evaluated as, beside themselves: models of several sizes.
    also_stored_as: list[Rounded] = []
    # What becomes of the vectors of a list of values, in data that has such columns.
    pooling: Searchable[Pooling] = "mean"
    # How much of a trial an int4 or int2 table is trained in float32, before the steps between its levels are learned.
    float32_share: Searchable[Annotated[float, Field(ge=0, le=1)]] = 0.0
    # Lists made of single values: MLPerf's of Criteo's.
    multi_hot: MultiHotLists = "none"

    @property
    def methods(self) -> list[str]:
        """The method or methods that the study may use."""
        return ends_of(self.method)

    @property
    def options(self) -> Mapping[str, Any]:
        """The options as written: values, `Range`s and `Choices`."""
        return dict(self.model_extra or {})

    def options_of(self, method: str) -> Mapping[str, Any]:
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
            if name not in cls.model_fields:
                parsed[name] = searched(value)
        return parsed

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        written: dict[str, object] = handler(self)
        # What is meant without them: most data has no lists, and most tables are trained as they are stored.
        absent = {"pooling": "mean", "multi_hot": "none", "float32_share": 0.0}
        return {name: value for name, value in written.items() if absent.get(name) != value}

    @field_validator("also_stored_as", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("also_stored_as", mode="after")
    @classmethod
    def _once_each(cls, value: list[Rounded]) -> list[Rounded]:
        if len(set(value)) < len(value):
            raise ValueError(f"name each storage once, not {', '.join(value)}")
        return value

    @model_validator(mode="after")
    def _has_something_to_round(self) -> "EmbeddingSpec":
        storages = ends_of(self.options.get("storage", "float32"))
        if self.also_stored_as and "float32" not in storages:
            raise ValueError(
                f"also_stored_as: rounds models that are trained in float32, and storage is {shown(str(storages[0]))}: "
                "leave out storage, or also_stored_as"
            )
        return self

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
                        check_options(METHODS[method].options, {**fixed, name: value})
        return self
