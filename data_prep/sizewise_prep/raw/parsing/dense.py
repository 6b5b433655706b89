"""Dense values as models take them, where a schema says how: column by column.

    dense = transformed(rows.dense, layout)    # what shards hold
    rows = restored(dense, layout)             # back, but for rounding and what log(1 + max(x, 0)) loses

Without `transforms` in the layout shards hold the numbers themselves, of which training takes `rows.log_dense`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.rows import log_dense


class Scales(NamedTuple):
    """What is done to each dense column: log(1 + max(x, 0)), or (x - mean) * factor in float32; (columns,) each."""

    is_log: npt.NDArray[np.bool_]
    mean: npt.NDArray[np.float32]
    factor: npt.NDArray[np.float32]


def scales(layout: Layout) -> Scales | None:
    """What is done to the dense columns of a fitted layout; None where it says nothing of any."""
    if not layout.transforms:
        return None
    moments = [layout.moments(name) for name in layout.dense]
    return Scales(
        np.array([layout.transforms.get(name, "log1p") == "log1p" for name in layout.dense]),
        np.array([one.mean for one in moments], np.float32),
        np.array([1 / one.deviation for one in moments], np.float32),
    )


def transformed(dense: npt.NDArray[np.float32], layout: Layout) -> npt.NDArray[np.float32]:
    """Dense values as models take them, missing ones as NaN; `dense` is (rows, columns), float32."""
    found = scales(layout)
    if found is None:
        return log_dense(dense, fill=False)
    made = (dense - found.mean) * found.factor
    made[:, found.is_log] = log_dense(dense[:, found.is_log], fill=False)
    return made


def restored(dense: npt.NDArray[np.float32], layout: Layout) -> npt.NDArray[np.float32]:
    """The numbers of which `transformed` makes the same values again, but for rounding."""
    found = scales(layout)
    if found is None:
        return np.expm1(dense)
    made = dense / found.factor + found.mean
    made[:, found.is_log] = np.expm1(dense[:, found.is_log])
    return made
