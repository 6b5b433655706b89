"""Free strings to 32 bits, by a hash that never changes: the first four bytes of a BLAKE2b of that length.

    token("hello") == int.from_bytes(hashlib.blake2b("hello".encode(), digest_size=4).digest(), "little")

with 1 instead of 0, which means a missing token. Two strings share a token with probability 2^-32.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import polars as pl

_SIZE = 4  # bytes
STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def token(text: str) -> int:
    """The 32-bit token of a string that is not empty; 1 to 4,294,967,295."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_SIZE).digest(), "little") or 1


def mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The last step of splitmix64 (Steele et al., 2014), in place: each bit depends on all of the word."""
    words ^= words >> _SHIFTS[0]
    words *= _FACTORS[0]
    words ^= words >> _SHIFTS[1]
    words *= _FACTORS[1]
    words ^= words >> _SHIFTS[2]
    return words


def tokens(texts: pl.Series) -> pl.Series:
    """The tokens of a column of strings, or of integers and truth values by their text, uint32; null where missing.

    Each distinct value is hashed once.
    """
    import polars as pl  # here, because training on shards must not need Polars

    distinct = texts.drop_nulls().unique()
    blake, size = hashlib.blake2b, _SIZE
    digests = [blake(text.encode(), digest_size=size).digest() for text in distinct.cast(pl.String).to_list()]
    words = np.frombuffer(b"".join(digests), "<u4")
    hashed = pl.Series(np.where(words == 0, 1, words).astype(np.uint32))
    return texts.replace_strict(distinct, hashed, default=None, return_dtype=pl.UInt32)
