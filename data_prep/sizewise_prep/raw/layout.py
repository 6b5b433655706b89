"""The columns of a raw log.

    layout = Layout.load(Path("avazu.yaml"))
    layout.dense, layout.tokens             # the names of the shards' columns
    layout.read_tokens, layout.crosses      # those that files have, and those that are made of others

Criteo's layout is the default. Any other comes from a small YAML file (docs/data_prep.md shows Avazu's,
docs/your_own_data.md others):

    separator: ","
    header: true
    columns: {id: skip, click: label, site_id: hex, app_category: string, C15: integer}
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sizewise_core.errors import InputError, first_problem
from sizewise_core.files.yaml_files import line_of, load_yaml
from sizewise_prep.raw.options import (
    ANY_LABEL,
    DEFAULT_QUANTILES,
    Bucket,
    Fitted,
    LabelRule,
    ListForm,
    Moments,
    TransformKind,
    label_rule_of,
)
from sizewise_prep.raw.schema_forms import FormError, first_error, no_kind, spread

# fmt: off
Kind = Literal[
    "label", "integer", "number", "hex", "decimal", "string", "token", "tokens",
    "bucket", "weight", "score", "probability", "time", "skip", "split", "order",
]
# fmt: on
_OTHERWISE = ("split", "order")
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind not in _OTHERWISE)
"""Those of a schema file; columns by which rows are split (see `row_splits`) or sorted are named elsewhere."""
_BY_NAME: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
DENSE_KINDS = ("integer", "number")
TOKEN_KINDS = ("hex", "decimal", "string", "token")
SCORES: tuple[Kind, ...] = ("score", "probability")
_OF_TABLES = ("number", "token", "tokens", "weight", *SCORES, "bucket", "split", "order")
"""Kinds that the parser of plain lines does not know."""


class Layout(BaseModel):
    """The columns of a raw log: of text in the order of the file, of tables (see `by_name`) in any.

    Attributes:
        separator: one character between the fields of text.
        header: whether each text file's first line names the columns.
        columns: what each column holds: `label` 0 or 1 (or `label >= 4`, see `LabelRule`; or `label any`, of two
            columns or more, of which any makes a click); `integer` a signed number
            of 64 bits and `number` any real one, which become dense columns; a token as `hex` (up to 8 digits),
            `decimal` (up to 4,294,967,295), free `string` (hashed, see `hashing`) or `token` (a string, an integer
            of 64 bits or a truth value, hashed as its text is); `tokens`, any number of these (a list, or text with
            a separator of its own, see `ListForm`); `bucket`, a real number of which only a token is made; `weight`, a
            real number from 0 on, one column at most, by which rows count; `score` (log-odds) or `probability`, one
            column at most, what another model says of the rows, for models to learn from; `time`, one column at most,
            by which the order of rows is checked, and which is not kept (see `time_order`); or `skip`.
        quotes: whether fields of text may stand in double quotes (RFC 4180), and so hold separators, line breaks and
            doubled quotes.
        others: `skip`: files may have columns that are not named here.
        nulls: texts that stand for a missing value; an empty field always does.
        buckets: further token columns, each of which says in which bucket a number lies; of columns of the kind
            `bucket` their options.
        transforms: what models take of dense columns, where that is not log(1 + max(x, 0)).
        fitted: what the training rows say of columns; absent where the layout is a schema file's.
        crosses: further token columns, each of which stands for the combinations of two or more others (see
            `features`).
        lists: how the values of `tokens` columns are written, where they are not lists of `token`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    separator: str = "\t"
    header: bool = False
    columns: dict[str, str]
    # Left out of manifests where they are not used, which so stay what they were.
    quotes: Annotated[bool, Field(exclude_if=lambda used: not used)] = False
    others: Annotated[Literal["skip"] | None, Field(exclude_if=lambda used: used is None)] = None
    nulls: Annotated[tuple[str, ...], Field(exclude_if=lambda used: not used)] = ()
    buckets: Annotated[dict[str, Bucket], Field(exclude_if=lambda used: not used)] = {}
    crosses: Annotated[dict[str, tuple[str, ...]], Field(exclude_if=lambda used: not used)] = {}
    transforms: Annotated[dict[str, TransformKind], Field(exclude_if=lambda used: not used)] = {}
    fitted: Annotated[Fitted | None, Field(exclude_if=lambda used: used is None)] = None
    lists: Annotated[dict[str, ListForm], Field(exclude_if=lambda used: not used)] = {}

    @model_validator(mode="after")
    def _usable(self) -> Layout:
        for name, kind in self.columns.items():
            if kind not in (*KINDS, ANY_LABEL) and not label_rule_of(kind):
                raise ValueError(f"columns.{name:.40}: {no_kind(kind, KINDS)}")
        kinds = list(self.kinds.values())
        if len(self.separator) != 1 or self.separator in '-"\0\r\n' or not self.separator.isascii():
            raise ValueError(
                f"separator {self.separator[:20]!r}: give one character, such as a tab or a comma"
            )
        if self.separator.isalnum():
            raise ValueError(f"separator {self.separator!r}: letters and digits occur in the fields")
        several = list(self.columns.values()).count(ANY_LABEL)
        if several == 1 or kinds.count("label") != (several or 1):
            fix = "name one, or several with `[like, share]: any`, of which one must be 1"
            raise ValueError(f"{kinds.count('label')} columns are the label; {fix}")
        for what, of in {"weight": ["weight"], "score": SCORES, "time": ["time"]}.items():
            if (count := sum(kind in of for kind in kinds)) > 1:
                raise ValueError(f"{count} columns are the {what}; name one, and `skip` the others")
        if not self.features:
            raise ValueError("name at least one token column (token, hex, decimal, string, tokens)")
        for name, form in self.lists.items():
            if self.columns.get(name) != "tokens":
                raise ValueError(f"lists.{name:.40}: is no column of kind `tokens`")
            if form.separator == self.separator and not self.quotes:
                raise ValueError(f"columns.{name:.40}: has the columns' separator: set `quotes: true`")
        for name, bucket in self.buckets.items():
            if wrong := self._no_bucket(name, bucket):
                raise ValueError(f"buckets.{name:.40}: {wrong}")
        for name in self.transforms:
            if name not in self.dense:
                raise ValueError(f"transforms.{name:.40}: is no `number` or `integer` column")
        if self.fitted and not self.is_fitted_by(self.fitted):
            raise ValueError("fitted: is not of these columns")
        for name, parts in self.crosses.items():
            if wrong := self._no_cross(name, parts):
                raise ValueError(f"crosses.{name:.40}: {wrong}")
        return self

    def _no_bucket(self, name: str, bucket: Bucket) -> str:
        """Why there can be no such bucket; empty where there can."""
        if name in self.columns and (self.columns[name] != "bucket" or bucket.of != name):
            return f"a column has that name: write `{name:.40}: bucket`, or give the bucket another"
        if bucket.of not in self.numbers:
            return f"of: {bucket.of:.40} is no column of numbers (number, integer, bucket)"
        return ""

    def _no_cross(self, name: str, parts: tuple[str, ...]) -> str:
        """Why no column of that name can be made of these; empty where one can."""
        if name in self.columns or name in self.buckets:
            return "a column has that name: give the cross another"
        if len(parts) < 2 or len(set(parts)) < len(parts):
            return "name two or more different columns"
        tokens = [*self.read_tokens, *self.bucketed]
        for part in parts:
            if part not in tokens:
                near = difflib.get_close_matches(part, tokens, 1)
                maybe = f" (did you mean {near[0]:.40}?)" if near else ""
                is_ = f"is a `{self.columns[part]:.20}`" if part in self.columns else "is no column"
                return f"{part:.40} {is_}{maybe}; name token columns (token, hex, decimal, string, bucket)"
        return ""

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each column, a rule for the label aside."""
        return {name: _BY_NAME.get(kind, "label") for name, kind in self.columns.items()}

    @property
    def label(self) -> str | None:
        """The label's column; None in files that are only to be scored."""
        return next((name for name, kind in self.kinds.items() if kind == "label"), None)

    @property
    def labels(self) -> list[str]:
        """The label's columns: a row is a click where any of them says so."""
        return self._of("label")

    @property
    def label_rule(self) -> LabelRule | None:
        """What makes a row a click, where that is more than a 1."""
        return label_rule_of(self.columns[self.label]) if self.label is not None else None

    @property
    def time(self) -> str | None:
        """The column that is declared as the time, if any."""
        return next((name for name, kind in self.kinds.items() if kind in ("time", "order")), None)

    @property
    def is_plain(self) -> bool:
        """Whether lines of text in this layout are separated fields without quotes, of kinds that need no table."""
        more = self.quotes or self.others or self.nulls or self.label_rule or len(self.labels) != 1
        return not more and not any(kind in _OF_TABLES for kind in self.kinds.values())

    @property
    def dense(self) -> list[str]:
        """The names of the columns of numbers."""
        return [name for name, kind in self.kinds.items() if kind in DENSE_KINDS]

    @property
    def read_tokens(self) -> list[str]:
        """The names of the token columns that files have."""
        return [name for name, kind in self.kinds.items() if kind in TOKEN_KINDS]

    @property
    def tokens(self) -> list[str]:
        """The names of the shards' token columns: those that files have, and then those that are made of others."""
        return [*self.read_tokens, *self.bucketed, *self.crosses]

    @property
    def bucketed(self) -> dict[str, Bucket]:
        """The token columns that are made of numbers."""
        alone = [name for name, kind in self.kinds.items() if kind == "bucket"]
        return {name: Bucket(of=name) for name in alone} | self.buckets

    @property
    def numbers(self) -> list[str]:
        """The files' columns of numbers: the dense ones, those of which tokens are made, the weight, the score."""
        return [*self.dense, *self._of("bucket"), *self._of("weight"), *self._of(*SCORES)]

    def _of(self, *kinds: Kind) -> list[str]:
        return [name for name, found in self.kinds.items() if found in kinds]

    @property
    def weight(self) -> str | None:
        """The column that says how much each row counts, if any."""
        return next(iter(self._of("weight")), None)

    @property
    def score(self) -> str | None:
        """The column that says what another model makes of each row, if any."""
        return next(iter(self._of(*SCORES)), None)

    @property
    def to_fit(self) -> tuple[dict[str, int], list[str]]:
        """What only the training rows can say: buckets by so many quantiles, and dense columns to be standardized."""
        buckets = {
            name: bucket.quantiles or DEFAULT_QUANTILES
            for name, bucket in self.bucketed.items()
            if bucket.edges is None
        }
        return buckets, [name for name in self.dense if self.transforms.get(name) == "standardize"]

    def edges(self, name: str) -> tuple[float, ...]:
        """Where a column's buckets begin, but for the first; the layout must be a fitted one where rows decide."""
        given = self.bucketed[name].edges
        if given is None:
            assert self.fitted is not None
            return self.fitted.edges[name]
        return given

    def moments(self, name: str) -> Moments:
        """Of a dense column what is to be subtracted and by what to divide; the layout must be a fitted one."""
        if self.transforms.get(name) != "standardize":
            return Moments(mean=0, deviation=1)
        assert self.fitted is not None
        return self.fitted.moments[name]

    @property
    def token_lists(self) -> list[str]:
        """The names of the columns that hold several tokens a row."""
        return [name for name, kind in self.kinds.items() if kind == "tokens"]

    @property
    def features(self) -> list[str]:
        """The names of all features that models have embeddings of: token columns, then columns of lists."""
        return [*self.tokens, *self.token_lists]

    def list_form(self, name: str) -> ListForm:
        """How the values of a column of lists are written."""
        return self.lists.get(name, ListForm())

    @property
    def shape(self) -> str:
        """The fields of a line, in words."""
        numbers = "numbers" if "number" in self.kinds.values() else "integers"
        lists = f", {len(self.token_lists)} lists" if self.token_lists else ""
        return f"label, {len(self.dense)} {numbers}, {len(self.tokens)} tokens{lists}"

    def header_fault(self, line: bytes) -> str:
        """What is wrong with a file's first line (without its ending) as a header; empty where nothing is."""
        names = line.decode("utf-8", "backslashreplace").split(self.separator)
        expected = list(self.columns)
        if names == expected:
            return ""
        differ = (i for i, pair in enumerate(zip(names, expected, strict=False)) if pair[0] != pair[1])
        at = next(differ, None)
        if at is None:
            return f"has {len(names):,} columns instead of {len(expected):,}"
        return (
            f"names column {at + 1} {quoted(names[at].encode())} instead of {quoted(expected[at].encode())}"
        )

    def without(self, names: Collection[str]) -> Layout:
        """The layout of files that lack some columns, which no model needs: the label, the time."""
        return self.model_copy(
            update={"columns": {name: kind for name, kind in self.columns.items() if name not in names}}
        )

    def sorted_by_time(self) -> Layout:
        """The layout whose time every row must have, so that rows can be sorted by it.

        Raises InputError where no column is the time.
        """
        if self.time is None:
            raise InputError(
                "--sort: needs a column that holds the time: make one `time` in a schema file (--schema)"
            )
        return self.model_copy(update={"columns": {**self.columns, self.time: "order"}})

    def is_fitted_by(self, fitted: Fitted | None) -> bool:
        """Whether that says what only the training rows can say of the columns, and nothing else."""
        buckets, standardized = self.to_fit
        found = fitted or Fitted()
        return set(found.edges) == set(buckets) and set(found.moments) == set(standardized)

    def with_fitted(self, fitted: Fitted | None) -> Layout:
        """The layout with what the training rows say of its columns."""
        return self if fitted is None else self.model_copy(update={"fitted": fitted})

    @staticmethod
    def load(path: str | Path) -> Layout:
        """Read a schema file. Raises InputError that names the file, the line and the field."""
        document = load_yaml(Path(path))
        if not isinstance(document, dict) or "columns" not in document:
            raise InputError(
                f"{path}: a schema file is a mapping with `columns:`, one `name: kind` a line; this one is not"
            )
        try:
            plain = spread(document)
            known = [field for field in Layout.model_fields if field != "fitted"]
            found = first_error(plain, known, KINDS)
        except FormError as error:
            found = error.steps, error.what
        if found is not None:
            steps, what = found
            field = ".".join(f"{step}"[:40] for step in steps)
            raise InputError(f"{path}{line_of(document, steps)}: {field}: {what}")
        try:
            return Layout.model_validate(_plain(plain))
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}") from None


def quoted(field: bytes, most: int = 40) -> str:
    """A field as a message quotes it: shortened, and only described where it is not text."""
    try:
        text = field[: most + 3].decode("utf-8", "strict" if len(field) <= most + 3 else "ignore")
    except UnicodeDecodeError:
        return f"({len(field):,} bytes that are not text)"
    if not text.isprintable():
        return f"({len(field):,} bytes that are not text)"
    return repr(text[:most] + ("..." if len(text) > most else ""))


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """The same as plain dictionaries, which do not remember lines."""
    plain = {"separator": str(document.get("separator", "\t")), "columns": {**document["columns"]}}
    return {**document, **plain, "nulls": tuple(document.get("nulls", ()))}


CRITEO = Layout(
    columns={"label": "label"}
    | {f"I{column}": "integer" for column in range(1, 14)}
    | {f"C{column}": "hex" for column in range(1, 27)}
)
