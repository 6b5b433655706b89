"""How planted rows are written: as text or Parquet (`files`), with a schema file beside and the truth of them."""

from typing import Literal

Format = Literal["text", "parquet"]
BETWEEN = ","
"""The values of a list in text."""
