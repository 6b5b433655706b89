"""What `sizewise bound` prints about `hash` and `robe`: expected errors at three frequencies of ids."""

import math
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sizewise.theory.pool import Frequencies, PoolMap, pair_error, read_moments
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import place
from sizewise_core.units import format_bytes
from sizewise_prep.shards.files import read_shard
from sizewise_prep.shards.manifest import Manifest

MOST_ROWS = 2_000_000  # of the data, from which ids are counted
MOST_SKEW = 10  # above it, one id gets nearly all lookups
LEAST_VECTORS = 4  # the smallest pool, for which the formulas hold

SHARES = 0.1, 0.5, 0.9  # of all lookups, which go to ids as frequent as the one that is shown, or more


class IdError(NamedTuple):
    """Expected errors at one frequency; of pairs: two orthogonal vectors of equal length, both as frequent."""

    share: float
    """Of all lookups: those of ids as frequent as this one, or more."""
    per_million: float
    """Of a million lookups: those of this id."""
    kept: float
    vector_error: float
    inner_product: float
    inner_product_rms: float
    squared_distance: float


def id_errors(pool: PoolMap, ids: Frequencies) -> list[IdError]:
    """Errors at the frequencies of a common id, of that of the median lookup, and of a rare one."""
    x = np.ones(pool.dim)
    y = np.resize([-1.0, 1.0], pool.dim)
    if pool.dim % 2 and pool.dim > 1:
        y[-1] = 0.0
    found, lookups = [], float(ids.weights @ ids.ids)
    for share in SHARES:
        weight = ids.at(share)
        read = read_moments(pool, ids, weight)
        pair = pair_error(pool, ids, (weight, weight), x, y)
        found.append(IdError(share, 1e6 * weight / lookups, read.kept, read.vector_error(), *pair))
    return found


def counted(folder: str, most_rows: int = MOST_ROWS) -> Frequencies:
    """From the first rows of the training split in a local folder of shards.

    Raises:
        InputError: a shard is missing or damaged, or there are no training rows.
    """
    manifest, rows = Manifest.load(folder), 0
    parts: list[NDArray[np.uint32]] = []
    for shard in manifest.splits["train"].shards:
        path = Path(folder) / shard.file
        try:
            parts.append(read_shard(path, manifest.shape(shard)).ids[: most_rows - rows])
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror or error}): prepare the data again, or give --rows N"
            ) from None
        rows += len(parts[-1])
        if rows >= most_rows:
            break
    if not rows:
        raise InputError(f"{folder}: has no training rows to count ids in: give --rows N")
    columns = (np.concatenate([part[:, c] for part in parts]) for c in range(parts[0].shape[1]))
    return Frequencies.of(np.concatenate([np.unique(column, return_counts=True)[1] for column in columns]))


class SharedPool(NamedTuple):
    """The expected errors of `hash` and `robe` with a pool of this size."""

    bytes: int
    frequencies: str
    """Where the ids' frequencies are from, in words."""
    maps: dict[str, tuple[PoolMap, list[IdError]]]

    def as_json(self) -> dict[str, object]:
        """As one object."""
        maps = [
            {"map": name, **pool._asdict(), "ids": [error._asdict() for error in errors]}
            for name, (pool, errors) in self.maps.items()
        ]
        return {"bytes": self.bytes, "frequencies": self.frequencies, "maps": maps}

    def text(self) -> str:
        """As a table for the terminal."""
        lines = [
            textwrap.fill(
                f"What can be expected of hash and robe with a pool of {format_bytes(self.bytes)}, ids being read "
                f"{self.frequencies}: relative errors of a vector, and of two orthogonal vectors of equal length and "
                "frequency, in the pool that is best by squared error, over the hash (docs/methods.md).",
                width=80,
            ),
            "",
            "                                         root mean square       expected",
            "                lookups  per million   vector  inner product  squared distance",
        ]
        before: list[str] = []
        for name, (_, errors) in self.maps.items():
            rows = [_row(error) for error in errors]
            if rows == before:
                lines.append(f"{name:<16} the same, to these digits")
            else:
                lines += [f"{name if row is rows[0] else '':<16}{row}" for row in rows]
            before = rows
        return "\n".join([*lines, "", "lookups: their share that goes to ids as frequent or more"])


def _row(error: IdError) -> str:
    often = f"{error.per_million:,.0f}" if error.per_million >= 10 else f"{error.per_million:.2g}"
    return (
        f"{error.share:>7.0%}{often:>13}{error.vector_error:>9.1%}{error.inner_product_rms:>15.1%}"
        f"{error.squared_distance:>+18.1%}"
    )


def shared_pool(memory_budget: int, rows: int, dim: int, data: str | None, skew: float) -> SharedPool:
    """What `sizewise bound` shows.

    Args:
        memory_budget: bytes of the pool of float32 numbers.
        rows: ids of all features.
        dim: length of a vector.
        data: a local folder of shards, for its ids' frequencies; else they are ``rank^-skew``.
        skew: exponent; 0 for ids that are all as frequent.

    Raises:
        InputError: the pool holds fewer than four vectors, or the skew is out of range.
    """
    if not 0 <= skew <= MOST_SKEW:
        raise InputError(f"--skew {skew:g} is out of range: choose 0 (all ids as frequent) to {MOST_SKEW}")
    least = 4 * dim * LEAST_VECTORS
    if memory_budget < least:
        raise InputError(
            f"--memory-budget: a pool of {format_bytes(memory_budget)} holds fewer than {LEAST_VECTORS} vectors of dim "
            f"{dim}: give {least} bytes or more"
        )
    if data is not None and isinstance(place(data), Path):
        ids, source = counted(data), f"as often as in up to {MOST_ROWS:,} training rows"
    else:
        ids, source = Frequencies.zipf(rows, skew), f"as often as rank^-{skew:g}"
    block_len = min(16, dim)
    align = math.gcd(4, block_len, dim)
    numbers = memory_budget // 4 // align * align
    rows_of_dim = PoolMap(memory_budget // (4 * dim) * dim, dim, dim, dim)
    blocks = PoolMap(numbers, dim, block_len, align)
    maps = {"hash": rows_of_dim, "robe": blocks, "robe, sign: true": blocks._replace(sign=True)}
    return SharedPool(
        memory_budget, source, {name: (pool, id_errors(pool, ids)) for name, pool in maps.items()}
    )
