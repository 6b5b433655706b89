"""`model`: the network around the embeddings."""

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
from pydantic_core import InitErrorDetails

from sizewise.config.fields import Choices, Range, Searchable, did_you_mean, ends_of, form_of
from sizewise.config.sections.options import check_options, searched
from sizewise.config.sections.section import Section
from sizewise.models import DEFAULT, MODELS
from sizewise_core.errors import shown

WIDEST = 1_000_000  # units of a hidden layer; beyond are slips of the keyboard
WIDTHS = ("bottom_mlp", "top_mlp")


class ModelSpec(Section):
    """The model around the embeddings: DLRM's widths of hidden layers (Naumov et al. 2019), or another's options."""

    model_config = ConfigDict(extra="allow")

    kind: str = DEFAULT
    dim: Searchable[Annotated[int, Field(ge=1, le=512)]] = 16
    bottom_mlp: Searchable[list[Annotated[int, Field(ge=1, le=WIDEST)]]] = [128, 64]
    top_mlp: Searchable[list[Annotated[int, Field(ge=1, le=WIDEST)]]] = [256, 128]

    @property
    def options(self) -> Mapping[str, Any]:
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
            name: searched(value) if name in declared and name not in WIDTHS else value
            for name, value in data.items()
        }
        for name in WIDTHS:
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
        given = {**self.options, **{name: getattr(self, name) for name in WIDTHS if name in declared}}
        fixed = {name: value for name, value in given.items() if form_of(value) == "value"}
        for name, value in given.items():
            for end in ends_of(value):
                check_options(options, {**fixed, name: end})
        if not given:
            check_options(options, {})
        return self

    @model_serializer(mode="wrap")
    def _without_the_default_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {k: v for k, v in handler(self).items() if (k, v) != ("kind", DEFAULT)}

    @model_validator(mode="after")
    def _possible(self) -> "ModelSpec":
        for value in ends_of(self.dim):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 512:
                raise ValueError(f"dim: must be a whole number from 1 to 512, not {value!r}")
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
