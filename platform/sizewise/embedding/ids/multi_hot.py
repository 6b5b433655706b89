"""Synthetic lists out of single values, as MLPerf's DLRM benchmark of 2023 makes them of Criteo's logs.

    ids, bags = MultiHot(cardinalities)(ids)     # (batch, 26) -> (batch, 0), and 26 lists a row, 214 values

Its published data (3.8 TB) is that of Criteo with lists for values: of each feature a list has a fixed length, its
first value is the row's own, and the others are drawn uniformly from all of the feature's values, once for each value.
So equal values have equal lists. The same holds here; but where the reference keeps a table of random lists, a hash of
(feature, value, position) gives them, so that nothing is stored and any row's lists follow from the row alone. Which
random values they are differs from the reference.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numba import uint32, uint64
from torch import Tensor, nn

from sizewise.embedding.bags import Bags
from sizewise.embedding.ids.hashing import MASK32, FastHash, lowbias32
from sizewise.embedding.kernels.blocks.common import Array, mixed
from sizewise.embedding.kernels.threads import share_out
from sizewise_core.errors import InputError
from sizewise_core.machine.compiled import jit

SIZES = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
"""Values in the list of each of Criteo's features."""

VALUES = sum(SIZES)
SEED = 0
VALUES_PER_THREAD = 2**20  # fewer do not repay a second thread


@jit
def _expand(ids: Array, low: int, high: int, arrays: tuple[Array, Array, Array, Array], out: Array) -> None:
    """Write the lists of rows low to high of all features, each feature's after those of the one before."""
    starts, a, b, limits = arrays
    for f in range(ids.shape[1]):
        first, size = starts[f], starts[f + 1] - starts[f]
        at = first * len(ids) + low * size
        for row in range(low, high):
            x = uint32(ids[row, f])
            out[at] = x
            for n in range(1, size):
                h = mixed(uint32(uint32(x * a[first + n]) + b[first + n]))
                out[at + n] = uint32((uint64(h) * limits[f]) >> uint64(32))
            at += size


class MultiHot(nn.Module):
    """Makes lists of contiguous ids.

    Args:
        cardinalities: distinct values of each of the 26 features.

    Raises:
        InputError: another number of features.
    """

    sizes: Tensor
    limits: Tensor
    of_value: Tensor
    own: Tensor

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        if len(cardinalities) != len(SIZES):
            raise InputError(
                f"embedding.multi_hot: criteo makes lists of {len(SIZES)} features, and the data has "
                f"{len(cardinalities)}: leave it out"
            )
        self.hash = FastHash(1, VALUES, SEED)
        self.starts = [0, *accumulate(SIZES)]
        feature = np.repeat(np.arange(len(SIZES)), SIZES)
        self.register_buffer("sizes", torch.tensor(SIZES), persistent=False)
        self.register_buffer("of_value", torch.from_numpy(feature), persistent=False)
        limits = np.array(cardinalities, np.int64)
        self.register_buffer("limits", torch.from_numpy(limits[feature]), persistent=False)
        own = np.isin(np.arange(VALUES), self.starts)
        self.register_buffer("own", torch.from_numpy(own), persistent=False)
        terms = self.hash.multiplier, self.hash.increment
        self._arrays = (
            np.array(self.starts),
            *(term.cpu().numpy().astype(np.uint32).reshape(-1) for term in terms),
            limits.astype(np.uint64),
        )

    def forward(self, ids: Tensor) -> tuple[Tensor, Bags]:
        """No columns of single values, and a list for each id.

        Args:
            ids: int64 or uint32 (batch, 26).
        """
        lengths = self.sizes.unsqueeze(1).expand(len(SIZES), ids.shape[0]).flatten()
        offsets = torch.cat([torch.zeros_like(self.sizes[:1]), lengths.cumsum(0)])
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            return ids[:, :0], Bags(self._values(ids), offsets)
        x = ids.to(torch.int64).index_select(1, self.of_value)  # (batch, values)
        terms = self.hash.multiplier.view(-1), self.hash.increment.view(-1)
        bits = lowbias32(((x & MASK32) * terms[0] + terms[1]).bitwise_and_(MASK32))
        values = torch.where(self.own, x, (bits * self.limits) >> 32)
        bounds = zip(self.starts[:-1], self.starts[1:], strict=True)
        return ids[:, :0], Bags(torch.cat([values[:, low:high].flatten() for low, high in bounds]), offsets)

    def _values(self, ids: Tensor) -> Tensor:
        values = torch.empty(len(ids) * VALUES, dtype=torch.uint32)
        read, out = ids.to(torch.uint32).contiguous().numpy(), values.numpy()
        parts = max(1, min(torch.get_num_threads(), len(out) // VALUES_PER_THREAD))
        share_out(len(ids), parts, lambda low, high: _expand(read, low, high, self._arrays, out))
        return values
