"""Rows of a click log as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
