"""`model`: the network around the embeddings, and its options."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails

from sizewise.config.fields import Choices, OneOf, Range, Searchable, did_you_mean, ends_of
from sizewise.config.sections.options import check_options, searched
from sizewise.config.sections.section import Section
from sizewise.models import DEFAULT, MODELS, dim_fault, is_own
from sizewise.models.own import path_fault
from sizewise_core.errors import shown

WIDEST = 1_000_000  # units of a hidden layer; beyond are slips of the keyboard
WIDTHS = ("bottom_mlp", "top_mlp")


class ModelSpec(Section):
    """The model or models around the embeddings, and their options.

    DLRM's widths of hidden layers (Naumov et al. 2019) are fields, which other models may have too; which further
    options exist is for each model to say. A trial has those of its own model only.
    """

    model_config = ConfigDict(extra="allow")

    kind: OneOf[str] = DEFAULT
    dim: Searchable[Annotated[int, Field(ge=1, le=512)]] = 16
    bottom_mlp: Searchable[list[Annotated[int, Field(ge=1, le=WIDEST)]]] = [128, 64]
    top_mlp: Searchable[list[Annotated[int, Field(ge=1, le=WIDEST)]]] = [256, 128]

    @property
    def kinds(self) -> list[str]:
        """The model or models that the study may use."""
        return ends_of(self.kind)

    @property
    def options(self) -> Mapping[str, Any]:
        """What models declare beyond these fields: values, `Range`s and `Choices`."""
        return dict(self.model_extra or {})

    def options_of(self, kind: str) -> Mapping[str, Any]:
        """Those of the options that the model `kind` has."""
        return {name: value for name, value in self.options.items() if self.has(kind, name)}

    def has(self, kind: str, name: str) -> bool:
        """Whether a model has an option; one's own has all that no registered model of the study has."""
        if not is_own(kind):
            return name in MODELS[kind].options.model_fields
        return not any(self.has(other, name) for other in self.kinds if not is_own(other))

    @property
    def largest_dim(self) -> int:
        """The longest vector that is searched; compressions are of full tables of this length."""
        return int(max(ends_of(self.dim)))

    @field_validator("kind", mode="before")
    @classmethod
    def _known_kind(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = Choices.model_validate(dict(value))
        for kind in value.choices if isinstance(value, Choices) else [value]:
            if is_own(kind):
                if fault := path_fault(kind):
                    raise ValueError(fault)
                continue  # imported where it is built: reading a study must not run its code
            if isinstance(kind, str) and "." in kind:
                raise ValueError(path_fault(kind))
            if kind not in MODELS:
                raise ValueError(f"unknown model {shown(str(kind))}: use one of {MODELS.choices(kind)}")
            _ = MODELS[kind]  # InputError where it cannot be imported
        return value

    @model_validator(mode="before")
    @classmethod
    def _of_its_kinds(cls, data: Any) -> Any:
        """Ranges and choices of options read, and hidden layers as wide as the models have them by default."""
        kinds = _kinds(data)
        if kinds in ([], [DEFAULT]):
            return data
        parsed = {
            name: value if name in cls.model_fields else searched(value) for name, value in data.items()
        }
        for name in WIDTHS:
            declaring = [kind for kind in kinds if not is_own(kind) and name in _declared(kind)]
            if not declaring and any(map(is_own, kinds)):
                parsed.setdefault(name, [])
            elif not declaring and parsed.setdefault(name, []) != []:
                raise ValueError(f"{name}: no option of model {' or '.join(kinds)}: remove it")
            defaults = [_declared(kind)[name].get_default(call_default_factory=True) for kind in declaring]
            if name not in parsed and any(default != defaults[0] for default in defaults):
                raise ValueError(f"{name}: differs by default between {' and '.join(declaring)}: write it")
            if defaults:
                parsed.setdefault(name, defaults[0])
        return parsed

    @model_validator(mode="after")
    def _known_options(self) -> "ModelSpec":
        if self.kinds == [DEFAULT] and self.options:
            unknown = [
                InitErrorDetails(type="extra_forbidden", loc=(name,), input=value)
                for name, value in self.options.items()
            ]
            raise ValidationError.from_exception_data("ModelSpec", unknown)
        known = {name for kind in self.kinds if not is_own(kind) for name in _declared(kind)}
        for name in self.options:
            if not any(self.has(kind, name) for kind in self.kinds):
                raise ValueError(
                    f"{name}: no such option of model {' or '.join(self.kinds)}{did_you_mean(name, known)}; "
                    f"options are: {', '.join(sorted(known)) or 'none'}"
                )
        for kind in self.kinds:
            self._check(kind)
        return self

    def _check(self, kind: str) -> None:
        """ValueError where the model does not take every value that is searched."""
        if kind == DEFAULT or is_own(kind):
            return  # options of the first are fields, which check themselves; those of the second wait for the dry step
        widths = {name: getattr(self, name) for name in WIDTHS if name in _declared(kind)}
        given = {**self.options_of(kind), **widths}
        first = {name: ends_of(value)[0] for name, value in given.items()}
        check_options(MODELS[kind].options, first)
        for name, value in given.items():
            for end in ends_of(value)[1:]:
                check_options(MODELS[kind].options, {**first, name: end})

    @model_serializer(mode="wrap")
    def _without_the_default_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {k: v for k, v in handler(self).items() if (k, v) != ("kind", DEFAULT)}

    @model_validator(mode="after")
    def _possible(self) -> "ModelSpec":
        for value in ends_of(self.dim):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 512:
                raise ValueError(f"dim: must be a whole number from 1 to 512, not {value!r}")
            for kind in self.kinds:
                if not is_own(kind) and value < MODELS[kind].smallest_dim:
                    raise ValueError(dim_fault(kind))
        for field in WIDTHS:
            given = getattr(self, field)
            if isinstance(given, Range):
                raise ValueError(f"{field}: widths are a list: search them as {{choices: [[64], [128, 64]]}}")
            for widths in ends_of(given) if isinstance(given, Choices) else [given]:
                if not isinstance(widths, list) or not all(
                    type(w) is int and 1 <= w <= WIDEST for w in widths
                ):
                    raise ValueError(f"{field}: must be a list of widths such as [128, 64], not {widths!r}")
        return self


def _declared(kind: str) -> Mapping[str, FieldInfo]:
    """The options of a model."""
    return MODELS[kind].options.model_fields


def _kinds(data: Any) -> list[str]:
    """The models that a section names as it is written; none where it names one that there is not."""
    written = data.get("kind", DEFAULT) if isinstance(data, Mapping) else DEFAULT
    if isinstance(written, Choices):
        kinds = written.choices
    else:
        kinds = written.get("choices", []) if isinstance(written, Mapping) else [written]
    known = isinstance(kinds, list) and all(is_own(kind) or kind in MODELS for kind in kinds)
    return list(kinds) if known else []
