"""Columns of Arrow in the few types that `converter` knows, of all that files may have.

usual(column)                              # a dictionary, run ends, a view, an extension, ...: as plain values
frame(batch)                               # a record batch as a Polars data frame
is_readable(kind)                          # whether there is such a form of a type

What Polars does not take is changed here, or named, before Polars sees it.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

_MOST_DIGITS = 38  # of decimals in Polars
_TEXTS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def is_readable(kind: pa.DataType) -> bool:
    """Whether columns of a type hold single values, or lists of them, of which `converter` knows a form."""
    kind = stored_values(kind)
    if _is_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_run_end_encoded(kind.value_type):
            return False  # Arrow takes none out of lists
        kind = stored_values(kind.value_type)
    return not (pa.types.is_nested(kind) or pa.types.is_interval(kind))


def polars_type(kind: pa.DataType) -> pl.DataType:
    """What Polars has for a readable type."""
    return frame(empty_batch(pa.schema([("values", kind)]))).schema["values"]


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A record batch of no rows."""
    return pa.RecordBatch.from_arrays([_empty(field.type) for field in schema], names=schema.names)


def checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, once nothing in it points out of its buffers; Arrow does not look at that when it reads a file.

    Raises pyarrow.ArrowInvalid.
    """
    batch.validate(full=True)
    return batch


def frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """A record batch of readable columns in types that `converter` knows."""
    columns = [_decoded(usual(column)) for column in batch.columns]
    made = pl.from_arrow(pa.table(columns, names=batch.schema.names))
    assert isinstance(made, pl.DataFrame)
    made.columns = batch.schema.names  # Polars has another name for an empty one
    return made


def usual_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A record batch of readable columns, each `usual`: Arrow joins batches of no other type."""
    return pa.RecordBatch.from_arrays([usual(column) for column in batch.columns], names=batch.schema.names)


def usual(column: pa.Array) -> pa.Array:
    """A readable column in a type that `converter` knows; a dictionary only where it is one of texts or integers."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        truth = isinstance(kind, pa.Bool8Type)
        return column.storage.cast(pa.bool_()) if truth else usual(column.storage)
    if pa.types.is_run_end_encoded(kind):
        return usual(pc.run_end_decode(column))
    if pa.types.is_dictionary(kind):
        values = usual(column.dictionary)
        if values.type in (pa.string(), pa.large_string()) or pa.types.is_integer(values.type):
            kept = values.type == kind.value_type
            return column if kept else pa.DictionaryArray.from_arrays(column.indices, values)
        return values.take(column.indices)
    if kind in _TEXTS:
        return column.cast(_TEXTS[kind])
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_decimal256(kind):
        return _decimal(column)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.view(pa.timestamp(kind.unit))  # in UTC, as it is counted
    if _is_list(kind) or pa.types.is_fixed_size_list(kind):
        as_it_is = _decoded(usual(_empty(kind.value_type))).type == kind.value_type
        return column if as_it_is and not _is_view(kind) else _listed(column)
    return column


def stored_values(kind: pa.DataType) -> pa.DataType:
    """The type of the values of one that only stores them in another way."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def _empty(kind: pa.DataType) -> pa.Array:
    """A column of no values, of lists as long ones; Arrow itself makes none of some types."""
    if _is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.LargeListArray.from_arrays(pa.array([0], pa.int64()), _empty(kind.value_type))
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.array([], kind.index_type), _empty(kind.value_type))
    return pa.schema([("values", kind)]).empty_table().column("values").combine_chunks()


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_view(kind))


def _listed(column: pa.Array) -> pa.Array:
    """A column of lists with usual values; Arrow's own cast of list views leaves the last offset out."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = _decoded(usual(column.flatten()))
    return pa.LargeListArray.from_arrays(offsets, values, mask=column.is_null())


def _decoded(column: pa.Array) -> pa.Array:
    """The values of a dictionary, also of types of which Arrow itself decodes none."""
    return column.dictionary.take(column.indices) if pa.types.is_dictionary(column.type) else column


def _decimal(column: pa.Array) -> pa.Array:
    """Decimals of up to 38 digits; of more as their texts."""
    if column.type.precision <= _MOST_DIGITS:
        return column.cast(pa.decimal128(_MOST_DIGITS, column.type.scale))
    return pc.replace_substring_regex(column.cast(pa.large_string()), r"\.0*$", "")
