"""Rows as Criteo's text: label, integers, tokens of eight hex digits; tab-separated; empty where missing; one
row a line.

Every row is laid out at full width in a matrix of bytes, with a mask of those that count; one selection then
writes the chunk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sizewise_prep.planted.randomness import key

_DIGITS = 7  # integers are between -4 and 9,999,999
_SLOT = _DIGITS + 2  # sign, digits, tab
_TAB, _NEWLINE, _MINUS, _ZERO = b"\t\n-0"
_HEX4 = np.frombuffer(b"".join(b"%04x" % value for value in range(1 << 16)), np.uint8).reshape(-1, 4)


def token_key(seed: int, *parts: int, values: int) -> int:
    """What is added to the ranks of a column of so many values: `parts` name it (see `tokens`)."""
    return 1 + int(key(seed, *parts)) % ((1 << 32) - 1 - values)


def tokens(ranks: npt.NDArray[np.int64], keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The 32-bit token of each value: a bijection within a column (no collisions), 0 only where missing.

    Args:
        ranks: (columns, rows), from 1 for the most frequent value on; 0 = missing.
        keys: (columns,), added to a column's ranks, so that columns have different tokens; rank + key must stay below
            2^32.

    Returns:
        (columns, rows), MurmurHash3's 32-bit finaliser (Appleby, public domain) of rank + key.
    """
    words = ranks.astype(np.uint32) + keys[:, None]
    words ^= words >> np.uint32(16)
    words *= np.uint32(0x85EBCA6B)
    words ^= words >> np.uint32(13)
    words *= np.uint32(0xC2B2AE35)
    words ^= words >> np.uint32(16)
    words[ranks == 0] = 0
    return words


def digits(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """The eight hexadecimal digits of each word, (words, 8) characters."""
    return np.concatenate([_HEX4[words >> np.uint32(16)], _HEX4[words & np.uint32(0xFFFF)]], axis=1)


def encode(
    labels: npt.NDArray[np.uint8],
    integers: npt.NDArray[np.int64],
    observed: npt.NDArray[np.bool_],
    words: npt.NDArray[np.uint32],
) -> bytes:
    """The rows as text.

    Args:
        labels: (rows,), 0 or 1.
        integers: (dense columns, rows), between -4 and 9,999,999.
        observed: the same shape; False = missing.
        words: (token columns, rows), 0 = missing.
    """
    rows, n_dense, n_tokens = len(labels), len(integers), len(words)
    text = np.full((rows, 2 + n_dense * _SLOT + n_tokens * 9), _TAB, np.uint8)
    keep = np.ones(text.shape, np.bool_)
    text[:, 0] = labels + _ZERO

    number, digit_kept = (
        part[:, 2 : 2 + n_dense * _SLOT].reshape(rows, n_dense, _SLOT, copy=False) for part in (text, keep)
    )
    values, present = integers.T, observed.T
    rest = np.abs(values).astype(np.uint32)
    number[:, :, 0] = _MINUS
    digit_kept[:, :, 0] = present & (values < 0)
    for digit in range(_DIGITS, 0, -1):
        digit_kept[:, :, digit] = present if digit == _DIGITS else present & (rest > 0)
        quotient = rest // np.uint32(10)
        number[:, :, digit] = rest - quotient * np.uint32(10) + np.uint32(_ZERO)
        rest = quotient

    token, token_kept = (
        part[:, 2 + n_dense * _SLOT :].reshape(rows, n_tokens, 9, copy=False) for part in (text, keep)
    )
    token[:, :, 0:4] = _HEX4[words.T >> np.uint32(16)]
    token[:, :, 4:8] = _HEX4[words.T & np.uint32(0xFFFF)]
    token_kept[:, :, :8] = (words.T != 0)[:, :, None]
    text[:, -1] = _NEWLINE
    return text[keep].tobytes()
