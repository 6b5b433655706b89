"""One key for each (feature, id): what methods that index a table, rather than hash blocks, look up."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sizewise.embedding.bags import Bags
from sizewise.embedding.ids.hashing import MAX_SLOTS, FastHash
from sizewise_core.errors import InputError


class ContiguousKeys(nn.Module):
    """Ids below their feature's cardinality, numbered through, feature after feature: keys in [0, sum)."""

    limits: Tensor
    offsets: Tensor
    greatest: Tensor

    def __init__(self, method: str, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.method = method
        limits = torch.tensor(cardinalities, device="cpu")
        self.count = sum(cardinalities)
        self.register_buffer("limits", limits, persistent=False)
        self.register_buffer("offsets", limits.cumsum(0) - limits, persistent=False)
        self.register_buffer("greatest", torch.zeros_like(limits), persistent=False)

    def forward(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Keys of ids, of their shape; for ids out of range see `check`.

        Args:
            ids: int64 (batch, features).
            features: int64, of the shape of ids, which is (n,) then: each one's feature. None: its column.
        """
        self.check(ids, features)
        limits, offsets = self.limits, self.offsets
        if features is not None:
            limits, offsets = limits[features], offsets[features]
        if ids.device.type != "cpu" or torch.compiler.is_compiling():
            ids = ids.clamp(min=0).minimum(limits - 1)
        return ids + offsets

    def check(self, ids: Tensor, features: Tensor | None = None) -> None:
        """InputError at a cardinality or above it: past its own part an id would read the next feature's rows.

        On a GPU only `verify` raises, which waits for the device; until then such ids read any row of their feature.
        Not in traced code, which cannot branch on what it reads; there, too, such ids read any row of their feature.
        """
        if torch.compiler.is_compiling():
            return
        if features is not None:
            self._check_flat(ids, features)
        elif ids.device.type == "cpu":
            beyond = ids >= self.limits
            if bool(beyond.any()):
                column = int(beyond.any(0).nonzero()[0])
                raise self._error(column, int(ids[:, column].max()))
        else:
            self.note(ids)

    def check_bags(self, ids: Tensor, bags: Bags) -> None:
        """The same of columns of the first features, and of the bags of all others.

        Args:
            ids: int64 or uint32 (batch, columns).
            bags: of the features from number `columns` on.
        """
        rows, columns = ids.shape
        if ids.device.type != "cpu":
            if rows:
                self.greatest[:columns] = torch.maximum(self.greatest[:columns], ids.to(torch.int64).amax(0))
                self._check_flat(bags.values.to(torch.int64), bags.owners() // rows + columns)
            return
        ends = bags.offsets[::rows].tolist() if rows else [0]
        found = [ids[:, feature].numpy() for feature in range(columns)]
        found += [bags.values[low:high].numpy() for low, high in pairwise(ends)]
        for feature, values in enumerate(found):
            if len(values) and int(values.max()) >= int(self.limits[feature]):
                raise self._error(feature, int(values.max()))

    def _check_flat(self, ids: Tensor, features: Tensor) -> None:
        if ids.device.type != "cpu":
            self.greatest.scatter_reduce_(0, features, ids, "amax")
            return
        beyond = ids >= self.limits[features]
        if bool(beyond.any()):
            column = int(features[beyond].min())
            raise self._error(column, int(ids[features == column].max()))

    def note(self, ids: Tensor) -> None:
        """Keep each feature's greatest id in mind, on the device."""
        if len(ids):
            torch.maximum(self.greatest, ids.amax(0), out=self.greatest)

    def verify(self) -> None:
        """InputError where an id was noted that is out of range."""
        beyond = (self.greatest >= self.limits).nonzero()
        if len(beyond):
            column = int(beyond[0])
            raise self._error(column, int(self.greatest[column]))

    def _error(self, column: int, value: int) -> InputError:
        fix = "use a method that hashes raw tokens (hash, robe)"
        if self.method != "full":
            fix = "set embedding.contiguous_ids: false"
        return InputError(
            f"embedding.method {self.method}: feature {column} has id {value}, but "
            f"its cardinality is {int(self.limits[column])}; prepare data with contiguous ids, or {fix}"
        )


class HashedKeys(nn.Module):
    """Any 32-bit ids, hashed with their feature to keys in [0, count): ids that collide share everything."""

    def __init__(self, features: int, count: int, seed: int) -> None:
        super().__init__()
        self.count = min(count, MAX_SLOTS)
        self.hash = FastHash(features, 1, seed)

    def forward(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Keys of int64 ids, of their shape.

        Args: as for `ContiguousKeys.forward`.
        """
        slots, _ = self.hash(ids, self.count, features)
        keys: Tensor = slots.squeeze(-1)
        return keys
