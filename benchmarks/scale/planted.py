"""Planted rows in device memory, as many as fit beside the full tables and are made in time."""

import time
from collections.abc import Callable

import torch
from benchmarks.scale.arrays import Data, Split, number_values
from benchmarks.scale.methods import DIM
from benchmarks.scale.rows import DeviceWorld, Rows, distinct

from sizewise_prep.planted import Dials, World

BLOCK = 1 << 21  # rows made at a time
ROW_BYTES = (
    26 * 4 + 13 * 2 + 1 + 2 * 2
)  # ids, dense values, label; a teacher's scores, and the mixture with the label
COPIES = 3  # of the full tables: their numbers, Adagrad's sums of squares, a step's sums of gradients
SPARE = 4 << 30  # for a batch, scores, and what CUDA itself takes


def table_bytes(world: World, rows: int) -> int:
    """Bytes of full tables of the values that so many rows are expected to show."""
    return int(sum(distinct(column, rows) for column in world.columns)) * DIM * 4


def fitting(world: World, rows: int, held_out: int, free: int, multiple: int) -> int:
    """At most so many training rows, such that they, two held-out splits and training of full tables fit in memory."""
    while rows > multiple:
        counting = 20 * max(column.values for column in world.columns)
        tables = max(COPIES * table_bytes(world, rows), counting)
        if (rows + 2 * held_out) * ROW_BYTES + held_out * 8 + tables + SPARE <= free:
            break
        rows = rows * 15 // 16 // multiple * multiple
    return max(rows, multiple)


def make_data(
    seed: int, vocabulary: float, rows: int, held_out: int, device: torch.device, say: Callable[[str], None]
) -> Data:
    """Training rows 0 to `rows` of a planted world, then as many validation and test rows, values numbered."""
    begun = time.perf_counter()
    world = World(seed, rows + 2 * held_out, Dials(vocabulary=vocabulary))
    source = DeviceWorld(world, device)
    train = _rows(source, 0, rows, keep=False)
    validation = _rows(source, rows, rows + held_out, keep=True)
    test = _rows(source, rows + held_out, rows + 2 * held_out, keep=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    made = time.perf_counter()
    values = number_values(train, [validation, test], source.cardinalities)
    unseen = [
        float((split.ids > torch.tensor(values.sizes, device=device)).float().sum(1).mean())
        for split in (validation.head(1 << 20),)
    ]
    tables = sum(values.cardinalities) * DIM * 4
    say(
        f"{rows:,} training rows, {held_out:,} validation and {held_out:,} test rows in {made - begun:.1f} s; "
        f"{sum(values.sizes):,} values numbered in {time.perf_counter() - made:.1f} s: full tables of "
        f"{tables / 1e9:.2f} GB; {unseen[0]:.2f} tokens a validation row were not seen in training"
    )
    return Data(train, validation, test, values)


def _rows(source: DeviceWorld, start: int, stop: int, keep: bool) -> Split:
    """Rows start to stop; `keep` their true probabilities, too."""
    made = Rows.empty(stop - start if keep else 0, source.device)
    if not keep:
        made = Rows(
            *(torch.empty(stop - start, *c.shape[1:], dtype=c.dtype, device=c.device) for c in made[:3]),
            made[3],
        )
    spare = torch.empty(BLOCK, device=source.device)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        part = slice(first - start, last - start)
        probability = made.probability[part] if keep else spare[: last - first]
        source.rows(first, last, out=Rows(made.dense[part], made.ids[part], made.label[part], probability))
    return Split(made.dense, made.ids, made.label, made.probability if keep else None)
