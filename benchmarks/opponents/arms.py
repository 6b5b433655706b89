"""Every opponent's settings, and how many rows of each kind its bytes are."""

import torch
from benchmarks.opponents.alpt import STEP_BYTES, Alpt
from benchmarks.opponents.cafe import KEY_BYTES, SLOTS, Cafe
from benchmarks.opponents.double import KEY_BYTES as ID_BYTES
from benchmarks.opponents.double import Double
from benchmarks.opponents.memrec import MemRec
from benchmarks.quality.arms import made as made_for_quality
from benchmarks.scale.arrays import Values
from benchmarks.scale.methods import DIM, Method, Spec

from sizewise.embedding import Embedding, build, full_bytes
from sizewise.embedding.storage.quantization import most_numbers, stored_bytes

RATIOS = (100, 1_000, 10_000)
# Of each the two settings that validation chooses from.
OPPONENTS: dict[str, tuple[str, str]] = {
    "cafe": ("half of the bytes to own rows", "four fifths to own rows"),
    "double": ("half of the bytes to own rows", "four fifths to own rows"),
    "unified": ("two look-ups", "four look-ups"),
    "alpt": ("int8", "int4"),
    "qr": ("sum", "product"),
    "tt": ("rank up to 16", "rank up to 4"),
    "cce": ("two chunks", "four chunks"),
    "memrec": ("two tokens", "four tokens"),
}
SHARES = {"half of the bytes to own rows": 0.5, "four fifths to own rows": 0.8}
COUNTS = {"two": 2, "four": 4}
WEIGHTS = 0.1  # of memrec's numbers
SCALE = 2  # bytes of a table's scale


def spec_of(opponent: str, setting: str, ratio: int) -> Spec:
    """That of one setting at one compression; `alpt` is trained in its bits, and not rounded afterwards."""
    return Spec(f"{opponent}: {setting}", ratio, bits=32 if opponent == "alpt" else 4)


def made(spec: Spec, values: Values, seed: int, device: torch.device) -> Method:
    """An opponent's embedding, or one of the library's that `benchmarks.quality` compares.

    Raises:
        InputError: the bytes are too few for a method of the library.
    """
    opponent, _, setting = spec.method.partition(": ")
    if opponent not in OPPONENTS:
        return made_for_quality(spec, values, seed, device)
    budget = full_bytes(values.cardinalities, DIM) // spec.ratio
    embedding, size = _MAKERS[opponent](setting, values, budget, seed)
    embedding.to(device)
    pool = [parameter.detach() for parameter in embedding.parameters()]
    assert size <= budget, (spec, size, budget)
    return Method(spec, embedding, _as_they_are, _as_they_are, lambda: pool, size)


def _as_they_are(ids: torch.Tensor) -> torch.Tensor:
    return ids.long()


Made = tuple[Embedding, int]
"""An embedding, and the bytes that ship of it."""


def _cafe(setting: str, values: Values, budget: int, seed: int) -> Made:
    bucket = SLOTS * (KEY_BYTES + DIM // 2)  # four bits a number
    buckets = max(1, int(budget * SHARES[setting]) // bucket)
    shared = max(1, (budget - buckets * bucket - 2 * SCALE) // (DIM // 2))
    embedding = Cafe(list(values.cardinalities), DIM, buckets, shared, seed)
    return embedding, buckets * bucket + shared * DIM // 2 + 2 * SCALE


def _double(setting: str, values: Values, budget: int, seed: int) -> Made:
    own = min(int(budget * SHARES[setting]) // (ID_BYTES + DIM // 2), int((values.counts > 0).sum()))
    shared = max(1, (budget - own * (ID_BYTES + DIM // 2) - 2 * SCALE) // (DIM // 2))
    frequent = values.counts.topk(own).indices.cpu()
    embedding = Double(list(values.cardinalities), DIM, frequent, shared, seed, DIM)
    return embedding, own * (ID_BYTES + DIM // 2) + shared * DIM // 2 + 2 * SCALE


def _alpt(setting: str, values: Values, budget: int, seed: int) -> Made:
    bits = int(setting.removeprefix("int"))
    row = DIM * bits // 8 + STEP_BYTES
    rows = budget // row
    return Alpt(list(values.cardinalities), DIM, rows, bits, seed), rows * row


def _memrec(setting: str, values: Values, budget: int, seed: int) -> Made:
    numbers = (budget - 2 * SCALE) * 2
    weights = max(1, int(numbers * WEIGHTS))
    rows = (numbers - weights) // DIM
    ways = COUNTS[setting.split()[0]]
    embedding = MemRec(list(values.cardinalities), DIM, rows, weights, ways, seed)
    return embedding, (rows * DIM + weights + 1) // 2 + 2 * SCALE


def _of_the_library(
    method: str, tables: int, budget: int, values: Values, seed: int, **options: object
) -> Made:
    """One of the library's methods, whose tables have a scale each."""
    numbers = most_numbers(budget - (tables - 1) * SCALE, "int4")
    embedding = build(method, values.cardinalities, DIM, numbers * 4, seed, **options)
    size = stored_bytes(embedding.embedding_bytes // 4, "int4") + (tables - 1) * SCALE
    return embedding, size


def _unified(setting: str, values: Values, budget: int, seed: int) -> Made:
    """One table for all features, of which each value reads several rows, one after another (Coleman et al., "Unified
    Embedding", NeurIPS 2023): `robe` in aligned blocks."""
    block = DIM // COUNTS[setting.split()[0]]
    return _of_the_library("robe", 1, budget, values, seed, block_len=block, align=block)


def _qr(setting: str, values: Values, budget: int, seed: int) -> Made:
    return _of_the_library("qr", 2, budget, values, seed, combine=setting)


def _tt(setting: str, values: Values, budget: int, seed: int) -> Made:
    return _of_the_library("tt", 3, budget, values, seed, max_rank=int(setting.rpartition(" ")[2]))


def _cce(setting: str, values: Values, budget: int, seed: int) -> Made:
    """Without clustering its pointers are hashes, and nothing of them ships."""
    chunks = COUNTS[setting.split()[0]]
    return _of_the_library("cce", 2, budget, values, seed, chunks=chunks, clusterings=0, count_pointers=False)


_MAKERS = {
    "cafe": _cafe, "double": _double, "unified": _unified, "alpt": _alpt, "qr": _qr, "tt": _tt, "cce": _cce,
    "memrec": _memrec,
}  # fmt: skip
