"""Imported by the server that forks worker processes (see `workers`), so that they start with what is imported here.

It leaves out Polars, which starts threads and reads their number when it is imported, and SciPy, a third of the time,
which Numba would import to see whether linear algebra is available.
"""

import gc
import sys
from typing import Any

from sizewise_core.machine import allocator

allocator.one_arena()  # before the libraries begin threads

import numpy as np  # noqa: E402

from sizewise_prep.pipeline import prep  # noqa: E402, F401
from sizewise_prep.pipeline.jobs import assembly  # noqa: E402
from sizewise_prep.raw.parsing import lines  # noqa: E402

modules: dict[str, Any] = sys.modules
modules["scipy"] = None  # makes `import scipy` fail
lines.split(b"1\t0\n", [-1, 0], 1, b"\t")
assembly.missing(np.empty((0, 1), np.float32), np.empty((0, 1), np.uint32))
del modules["scipy"]
gc.freeze()  # otherwise a worker's first collection would write to, and so copy, every shared page
