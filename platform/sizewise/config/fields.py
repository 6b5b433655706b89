"""How a study file writes values: sizes, ranges, and lists to choose from."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from sizewise_core.units import format_bytes, parse_bytes


class Strict(BaseModel):
    """A frozen record that refuses unknown keys and silent conversions (`"3"` is not 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


T = TypeVar("T")


class Range(Strict):
    """All numbers from `low` to `high`, both included; `log` spreads them evenly over powers."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high}): swap them")
        if self.log and self.low <= 0:
            raise ValueError(
                f"a logarithmic range must start above 0, not at {self.low}: raise low or drop log"
            )
        return self


class Choices(Strict):
    """One of a list of values."""

    choices: list[Any] = Field(min_length=1)


def form_of(value: Any) -> str:
    """Which of the three ways of writing a searchable field this is (pydantic then checks that one alone)."""
    if isinstance(value, Mapping):
        return "choices" if "choices" in value else "range"
    if isinstance(value, Choices):
        return "choices"
    return "range" if isinstance(value, Range | SizeRange) else "value"


COMPRESSION = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*)\s*x\s*")


def parse_size(value: Any) -> int | str:
    """A size as written: bytes (`2000`, `2kB`) become an integer, a compression (`100x`) stays text."""
    if isinstance(value, str) and (found := COMPRESSION.fullmatch(value)):
        if float(found[1].replace(",", "").replace("_", "")) <= 0:
            raise ValueError("a compression must be above 0x")
        return value.strip()
    size = parse_bytes(value)
    if size <= 0:
        raise ValueError("a memory budget must be above 0 bytes")
    return size


Size = Annotated[int | str, BeforeValidator(parse_size)]


def bytes_of(size: int | str, full_bytes: int) -> int:
    """Bytes of a size; `100x` means the full tables' bytes over 100."""
    if isinstance(size, int):
        return size
    found = COMPRESSION.fullmatch(size)
    assert found is not None  # parse_size let nothing else through
    return int(full_bytes / float(found[1].replace(",", "").replace("_", "")))


class SizeRange(Strict):
    """Memory budgets from `low` to `high`, in bytes (`2kB`) or as compression (`10000x`)."""

    low: Size
    high: Size
    log: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> "SizeRange":
        if isinstance(self.low, int) and isinstance(self.high, int) and self.low > self.high:
            raise ValueError(
                f"low ({format_bytes(self.low)}) is above high ({format_bytes(self.high)}): swap them"
            )
        return self


if TYPE_CHECKING:
    # To whoever trains a trial, a setting is the one value that it has there. Whoever reads a study's sections, where
    # it may be a range, asks `StudySpec.searched`, or `ends_of` for its extreme values.
    Searchable = Annotated[T, "or a range, or choices"]
    OneOf = Annotated[T, "or choices"]
    SearchableSize = int
else:
    Searchable = Annotated[
        Annotated[T, Tag("value")] | Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
        Discriminator(form_of),
    ]
    OneOf = Union[T, Choices]  # noqa: UP007  # of a type variable
    SearchableSize = Annotated[
        Annotated[Size, Tag("value")]
        | Annotated[SizeRange, Tag("range")]
        | Annotated[Choices, Tag("choices")],
        Discriminator(form_of),
    ]


def by_default(domain: Range | SizeRange | Choices) -> Any:
    """A setting's default that is not one value: it is searched where a study file says nothing of it."""
    return domain


def is_domain(field: Any) -> bool:
    """Whether a searchable field leaves a choice."""
    return isinstance(field, Range | SizeRange | Choices)


def ends_of(field: Any) -> list[Any]:
    """The extreme values of a searchable field: what has to be possible for every value to be."""
    if isinstance(field, Range | SizeRange):
        return [field.low, field.high]
    return list(field.choices) if isinstance(field, Choices) else [field]


def within(value: Any, domain: Any) -> bool:
    """Whether a value is one of those that a search may give a field."""
    if isinstance(domain, Choices):
        return value in domain.choices
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and domain.low <= value <= domain.high
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` when a known name is near, nothing otherwise."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
