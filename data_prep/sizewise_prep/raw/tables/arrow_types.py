"""What Arrow says of a table's columns, before any row is read.

check(raw, schema, layout, True)           # InputError: a column is absent, or of a type that its kind cannot be
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pyarrow as pa

from sizewise_core.errors import InputError
from sizewise_prep.raw.columns.kinds import unusable
from sizewise_prep.raw.columns.usual_types import is_readable, polars_type
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import CRITEO, Layout, quoted

FORMATS = {
    "torchrec": "a log of arrays",
    "dlrm": "a file of arrays",
    "parquet": "a Parquet file",
    "arrow": "an Arrow file",
    "arrow stream": "an Arrow stream",
}


def check(
    raw: RawFile, schema: pa.Schema, layout: Layout, by_schema: bool, elsewhere: Collection[str] = ()
) -> None:
    """Raise InputError where a file's columns are not the layout's, or not of its kinds.

    Args:
        raw: the file.
        schema: that Arrow finds in it.
        layout: its columns.
        by_schema: whether to advise a schema file.
        elsewhere: the columns of the log's other files.
    """
    check_names(raw.path, schema.names, layout, FORMATS[raw.format], by_schema, elsewhere=elsewhere)
    for name, kind in layout.kinds.items():
        if kind == "skip":
            continue
        found = schema.field(name).type
        if is_readable(found):
            wrong = unusable(kind, polars_type(found), layout.list_form(name))
        else:
            what = str(found).removeprefix("large_")
            wrong = f"holds {what:.30}, of which no column can be made: make it `skip`"
        if wrong:
            raise InputError(f"{raw.path}: column {name:.40} {wrong} in the schema file")


def check_names(
    path: str,
    names: list[str],
    layout: Layout,
    what: str,
    by_schema: bool,
    position: str = "",
    elsewhere: Collection[str] = (),
) -> None:
    """Raise InputError where a file's names are not the layout's, in any order.

    Args:
        path: of the file.
        names: of its columns.
        layout: what they should be.
        what: the file is.
        by_schema: whether to advise a schema file.
        position: of the names in the file, such as ", line 1".
        elsewhere: the columns of the log's other files.
    """
    there, wanted = set(names), layout.columns
    absent = [name for name, kind in layout.kinds.items() if name not in there and kind != "skip"]
    run = f"run `sizewise schema {path.rsplit('/', 1)[-1]:.60}` for a schema file (--schema)"
    if absent and layout == CRITEO and by_schema:
        raise InputError(
            f"{path:.120}: is {what}, and not in Criteo's layout (it has no column {absent[0]}): {run}"
        )
    if absent:
        is_ = "" if position else f"is {what} and "
        fix = (
            "name the columns as the file does in the schema file"
            if by_schema
            else "rename the file's columns"
        )
        if absent[0] in elsewhere:
            fix = "other files have it: write it there too, with missing values, or leave the file out"
        some = ", ".join(quoted(name.encode(), 20) for name in names[:4]) + (
            ", ..." if len(names) > 4 else ""
        )
        raise InputError(
            f"{path:.120}{position}: {is_}has no column {quoted(absent[0].encode())}; it has {some}: {fix}"
        )
    twice = [name for name, count in Counter(names).items() if count > 1 and name in wanted]
    if twice:
        raise InputError(f"{path:.120}{position}: has two columns {quoted(twice[0].encode())}: rename one")
    more = [name for name in names if name not in wanted]
    if more and not layout.others:
        raise InputError(unnamed(path, more[0], position, by_schema))


def unnamed(path: str, name: str, position: str, by_schema: bool) -> str:
    """The message about a column that the schema does not name.

    Args:
        path: of the file.
        name: of the column.
        position: in the file, such as ", line 1".
        by_schema: whether to advise a schema file.
    """
    fix = "write `others: skip` in the schema file, or name it there" if by_schema else "remove it"
    shown = quoted(name.encode("utf-8", "replace"))
    return f"{path:.120}{position}: has a column {shown} that the schema does not name: {fix}"


def reason_of(error: Exception) -> str:
    """What Arrow says of a damaged file, short and printable."""
    words = "".join(c if c.isprintable() else " " for c in str(error)).split()
    return " ".join(words)[:80]
