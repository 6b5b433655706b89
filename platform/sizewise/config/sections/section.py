"""What the sections have in common that make up a trial: each field is a setting, which a study may search.

    class TrainSpec(Section):
        warmup: Searchable[Annotated[int, Field(ge=0)]] = 0

That line alone lets a study file give `warmup` a value, a range or choices, `--set` change it and the sampler search
it; it is in the trial's configuration (`config.train.warmup`), its digest, its record in the ledger and its row in the
table of trials.
"""

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from sizewise.config.fields import Choices, Range, SizeRange, Strict, ends_of, is_domain
from sizewise_core.errors import shown

MOST = 2**63
"""Numbers of settings are below it: tables and JSON hold no others."""
_DOMAINS = (Range, SizeRange, Choices)


class Setting(NamedTuple):
    """One field of a section, as a trial has it: a single value."""

    value: TypeAdapter[Any]
    """Reads a value that is no range and no choices; such as 1 for a field of floats as 1.0."""

    whole: bool
    """Whether a range between whole numbers holds whole numbers only."""

    default: Any


class Section(Strict):
    """A section whose fields are settings of trials.

    In a study's file a field may be a range or choices; in a trial's configuration each has one value.
    """

    @classmethod
    def settings(cls) -> Mapping[str, Setting]:
        """The fields by name, in order."""
        return _settings(cls)

    @classmethod
    def written_as(cls, field: str) -> str:
        """The key of the study file, dotted, by which the section has a setting."""
        return field


@cache
def _settings(section: type[Section]) -> dict[str, Setting]:
    found = {}
    for name, field in section.model_fields.items():
        value = _value_type(field.annotation)
        whole = float not in _parts(value)
        found[name] = Setting(TypeAdapter(value), whole, field.get_default(call_default_factory=True))
    return found


def _value_type(annotation: Any) -> Any:
    """The type of a field without its ranges and choices."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    values = [kind for kind in get_args(annotation) if not _parts(kind) & set(_DOMAINS)]
    return Union[tuple(values)]  # noqa: UP007  # of a list


def _parts(annotation: Any) -> set[Any]:
    """The types that a type is made of, itself among them."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {part for kind in get_args(annotation) for part in _parts(kind)}
    return {annotation}


def check_ends(name: str, section: Section) -> None:
    """Make sure that every value that a study may choose for a setting is one that it can have.

    Raises:
        ValueError: it cannot; the message names the field, in the section of that name.
    """
    options = section.model_extra or {}
    for field, domain in ({name: getattr(section, name) for name in section.settings()} | options).items():
        for value in ends_of(domain):
            if isinstance(value, int | float) and not -MOST <= value < MOST:
                raise ValueError(
                    f"{name}.{section.written_as(field)}: {shown(str(value), 30)} is more than tables of trials can "
                    "hold: give a smaller number"
                )
    for field, setting in section.settings().items():
        domain = getattr(section, field)
        for value in ends_of(domain) if is_domain(domain) else ():
            try:
                setting.value.validate_python(value, strict=True)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(
                    f"{name}.{section.written_as(field)}: {message[0].lower()}{message[1:]}, not {value!r}"
                ) from None
