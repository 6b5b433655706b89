"""`sizewise_prep.planted.randomness` on any device: 64-bit hashes of counters, and numbers of them.

PyTorch computes with signed words alone. They wrap around as unsigned ones do; only a shift to the right needs a mask.
"""

from __future__ import annotations

import numpy as np
import torch


def signed(word: int) -> int:
    """The signed number of the same 64 bits."""
    return word - (1 << 64) if word >> 63 else word


GOLDEN = signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)


def stream_keys(keys: list[np.uint64], device: torch.device) -> torch.Tensor:
    """(keys, 1), to be combined with rows."""
    return torch.tensor([[signed(int(key))] for key in keys], dtype=torch.int64, device=device)


def shifted(words: torch.Tensor, by: int, out: torch.Tensor) -> torch.Tensor:
    """`words` shifted to the right as if unsigned."""
    return torch.bitwise_right_shift(words, by, out=out).bitwise_and_((1 << (64 - by)) - 1)


def mix(words: torch.Tensor) -> torch.Tensor:
    """`randomness.mix`, in place."""
    spare = torch.empty_like(words)
    words ^= shifted(words, 30, spare)
    words *= _FIRST
    words ^= shifted(words, 27, spare)
    words *= _SECOND
    words ^= shifted(words, 31, spare)
    return words


def normals(words: torch.Tensor) -> torch.Tensor:
    """`randomness.normals`: the four lanes are added two at a time; `words` is used up."""
    pairs = shifted(words, 16, torch.empty_like(words)).bitwise_and_(0x0000FFFF0000FFFF)
    pairs += words.bitwise_and_(0x0000FFFF0000FFFF)
    total = torch.bitwise_right_shift(pairs, 32, out=words)
    total += pairs.bitwise_and_(0xFFFFFFFF)
    return total.to(torch.float64).sub_(131070.0).mul_(3.0**0.5 / 65536)


def lane(words: torch.Tensor, lane: int) -> torch.Tensor:
    """One of `randomness.lanes`."""
    number = (words >> (16 * lane)).bitwise_and_(0xFFFF)
    return number.to(torch.float64).sub_(32767.5).mul_(12.0**0.5 / 65536)
