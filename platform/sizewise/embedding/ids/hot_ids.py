"""The list of hot values as a deployed model ships it: hashed, and Elias-Fano coded in about a byte a value.

    ids = HotIds(features=26, most=1000, bits=6, seed=1)
    ids.fill(features_of_values, values)
    positions, found = ids.find(tokens)        # of tokens in the list

Every feature has 2^bits places for each of its hot values. A value's place is its hash, and the list is the sorted
places of all: a value that is not hot is taken for one with a chance of 2^-bits. Of each place the lowest `bits` are
stored as they are, the others in unary (Elias 1974, Fano 1971): bits + 2 a value, however many there are.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sizewise.embedding.ids.counts import Words
from sizewise.embedding.ids.hashing import MASK32, FastHash, lowbias32
from sizewise.embedding.kernels.hot_rows import Lists, marks_of

Bits = npt.NDArray[np.uint8]


def coded_bytes(features: int, values: int, most: int, bits: int) -> int:
    """Bytes of the list.

    Args:
        features: id columns.
        values: in the list.
        most: that there could have been: each feature's share of the list is written in as many bits as that takes.
        bits: of a fingerprint.
    """
    return sum(-(-size // 8) for size in (features * most.bit_length(), values * bits, 2 * values))


class HotIds(nn.Module):
    """A list of (feature, value), each at a position.

    Args:
        features: id columns.
        most: values that there may be, each with 2^bits places, at most `MAX_SLOTS`; `resize` makes room for fewer.
        bits: of a fingerprint.
        seed: of the hash.
    """

    sizes: Tensor
    lows: Tensor
    highs: Tensor
    begins: Tensor
    spans: Tensor
    places: Tensor
    powers: Tensor
    zeros_in: Tensor
    zeros_at: Tensor

    def __init__(self, features: int, most: int, bits: int, seed: int) -> None:
        super().__init__()
        self.features, self.most, self.bits = features, most, bits
        self.most_in_a_run = 0  # where only the coded list is kept
        self._marks: Tensor | None = None  # of the places, for kernels on the CPU
        self.hash = FastHash(features, 1, seed)
        # Stored: values of each feature; the lowest bits of all places; the others, in unary.
        self.register_buffer("sizes", torch.zeros(-(-features * most.bit_length() // 8), dtype=torch.uint8))
        self.register_buffer("lows", torch.empty(0, dtype=torch.uint8))
        self.register_buffer("highs", torch.empty(0, dtype=torch.uint8))
        # Made of them: quick to look up in.
        zeros = torch.zeros(features, dtype=torch.int64)
        self.register_buffer("begins", zeros, persistent=False)
        self.register_buffer("spans", zeros.clone(), persistent=False)
        self.register_buffer("places", torch.empty(0, dtype=torch.int32), persistent=False)
        self.register_buffer("powers", 2 ** torch.arange(8), persistent=False)
        self.resize(most)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the coded list."""
        return coded_bytes(self.features, self.values, self.most, self.bits)

    @property
    def lists(self) -> Lists:
        """What kernels on the CPU look up in."""
        if self._marks is None:
            self._marks = marks_of(self.places, self.bits)
        return Lists(self.begins, self.spans, self.places, self._marks, self.bits)

    def resize(self, values: int) -> None:
        """Make room for so many values; what was in the list is gone."""
        self.values = values
        for name, size in {"lows": values * self.bits, "highs": 2 * values}.items():
            setattr(self, name, getattr(self, name).new_zeros(-(-size // 8)))
        self.places, self._marks = self.places.new_zeros(values), None

    def fill(self, features: npt.NDArray[np.int64], ids: Words) -> int:
        """Put values in the list, in the order in which they are given, until it is full.

        Values whose places are equal share a position.

        Args:
            features: (n,) of the values.
            ids: (n,) uint32.

        Returns:
            How many of the values are in the list; fewer than given only where it is full.
        """
        sizes = np.bincount(features[: self.values], minlength=self.features)
        if sizes.sum() < self.values:  # fewer values than positions
            sizes[0] += self.values - sizes.sum()
        self._set_sizes(torch.from_numpy(sizes))
        taken = len(ids)
        places = self._places_of(features, ids)
        places[sizes[features] == 0] = -1  # no value of that feature is among the first
        distinct, first = np.unique(places, return_index=True)
        distinct, first = distinct[distinct >= 0], first[distinct >= 0]
        if len(distinct) > self.values:
            last = np.sort(first)[self.values - 1]
            taken, distinct = int(last) + 1, distinct[first <= last]
        # Unused positions repeat the last place, where nothing finds them.
        padded = np.pad(distinct, (0, self.values - len(distinct)), mode="edge")
        highs = np.zeros(2 * self.values, np.uint8)
        highs[(padded >> self.bits) + np.arange(self.values)] = 1
        lows = np.empty((self.values, self.bits), np.uint8)
        for bit in range(self.bits):
            lows[:, bit] = padded >> bit & 1
        self.highs.copy_(torch.from_numpy(np.packbits(highs, bitorder="little")))
        self.lows.copy_(torch.from_numpy(np.packbits(lows.ravel(), bitorder="little")))
        coded = (sizes[:, None] >> np.arange(self.most.bit_length())) & 1
        self.sizes.copy_(torch.from_numpy(np.packbits(coded.astype(np.uint8).ravel(), bitorder="little")))
        self.refresh()
        return taken

    def found_in(self, feature: int, ids: Words) -> npt.NDArray[np.bool_]:
        """Which ids (n,) of a feature are taken for values of the list."""
        places = self._places_of(np.full(len(ids), feature), ids)
        known = self.places.cpu().numpy()
        same: npt.NDArray[np.bool_] = (
            known[np.minimum(np.searchsorted(known, places), len(known) - 1)] == places
        )
        return same

    def find(self, ids: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Positions of ids in the list, and which of them are in it; both of their shape.

        Args:
            ids: int64 (batch, features).
            features: int64, of the shape of ids, which is (n,) then: each one's feature. None: its column.
        """
        terms = self.hash.multiplier.view(-1), self.hash.increment.view(-1), self.begins, self.spans
        multiplier, increment, begins, spans = (
            terms if features is None else (term[features] for term in terms)
        )
        bits = lowbias32((ids & MASK32) * multiplier + increment & MASK32)
        wanted = begins + (bits * spans >> 32)
        if self.most_in_a_run:
            return self._find_coded(wanted)
        wanted = wanted.to(self.places.dtype)
        positions = torch.searchsorted(self.places, wanted)
        return positions, self.places[positions.clamp(max=self.values - 1)] == wanted

    def keep_coded(self) -> None:
        """Keep the stored form only, in which every lookup then reads what it needs."""
        runs = np.unique(self.places.cpu().numpy()) >> self.bits
        self.most_in_a_run = int(np.bincount(runs).max())
        self.register_buffer("places", None, persistent=False)
        self._marks = None
        byte = np.arange(256)[:, None] >> np.arange(8) & 1
        order = np.argsort(byte, axis=1, kind="stable")  # of each byte's bits, its zeros first
        for name, table in {"zeros_in": 8 - byte.sum(1), "zeros_at": order.ravel()}.items():
            self.register_buffer(
                name, torch.from_numpy(table.astype(np.uint8)).to(self.highs.device), persistent=False
            )

    def decoded(self) -> Tensor:
        """The places in the list, int64 (values,), ascending."""
        number = torch.arange(self.values, device=self.highs.device)
        ones = (self.highs.to(torch.int64).unsqueeze(1) // self.powers % 2).flatten().cumsum(0)
        runs = torch.searchsorted(ones, number + 1) - number
        places: Tensor = runs * 2**self.bits + self._low_bits(number)
        return places

    def _find_coded(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """`find` in the coded list: runs of places with the same upper bits are looked up, and compared."""
        run = wanted >> self.bits
        zeros_in = self.zeros_in[self.highs.to(torch.int64)].to(torch.int64)
        zeros = zeros_in.cumsum(0)
        start = self._values_before(run, zeros, zeros_in)
        end = self._values_before(run + 1, zeros, zeros_in).clamp(max=self.values)
        there = start.unsqueeze(-1) + torch.arange(self.most_in_a_run, device=start.device)
        low = self._low_bits(there.clamp(max=self.values - 1))
        # No operator of its own for "and": the number of a value beyond the run is none.
        number = torch.where(there >= end.unsqueeze(-1), -1, low)
        same = number == (wanted % 2**self.bits).unsqueeze(-1)
        positions = torch.where(same, there, self.values).amin(-1)
        return positions, positions < self.values

    def _values_before(self, run: Tensor, zeros: Tensor, zeros_in: Tensor) -> Tensor:
        """How many values are in the runs before one: the ones before the zero that ends the run before it."""
        byte = torch.searchsorted(zeros, run).clamp(max=len(zeros) - 1)
        within = (run - zeros[byte] + zeros_in[byte] - 1).clamp(min=0, max=7)
        at = byte * 8 + self.zeros_at[self.highs[byte].to(torch.int64) * 8 + within].to(torch.int64)
        return torch.where(run == 0, torch.zeros_like(run), at - run + 1)

    def _low_bits(self, positions: Tensor) -> Tensor:
        """Those of the places at int64 positions in the list."""
        start = positions * self.bits
        byte, last = start >> 3, len(self.lows) - 1
        # Of 24 bits, in which the at most 16 are.
        window = sum(self.lows[(byte + n).clamp(max=last)].to(torch.int64) * 256**n for n in range(3))
        low: Tensor = window // self.powers[start & 7] % 2**self.bits
        return low

    def refresh(self) -> None:
        """Make anew what lookups use, after the stored form has changed."""
        if self.sizes.device.type == "meta":
            return
        self._set_sizes(self.decoded_sizes(self.sizes).to(self.sizes.device))
        self.places.copy_(self.decoded())
        self._marks = None

    def decoded_sizes(self, coded: Tensor) -> Tensor:
        """Values of each feature, int64 (features,) on the CPU, from their stored form."""
        width = self.most.bit_length()
        flat = np.unpackbits(coded.cpu().numpy(), count=self.features * width, bitorder="little")
        return torch.from_numpy(flat.reshape(self.features, width) @ (1 << np.arange(width)))

    def _set_sizes(self, sizes: Tensor) -> None:
        spans = sizes.to(torch.int64) << self.bits
        self.spans.copy_(spans)
        # Features without values have their places behind all others, where nothing is found.
        self.begins.copy_(torch.where(spans > 0, spans.cumsum(0) - spans, self.values << self.bits))

    def _places_of(self, features: npt.NDArray[np.int64], ids: Words) -> npt.NDArray[np.int64]:
        at = torch.from_numpy(features)
        a, b = (term.view(-1).cpu()[at] for term in (self.hash.multiplier, self.hash.increment))
        bits = lowbias32(torch.from_numpy(ids.astype(np.int64)) * a + b & MASK32)
        places: npt.NDArray[np.int64] = (self.begins.cpu()[at] + (bits * self.spans.cpu()[at] >> 32)).numpy()
        return places

    def _load_from_state_dict(self, *arguments: object) -> None:
        super()._load_from_state_dict(*arguments)
        if self.lows.shape == (-(-self.values * self.bits // 8),):
            self.refresh()
