"""What the server that worker processes are forked from has imported and compiled before (see `workers`).

Not Polars: it starts threads of its own, and reads how many a worker is to have when it is imported. Nor SciPy, a third
of it all, which Numba would import to see whether there is linear algebra.
"""

import gc
import sys
from typing import Any

from sizewise_core import allocator

allocator.one_arena()  # before the libraries begin threads

import numpy as np  # noqa: E402

from sizewise_prep.pipeline import prep  # noqa: E402, F401
from sizewise_prep.pipeline.steps import assembly  # noqa: E402
from sizewise_prep.raw.parsing import lines  # noqa: E402

modules: dict[str, Any] = sys.modules
modules["scipy"] = None  # to Python: not installed
lines.split(b"1\t0\n", [-1, 0], 1, b"\t")
assembly.missing(np.empty((0, 1), np.float32), np.empty((0, 1), np.uint32))
del modules["scipy"]
gc.freeze()  # or a worker's first collection would write to, and so copy, every page that they share
