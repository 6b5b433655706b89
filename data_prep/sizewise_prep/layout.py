"""Which column of a raw log is what.

    layout = Layout.load(Path("avazu.yaml"))
    layout.dense, layout.tokens             # the names of the shards' columns

Criteo's layout is the default. Any other comes from a small YAML file (docs/data_prep.md shows Avazu's):

    separator: ","
    header: true
    columns: {id: skip, click: label, site_id: hex, app_category: string, C15: integer}
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sizewise_prep.errors import InputError, first_problem

Kind = Literal["label", "integer", "hex", "decimal", "string", "skip"]
TOKEN_KINDS = ("hex", "decimal", "string")


class Layout(BaseModel):
    """The columns of a raw log, in the order of the file.

    Attributes:
        separator: one character between fields; there is no quoting.
        header: whether each file's first line names the columns.
        columns: what each column holds: `label` 0 or 1; `integer` a signed number of 64 bits, which becomes a
            dense column; a token as `hex` (up to 8 digits), `decimal` (up to 4,294,967,295) or free `string`
            (hashed, see `hashing`); or `skip`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    separator: str = "\t"
    header: bool = False
    columns: dict[str, Kind]

    @model_validator(mode="after")
    def _usable(self) -> Layout:
        kinds = list(self.columns.values())
        if len(self.separator) != 1 or self.separator in '-"\0\r\n' or not self.separator.isascii():
            raise ValueError(f"separator {self.separator!r}: give one character, such as a tab or a comma")
        if self.separator.isalnum():
            raise ValueError(f"separator {self.separator!r}: letters and digits stand in the fields")
        if kinds.count("label") != 1:
            raise ValueError(f"{kinds.count('label')} columns are the label; name one")
        if "integer" not in kinds or not self.tokens:
            raise ValueError("name at least one integer column and one token column (hex, decimal, string)")
        return self

    @property
    def dense(self) -> list[str]:
        """The integer columns' names."""
        return [name for name, kind in self.columns.items() if kind == "integer"]

    @property
    def tokens(self) -> list[str]:
        """The token columns' names."""
        return [name for name, kind in self.columns.items() if kind in TOKEN_KINDS]

    def without_header(self, text: bytes, path: str) -> bytes:
        """A file's text behind its first line; InputError where that does not name the columns."""
        first, _, rest = text.partition(b"\n")
        names = first.removesuffix(b"\r").decode("utf-8", "backslashreplace").split(self.separator)
        expected = list(self.columns)
        if names != expected:
            differ = (i for i, pair in enumerate(zip(names, expected, strict=False)) if pair[0] != pair[1])
            at = next(differ, None)
            what = (
                f"has {len(names)} columns instead of {len(expected)}"
                if at is None
                else f"names column {at + 1} {names[at]!r} instead of {expected[at]!r}"
            )
            raise InputError(f"{path}, line 1: {what}; mend the schema file, or say header: false")
        return rest

    @staticmethod
    def load(path: str | Path) -> Layout:
        """Read a schema file. Raises InputError that names the file and the field."""
        # Here, because models and their steps need no YAML: `benchmarks.gpu` runs beside PyTorch without it.
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            return Layout.model_validate(YAML(typ="safe", pure=True).load(Path(path).read_bytes()))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        except YAMLError as error:
            raise InputError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}") from None


CRITEO = Layout(
    columns={"label": "label"}
    | {f"I{column}": "integer" for column in range(1, 14)}
    | {f"C{column}": "hex" for column in range(1, 27)}
)
