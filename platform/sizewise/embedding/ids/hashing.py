"""Hashes from (feature, id, block) to a slot of a memory pool, as exact integer arithmetic on int64 tensors.

Three forms, chosen by the option ``hash`` of the methods that hash:

``fast``
    Ours and the default: 32 bits, no vocabulary, no modulo.  An odd multiplier and an increment drawn for
    each (feature, block), then the ``lowbias32`` mixer (C. Wellons, "Prospecting for hash functions", 2018),
    then multiply-shift range reduction (D. Lemire, "Fast random integer generation in an interval", 2019).
``authors``
    The code published with the papers (``universal_memory_allocation``, ``robez``):
    ``((v*R3 + c*R2 + R1) mod P) mod slots`` with P = 2038074743 and v = id + row offset of the feature.
``paper``
    The papers' equation: ``((A*e + B*x + C*c + D) mod P) mod slots``, with the sign
    ``2*((A'*e + B'*x + C'*i + D') mod P mod 2) - 1`` for each element i.  P = 2^31 - 1.

No product leaves the signed 64-bit range, so CPU, GPU and any other exact integer arithmetic agree.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

MASK32 = 0xFFFFFFFF
AUTHORS_PRIME = 2038074743
AUTHORS_SEED = 1024
PAPER_PRIME = 2**31 - 1
MAX_SLOTS = 2**31 - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """``count`` 64-bit integers of SplitMix64 (Steele et al. 2014), which no library version changes."""
    mask = (1 << 64) - 1
    out, state = [], seed & mask
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def derived_seed(seed: int, number: int) -> int:
    """Seed ``number`` of the independent ones that follow from ``seed``, within 63 bits as torch wants it.

    Not ``seed + number``: the second table of one replicate would start as the first table of the next.
    """
    return splitmix64(seed, number + 1)[number] >> 1


def _signed(multiplier: int) -> int:
    """A 32-bit multiplier brought into [-2^31, 2^31): equal mod 2^32, and times an id it fits in int64."""
    return multiplier - (1 << 32) if multiplier >= 1 << 31 else multiplier


def lowbias32(x: Tensor) -> Tensor:
    """Mix int64 values in [0, 2^32) one to one, in place."""
    x ^= x >> 16
    x.mul_(0x7FEB352D).bitwise_and_(MASK32)
    x ^= x >> 15
    x.mul_(_signed(0x846CA68B)).bitwise_and_(MASK32)
    x ^= x >> 16
    return x


class FastHash(nn.Module):
    """``lowbias32(a*id + b mod 2^32)`` with a (odd) and b drawn for each (feature, block)."""

    multiplier: Tensor
    increment: Tensor

    def __init__(self, features: int, blocks: int, seed: int, feature_term: bool = True) -> None:
        super().__init__()
        rows = features if feature_term else 1
        words = splitmix64(seed, rows * blocks)
        # Not persistent: they follow from the seed, and a deployed model ships the seed. On the CPU even where a model
        # is only sketched (on the device "meta"), because the kernels take their values.
        self.register_buffer(
            "multiplier",
            torch.tensor([_signed((w >> 32) | 1) for w in words], device="cpu").view(rows, blocks),
            persistent=False,
        )
        self.register_buffer(
            "increment",
            torch.tensor([w & 0x7FFFFFFF for w in words], device="cpu").view(rows, blocks),
            persistent=False,
        )

    def forward(self, ids: Tensor, slots: int, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Slots and the bits that they come from.

        Args:
            ids: int64, (batch, features).
            slots: how many there are.
            features: int64, of the shape of ids, which is any then: each one's feature. None: its column.

        Returns:
            Slots in [0, slots) and hash bits in [0, 2^32), both int64 (*ids.shape, blocks).
        """
        multiplier, increment = self.multiplier, self.increment
        if features is not None and len(multiplier) > 1:
            multiplier, increment = multiplier[features], increment[features]
        x = ((ids & MASK32).unsqueeze(-1) * multiplier).add_(increment).bitwise_and_(MASK32)
        bits = lowbias32(x)
        return (bits * slots) >> 32, bits

    def sign(self, ids: Tensor, bits: Tensor, block_len: int, features: Tensor | None = None) -> Tensor:
        """+1 or -1 for each block, from the lowest bit: range reduction reads the highest ones.

        Args:
            ids, features: not used.
            bits: int64 (*ids.shape, blocks), as `forward` gives them.
            block_len: elements of a block.

        Returns:
            int64 (*ids.shape, blocks * block_len).
        """
        return (1 - 2 * (bits & 1)).repeat_interleave(block_len, dim=-1)


class AuthorsHash(nn.Module):
    """The authors' published code: no sign, features told apart by their row offsets only."""

    offsets: Tensor

    def __init__(self, cardinalities: Sequence[int], blocks: int, feature_term: bool = True) -> None:
        super().__init__()
        # The authors' table of random numbers is P, then draws below P; R1, R2, R3 are its entries 1 to 3.
        random = np.random.RandomState(AUTHORS_SEED).randint(0, AUTHORS_PRIME, (50,))
        self.r1, self.r2, self.r3 = (int(r) for r in random[:3])
        offsets = (
            np.concatenate([[0], np.cumsum(cardinalities)[:-1]])
            if feature_term
            else np.zeros(len(cardinalities))
        )
        self.register_buffer("offsets", torch.tensor(offsets.astype(np.int64)), persistent=False)
        self.blocks = blocks

    def forward(self, ids: Tensor, slots: int, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Slots in [0, slots), int64 (*ids.shape, blocks); the second value is unused.

        Args: as for `FastHash.forward`.
        """
        block = torch.arange(self.blocks, device=ids.device) * self.r2 % AUTHORS_PRIME + self.r1
        offsets = self.offsets if features is None else self.offsets[features]
        v = (ids + offsets) % AUTHORS_PRIME * self.r3 % AUTHORS_PRIME
        h = (v.unsqueeze(-1) + block) % AUTHORS_PRIME
        return h % slots, h


class PaperHash(nn.Module):
    """The papers' equation, with its table term and its sign for each element."""

    feature: Tensor

    def __init__(self, features: int, blocks: int, dim: int, seed: int, feature_term: bool = True) -> None:
        super().__init__()
        self.coefficients = [1 + word % (PAPER_PRIME - 1) for word in splitmix64(seed, 8)]
        self.blocks, self.dim = blocks, dim
        feature = torch.arange(features) if feature_term else torch.zeros(features, dtype=torch.int64)
        self.register_buffer("feature", feature, persistent=False)

    def _affine(
        self, ids: Tensor, coefficients: Sequence[int], steps: int, features: Tensor | None
    ) -> Tensor:
        """(A*e + B*x + C*j + D) mod P for j < steps; each term is reduced first, so that none overflows."""
        a, b, c, d = coefficients
        feature = self.feature if features is None else self.feature[features]
        column = feature * a % PAPER_PRIME + d
        step = torch.arange(steps, device=ids.device) * c % PAPER_PRIME
        row = (ids % PAPER_PRIME * b + column) % PAPER_PRIME
        return (row.unsqueeze(-1) + step) % PAPER_PRIME

    def forward(self, ids: Tensor, slots: int, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Slots in [0, slots) and the hash they come from, int64 (*ids.shape, blocks).

        Args: as for `FastHash.forward`.
        """
        h = self._affine(ids, self.coefficients[:4], self.blocks, features)
        return h % slots, h

    def sign(self, ids: Tensor, bits: Tensor, block_len: int, features: Tensor | None = None) -> Tensor:
        """+1 or -1 for each of the dim elements, by the papers' second hash, which has factors of its own.

        Args:
            ids, features: as `forward` had them.
            bits: not used.
            block_len: not used.

        Returns:
            int64 (*ids.shape, dim).
        """
        return 2 * (self._affine(ids, self.coefficients[4:], self.dim, features) % 2) - 1
