"""Free strings to 32 bits, by a hash that never changes: the first four bytes of a BLAKE2b of that length.

    token("hello") == int.from_bytes(hashlib.blake2b("hello".encode(), digest_size=4).digest(), "little")

with 1 instead of 0, which means a missing token. Two strings share a token with probability 2^-32.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

_SIZE = 4  # bytes


def token(text: str) -> int:
    """The 32-bit token of a string that is not empty; 1 to 4,294,967,295."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_SIZE).digest(), "little") or 1


def tokens(texts: pl.Series) -> pl.Series:
    """The tokens of a column of strings, or of integers and truth values by their text, uint32; null where missing.

    Each distinct value is hashed once.
    """
    distinct = texts.drop_nulls().unique()
    blake, size = hashlib.blake2b, _SIZE
    digests = [blake(text.encode(), digest_size=size).digest() for text in distinct.cast(pl.String).to_list()]
    words = np.frombuffer(b"".join(digests), "<u4")
    hashed = pl.Series(np.where(words == 0, 1, words).astype(np.uint32))
    return texts.replace_strict(distinct, hashed, default=None, return_dtype=pl.UInt32)
