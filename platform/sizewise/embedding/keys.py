"""One key for each (feature, id): what methods that index a table, rather than hash blocks, look up."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sizewise.embedding.hashing import MAX_SLOTS, FastHash
from sizewise_prep.errors import InputError


class ContiguousKeys(nn.Module):
    """Ids below their feature's cardinality, numbered through, feature after feature: keys in [0, sum)."""

    limits: Tensor
    offsets: Tensor

    def __init__(self, method: str, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.method = method
        limits = torch.tensor(cardinalities)
        self.count = int(limits.sum())
        self.register_buffer("limits", limits, persistent=False)
        self.register_buffer("offsets", limits.cumsum(0) - limits, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, features) int64 ids -> keys of the same shape; InputError at a cardinality or above it."""
        # Checked on every device: past its own part an id would silently read the next feature's rows. Not in an
        # exported program, which numbers tokens itself and cannot branch on what it reads.
        if torch.compiler.is_exporting():
            return ids + self.offsets
        beyond = ids >= self.limits
        if bool(beyond.any()):
            column = int(beyond.any(0).nonzero()[0])
            mend = "use a method that hashes raw tokens (hash, robe)"
            if self.method != "full":
                mend = "set embedding.contiguous_ids: false"
            raise InputError(
                f"embedding.method {self.method}: feature {column} has id {int(ids[:, column].max())}, but "
                f"its cardinality is {int(self.limits[column])}; prepare data with contiguous ids, or {mend}"
            )
        return ids + self.offsets


class HashedKeys(nn.Module):
    """Any 32-bit ids, hashed with their feature to keys in [0, count): ids that collide share everything."""

    def __init__(self, features: int, count: int, seed: int) -> None:
        super().__init__()
        self.count = min(count, MAX_SLOTS)
        self.hash = FastHash(features, 1, seed)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, features) int64 ids -> keys of the same shape."""
        slots, _ = self.hash(ids, self.count)
        keys: Tensor = slots.squeeze(-1)
        return keys
