"""What a schema file may say of a column besides its kind, and what only the training rows say of it.

Bucket(of="age", quantiles=20), Transform(kind="standardize")
ListForm(separator="|", of="hex")
Fitted(edges={"age": (18.0, 25.0)}, moments={"price": Moments(mean=3.5, deviation=1.25)})
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

_RULE = re.compile(r"label\s*(>=|<=|==|!=|>|<)\s*(\S(?:.*\S)?)\s*")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
DEFAULT_QUANTILES = 10
ANY_LABEL = "label any"
"""The kind of each of several columns, any of which makes a row a click."""
_MOST_BUCKETS = 10_000

Edge = Annotated[FiniteFloat, Field(ge=-3.4e38, le=3.4e38)]


NULLS = (
    *("NULL", "null", "Null", "(null)", "<null>", "nil", r"\N", "None", "none", "undefined"),
    *("nan", "NaN", "NAN", "-nan", "NA", "N/A", "n/a", "#N/A", "<NA>", "?", "-"),
)
"""Texts that stand for a missing value in somebody's files."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bucket(_Frozen):
    """A token column that says in which bucket a number lies.

    Attributes:
        of: the column of numbers.
        quantiles: how many buckets of about equally many training rows, where no edges are given.
        edges: where buckets begin but for the first, ascending; a number that equals an edge is above it.
    """

    of: str
    quantiles: Annotated[int | None, Field(ge=2, le=_MOST_BUCKETS, exclude_if=lambda used: used is None)] = (
        None
    )
    edges: Annotated[
        tuple[Edge, ...] | None,
        Field(min_length=1, max_length=_MOST_BUCKETS, exclude_if=lambda used: used is None),
    ] = None

    @model_validator(mode="after")
    def _one_way(self) -> Bucket:
        if self.quantiles is not None and self.edges is not None:
            raise ValueError("give quantiles or edges, not both")
        if any(low >= high for low, high in pairwise(self.edges or ())):
            raise ValueError("edges must ascend, each more than the one before")
        return self


TransformKind = Literal["log1p", "standardize", "none"]
"""What models take of a dense value x: log(1 + max(x, 0)); x less the mean, divided by the deviation; x itself. It is 0
where x is missing.
"""


class Moments(_Frozen):
    """Mean and standard deviation (divided by the number of values) of a column's values in the training rows."""

    mean: FiniteFloat
    deviation: Annotated[FiniteFloat, Field(gt=0)]


class Fitted(_Frozen):
    """What the training rows say of columns.

    Attributes:
        edges: of buckets by quantiles.
        moments: of dense columns that are standardized. A column of one value has deviation 1.
    """

    edges: dict[str, tuple[FiniteFloat, ...]] = {}
    moments: dict[str, Moments] = {}


ListKind = Literal["token", "string", "hex", "decimal"]
"""The kinds of values that lists can have."""
MOST_SEPARATOR = 10


class ListForm(_Frozen):
    """How the values of a column of lists are written.

    Attributes:
        separator: what stands between the values of a list that is text; None: lists are lists.
        of: the kind of each value.
    """

    separator: Annotated[
        str | None, Field(min_length=1, max_length=MOST_SEPARATOR, exclude_if=lambda used: used is None)
    ] = None
    of: ListKind = "token"


class LabelRule(NamedTuple):
    """What makes a row a click where its column says more than 0 and 1: `label >= 4`.

    Attributes:
        sign: how the value is compared.
        operand: a number, or with == and != any text.
    """

    sign: str
    operand: float | str


def label_rule_of(kind: str) -> LabelRule | None:
    """The rule for the label that a column's kind states, if it does."""
    found = _RULE.fullmatch(kind)
    if not found:
        return None
    sign, operand = found.groups()
    if _NUMBER.fullmatch(operand):
        return LabelRule(sign, float(operand))
    return LabelRule(sign, operand) if sign in ("==", "!=") else None
