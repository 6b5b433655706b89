"""Rows of a click log as arrays, and their integers as models take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Parsed rows.

    Attributes:
        labels: (rows,), uint8, 0 or 1.
        dense: (rows, integer columns), float32, the integer's value; NaN = missing.
        ids: (rows, token columns), uint32, the token's value; 0 = missing.
    """

    labels: npt.NDArray[np.uint8]
    dense: npt.NDArray[np.float32]
    ids: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def concatenated(parts: list[Rows]) -> Rows:
        """All rows of the parts, one after another; at least one part."""
        if len(parts) == 1:
            return parts[0]
        return Rows(
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.dense for part in parts]),
            np.concatenate([part.ids for part in parts]),
        )


def log_dense(
    dense: npt.NDArray[np.float32], fill: bool, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """log(x + 1) of max(x, 0): what the reference DLRM of MLPerf does to Criteo's integers.

    Args:
        dense: of any shape, float32; NaN where missing.
        fill: whether a missing value becomes 0; else it stays NaN.
        out: where to write it, of the same shape, which may be `dense` itself; None: a new array.

    Returns:
        The logarithms, of the same shape, float32.
    """
    # `fmax` takes the number where the other is none; `maximum` does not.
    values = (np.fmax if fill else np.maximum)(dense, np.float32(0), out=out)
    return np.log1p(values, out=values)


def log_dense_tensor(dense: Tensor) -> Tensor:
    """`log_dense` of a tensor, missing values as 0, in operators that `torch.export` keeps as they are."""
    import torch

    return torch.log1p(torch.nan_to_num(dense, nan=0.0).clamp(min=0.0))
