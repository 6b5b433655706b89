"""Lists of values: bags, each pooled into one vector, beside features that have one value a row.

    bags = Bags(values, offsets)
    embedding(ids, bags)        # (batch, features, dim): one vector a column of ids, then one a list feature

The layout is that of TorchRec's KeyedJaggedTensor: all values of the first list feature, row after row, then those of
the second. Bag number `feature * batch + row` has the values from `offsets[number]` up to `offsets[number + 1]`; it
may be empty.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sizewise_core.errors import InputError

Pooling = Literal["mean", "sum"]
"""What becomes of the vectors of a bag; an empty one gives zeros in either case."""


class Bags(NamedTuple):
    """Lists of values of one or more features, for every row of a batch.

    Attributes:
        values: int64 or uint32 (n,), feature after feature, within a feature row after row.
        offsets: int64 (bag_features * batch + 1,), where each bag's values begin, and the last one's end.
    """

    values: Tensor
    offsets: Tensor

    def lengths(self) -> Tensor:
        """Values in each bag, int64 (bag_features * batch,)."""
        return self.offsets[1:] - self.offsets[:-1]

    def owners(self) -> Tensor:
        """The number of the bag that each value is in, int64 (n,)."""
        if torch.compiler.is_compiling():  # which computes with no sizes
            positions = (torch.zeros_like(self.values, dtype=torch.int64) + 1).cumsum(0) - 1
        else:
            positions = torch.arange(self.values.shape[0], device=self.values.device)
        return torch.searchsorted(self.offsets[1:], positions, right=True)

    def numbers(self, features: int, batch: int) -> Tensor:
        """The list feature, from 0, that each value is of, int64 (n,).

        Args:
            features: list features.
            batch: rows.
        """
        of_bags = torch.arange(features, device=self.offsets.device).unsqueeze(1).expand(features, batch)
        return of_bags.flatten()[self.owners()]

    def rows(self, features: int, batch: int) -> Tensor:
        """The row that each value is of, int64 (n,).

        Args:
            features: list features.
            batch: rows.
        """
        of_bags = torch.arange(batch, device=self.offsets.device).expand(features, batch)
        return of_bags.flatten()[self.owners()]

    def check(self, features: int, batch: int) -> None:
        """InputError where these are not the bags of so many features and rows.

        On a GPU what the offsets hold is not looked at, because every step would have to wait for the answer.

        Args:
            features: list features.
            batch: rows.
        """
        values, offsets = self
        if values.dim() != 1 or values.dtype not in (torch.int64, torch.uint32):
            raise InputError(
                f"bags.values have shape {tuple(values.shape)} and dtype {values.dtype}, "
                "expected (values,) of int64 or uint32"
            )
        if torch.compiler.is_compiling():  # which computes with no sizes
            return
        if offsets.dtype != torch.int64 or offsets.dim() != 1 or len(offsets) != features * batch + 1:
            raise InputError(
                f"bags.offsets have shape {tuple(offsets.shape)} and dtype {offsets.dtype}, expected int64 "
                f"({features * batch + 1},): {features} list features of {batch} rows, and the end of the last bag"
            )
        if values.device != offsets.device:
            raise InputError(f"bags.values are on {values.device}, bags.offsets on {offsets.device}")
        if offsets.device.type == "cpu":
            ordered = int(offsets[0]) == 0 and int(offsets[-1]) == len(values)
            if not ordered or bool((offsets[1:] < offsets[:-1]).any()):
                raise InputError(
                    f"bags.offsets must rise from 0 to the number of values ({len(values)}) and never fall"
                )


class Ragged(NamedTuple):
    """What kernels look up for rows that have lists of values beside single ones.

    Attributes:
        ids: uint32 (batch, columns), of the first features.
        values: uint32 (n,), and offsets: of the bags of all others.
        mean: whether bags are pooled by their mean, rather than their sum.
    """

    ids: Tensor
    values: Tensor
    offsets: Tensor
    mean: bool

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.ids)

    @property
    def features(self) -> int:
        """Vectors of a row."""
        return self.ids.shape[1] + ((len(self.offsets) - 1) // self.rows if self.rows else 0)

    def numel(self) -> int:
        """Values that are looked up."""
        return self.ids.numel() + self.values.numel()


def pooled(vectors: Tensor, bags: Bags, features: int, batch: int, pooling: Pooling) -> Tensor:
    """The vectors of bags, in plain PyTorch.

    Args:
        vectors: (n, dim), one for each of the bags' values.
        bags: of so many features and rows.
        features: list features.
        batch: rows.
        pooling: what becomes of a bag's vectors.

    Returns:
        (batch, bag_features, dim).
    """
    dim, lengths = vectors.shape[1], bags.lengths().unsqueeze(1).to(vectors.dtype)
    # Zeros of that shape by a product: what is traced for an export computes with no sizes.
    zeros = lengths * torch.zeros(dim, dtype=vectors.dtype, device=vectors.device)
    summed = zeros.index_add(0, bags.owners(), vectors)
    if pooling == "mean":
        summed = summed / lengths.clamp(min=1)
    return summed.view(features, batch, dim).transpose(0, 1)
