"""Logs as NumPy arrays, in the layouts in which programs of this trade leave them (`--format`).

    found = resolve(["day_*_labels.npy"], "torchrec")       # a RawFile for each day, of three files
    layout_of(found[0])                                      # label, I1 to I13, C1 to C26

`torchrec`: for each day `day_0_labels.npy`, `day_0_dense.npy` (already logarithms) and `day_0_sparse.npy`, or MLPerf's
`day_0_sparse_multi_hot.npz`, whose member `0` has the values of the first token column, (rows, values) each. `dlrm`: an
.npz file with `X_int`, `X_cat` and `y`, such as kaggleAdDisplayChallenge_processed.npz. Rows that are only to be scored
may lack the labels.

The members of an .npz file are read side by side from their starts, a few rows at a time, and so take no memory and no
disk, however large they are unpacked. Only an array that is stored column by column is unpacked to a temporary file,
where there is room for it.
"""

from __future__ import annotations

import ast
import io
import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, Protocol, cast, get_args

import numpy as np
import numpy.typing as npt

from sizewise_core.errors import InputError
from sizewise_core.stores import storage
from sizewise_core.stores.storage import place
from sizewise_prep.raw.files.sources import RawFile, found_file, resolve_paths
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.options import ListForm

ArrayFormat = Literal["torchrec", "dlrm"]
FORMATS: tuple[str, ...] = get_args(ArrayFormat)
_LABELS, _DENSE, _SPARSE, _MULTI_HOT = "_labels.npy", "_dense.npy", "_sparse.npy", "_sparse_multi_hot.npz"
_HEADER_BYTES = 10_000
_PREFIX = 10  # bytes of a file before its header: magic, version, and the header's length
_MOST_COLUMNS = 100_000  # numbers a row
_MEMBER = re.compile(r"y|X_int|X_cat|[0-9]{1,4}")
_BUFFER_BYTES, _BUFFERS_BYTES = 256 << 10, 64 << 20  # of a member of an .npz file, and of all together
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # encrypted
    NotImplementedError,  # packed in a way that this Python does not know
)


class _Stream(Protocol):
    """What is read of a file."""

    def seek(self, at: int, /) -> int: ...

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Array:
    """An array in a file: numbers of one type, in rows.

    Attributes:
        kind, shape: of its values.
        by_column: whether a column's values follow one another, rather than a row's.
        offset: where they begin in `stream`.
        stream: of the file, or of a member of an .npz file.
        name: of it, for messages.
    """

    kind: np.dtype[Any]
    shape: tuple[int, ...]
    by_column: bool
    offset: int
    stream: _Stream
    name: str

    @property
    def columns(self) -> int:
        """Numbers a row."""
        return self.shape[1] if len(self.shape) > 1 else 1

    @property
    def end(self) -> int:
        """Where the values end in `stream`."""
        return self.offset + self.shape[0] * self.columns * self.kind.itemsize

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows `start` to `stop`, (rows, columns). Raises InputError where the file ends too early."""
        count = stop - start
        if not self.by_column or not count:
            return self._read(start * self.columns, count * self.columns).reshape(count, self.columns)
        columns = [self._read(column * self.shape[0] + start, count) for column in range(self.columns)]
        return np.stack(columns, axis=1)

    def _read(self, first: int, count: int) -> npt.NDArray[Any]:
        """Values, in this machine's byte order, and of a type that tables have."""
        data = b""
        if count:
            try:
                self.stream.seek(self.offset + first * self.kind.itemsize)
                data = self.stream.read(count * self.kind.itemsize)
            except _DAMAGED as error:
                raise InputError(_unpackable(self.name, error)) from None
        if len(data) < count * self.kind.itemsize:
            raise InputError(f"{self.name:.150}: ends too early; fetch or write it again")
        values = np.frombuffer(data, self.kind)
        narrow = self.kind.kind == "f" and self.kind.itemsize == 2
        return values.astype(np.float32 if narrow else self.kind.newbyteorder("="), copy=False)


class _Unpacked:
    """A member of an .npz file that is read in another order than its own: from a temporary file, made when it is."""

    def __init__(self, stack: ExitStack, packed: BinaryIO, size: int, name: str) -> None:
        self._stack, self._packed, self._size, self._name = stack, packed, size, name
        self._copy: IO[bytes] | None = None

    def seek(self, at: int, /) -> int:
        return self._file().seek(at)

    def read(self, size: int, /) -> bytes:
        return self._file().read(size)

    def _file(self) -> IO[bytes]:
        if self._copy is None:
            folder = tempfile.gettempdir()
            if (free := shutil.disk_usage(folder).free) < self._size:
                raise InputError(
                    f"{self._name:.120}: is stored column by column and takes {self._size:,} bytes unpacked, of which "
                    f"{folder} has {free:,}: set TMPDIR to a folder with more room"
                )
            self._copy = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            self._packed.seek(0)
            shutil.copyfileobj(self._packed, self._copy, 1 << 20)
        return self._copy


def resolve(sources: str | Path | Sequence[str | Path], form: str, labels: bool = True) -> list[RawFile]:
    """The logs that `sources` name, in the order given; folders stand for the files of the format in them.

    Args:
        sources: paths, URIs or patterns, or a single one.
        form: one of `FORMATS`.
        labels: whether a day needs its file of labels.

    Raises:
        InputError: there are none, or one of a day's files is absent.
    """
    if form not in FORMATS:
        known = ", ".join((*FORMATS, "libsvm", "libffm"))
        raise InputError(f"--format {form:.40}: is none of {known}; other formats need no --format")
    listed = [str(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]
    paths = resolve_paths([f"{one}/*" if storage.is_folder(place(one)) else one for one in listed])
    if form == "dlrm":
        return [replace(found_file(path), format="dlrm") for path in paths if path.endswith(".npz")] or _none(
            form
        )
    stems: dict[str, set[str]] = {}
    for path in paths:
        for ending in (_LABELS, _DENSE, _MULTI_HOT, _SPARSE):
            if path.endswith(ending):
                stems.setdefault(path.removesuffix(ending), set()).add(ending)
    return [_day(stem, named, labels) for stem, named in stems.items()] or _none(form)


def _none(form: str) -> list[RawFile]:
    what = "an .npz file" if form == "dlrm" else f"files such as day_0{_LABELS}"
    raise InputError(f"--format {form}: none of these files is one of it: give {what}, or a folder with them")


def _day(stem: str, named: set[str], labels: bool) -> RawFile:
    """The log of one day, of its three files; of two where it need not have labels and has none."""
    sparse = _SPARSE
    if (_MULTI_HOT in named and _SPARSE not in named) or not storage.exists(place(stem + _SPARSE)):
        sparse = _MULTI_HOT
    has_labels = labels or storage.exists(place(stem + _LABELS))
    endings = [*([_LABELS] if has_labels else []), _DENSE, sparse]
    files = [found_file(stem + ending) for ending in endings]
    return RawFile(
        files[0].path,
        sum(file.bytes for file in files),
        " ".join(file.mark for file in files),
        compressed=False,
        format="torchrec",
        parts=tuple(files),
    )


@contextmanager
def opened(raw: RawFile) -> Iterator[dict[str, Array]]:
    """The arrays of a log by what they hold: `label`, `dense` and `ids`, or of lists `0` and on.

    Raises InputError where a file is damaged, or not of the format.
    """
    with ExitStack() as stack:
        found: dict[str, Array] = {}
        for part in raw.parts or (raw,):
            stream = stack.enter_context(part.open())
            if part.path.endswith(".npz"):
                found |= _members(stack, stream, part.path)
            else:
                known = {_LABELS: "label", _DENSE: "dense"}
                name = next((name for ending, name in known.items() if part.path.endswith(ending)), "ids")
                found[name] = _array(stream, part.path)
        if raw.format == "dlrm":
            names = {"y": "label", "X_int": "dense", "X_cat": "ids"}
            if absent := [name for name in ("X_int", "X_cat") if name not in found]:
                raise InputError(
                    f"{raw.path:.150}: has no array {absent[0]}; is it a file that DLRM processed?"
                )
            found = {name: found[member] for member, name in names.items() if member in found}
        elif "ids" not in found and (number := _absent_list(found)) is not None:
            raise InputError(
                f"{raw.parts[-1].path:.150}: has no array {number}; those of a multi-hot day are named 0, 1 and on"
            )
        rows = {array.shape[0] for array in found.values()}
        if len(rows) != 1:
            raise InputError(
                f"{raw.path:.150}: the arrays of the log have different numbers of rows; write them again"
            )
        yield found


def _absent_list(found: Mapping[str, Array]) -> int | None:
    """The first number that no array has, where arrays have a higher one, or there is none at all."""
    numbers = {int(name) for name in found if name.isdecimal()}
    absent = next(number for number in range(len(numbers) + 1) if number not in numbers)
    return absent if absent < max(len(numbers), 1) else None


def _members(stack: ExitStack, stream: BinaryIO, path: str) -> dict[str, Array]:
    """The arrays of an .npz file, each read by a stream of its own."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(stream))
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        members = {name: member for name, member in members.items() if _MEMBER.fullmatch(name)}
        buffer = min(_BUFFER_BYTES, _BUFFERS_BYTES // max(1, len(members)))
        found = {}
        for name, member in members.items():
            unpacked = cast(io.RawIOBase, archive.open(member))
            packed = stack.enter_context(io.BufferedReader(unpacked, buffer))
            array = _array(packed, f"{path} ({member.filename})")
            if array.end > member.file_size:
                raise InputError(f"{array.name:.150}: ends too early; fetch or write it again")
            if array.by_column:
                array = replace(array, stream=_Unpacked(stack, packed, member.file_size, array.name))
            found[name] = array
        return dict(sorted(found.items(), key=lambda one: (one[0].zfill(4), one[0])))
    except _DAMAGED as error:
        raise InputError(_unpackable(path, error)) from None


def _unpackable(name: str, error: Exception) -> str:
    return f"{name:.150}: cannot be unpacked ({str(error)[:60]}); fetch or write it again"


def _array(stream: BinaryIO, name: str) -> Array:
    """The array that a stream holds in NumPy's format, of which only numbers are read."""
    start = stream.read(_PREFIX + 2)
    wide = start[6:7] != b"\x01"
    size = int.from_bytes(start[8 : 12 if wide else 10], "little")
    offset = (12 if wide else 10) + size
    try:
        if start[:6] != b"\x93NUMPY" or size > _HEADER_BYTES:
            raise ValueError
        stream.seek(offset - size, io.SEEK_SET)
        header = ast.literal_eval(stream.read(size).decode("latin1"))
        kind, shape = np.dtype(header["descr"]), tuple(int(length) for length in header["shape"])
        if kind.kind not in "biuf" or kind.itemsize > 8 or not shape or len(shape) > 2 or min(shape) < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise InputError(
            f"{name:.150}: is no NumPy array of numbers in rows; fetch or write it again"
        ) from None
    if len(shape) > 1 and shape[1] > _MOST_COLUMNS:
        raise InputError(
            f"{name:.150}: has {shape[1]:,} numbers a row, more than {_MOST_COLUMNS:,}; fetch it again"
        )
    return Array(kind, shape, bool(header["fortran_order"]) and len(shape) > 1, offset, stream, name)


def layout_of(raw: RawFile) -> Layout:
    """The columns of a log: `label`, dense I1 and on, tokens C1 and on; those with several values a row are lists."""
    with opened(raw) as found:
        dense = {f"I{place}": "number" for place in range(1, found["dense"].columns + 1)}
        columns = {"label": "label", **dense}
        lists = {}
        for name, (_, width) in token_columns(found).items():
            columns[name] = "decimal" if width is None else "tokens"
            if width is not None:
                lists[name] = ListForm(of="decimal")
    transforms = dict.fromkeys(dense, "none") if raw.format == "torchrec" else {}
    return Layout.model_validate({"columns": columns, "lists": lists, "transforms": transforms})


def token_columns(found: dict[str, Array]) -> dict[str, tuple[str, int | None]]:
    """Of each token column its array, and how many values a row has; None where it is one."""
    if "ids" in found:
        return {f"C{place}": ("ids", None) for place in range(1, found["ids"].columns + 1)}
    names = [name for name in found if name.isdigit()]
    return {
        f"C{int(name) + 1}": (name, found[name].columns if found[name].columns > 1 else None)
        for name in names
    }
