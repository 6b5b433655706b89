"""What the server that worker processes are forked from has imported and compiled before (see `workers`).

Not Polars: it starts threads of its own, and reads how many a worker is to have when it is imported. Nor SciPy, a third
of it all, which Numba would import to see whether there is linear algebra.
"""

import sys
from typing import Any

import pyarrow  # noqa: F401
import pydantic  # noqa: F401

from sizewise_prep import lines

modules: dict[str, Any] = sys.modules
modules["scipy"] = None  # to Python: not installed
lines.split(b"1\t0\n", [-1, 0], 1, b"\t")
del modules["scipy"]
