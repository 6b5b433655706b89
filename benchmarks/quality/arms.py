"""What is compared, and the library's embeddings that it is compared with."""

from collections.abc import Iterator, Sequence

import torch
from benchmarks.scale.arrays import Values
from benchmarks.scale.methods import DIM, STORAGES, Method, Spec, make
from benchmarks.scale.runs import Training

from sizewise.embedding import build, full_bytes
from sizewise.embedding.ids.counts import FeatureCounts
from sizewise.embedding.ids.hot_ids import coded_bytes
from sizewise.embedding.methods.hot import Hot
from sizewise.embedding.storage.quantization import most_numbers, stored_bytes

FULL = Spec("full")
TEACHER = Spec("frequent", least=10)
RATIOS = (100, 1_000, 10_000)
POOLS = {
    "robe, float32": {ratio: Spec("robe", ratio) for ratio in RATIOS},
    "robe, int4": {ratio: Spec("robe", ratio, bits=4) for ratio in RATIOS},
    "hash, narrow, int4": {
        ratio: Spec("hash", ratio, width=width, bits=4)
        for ratio, width in zip(RATIOS, (4, 2, 1), strict=True)
    },
    "hot, int8 or int4": {
        100: Spec("hot", 100, width=8, bits=8, least=10),
        1_000: Spec("hot", 1_000, width=2, bits=4, least=1),
        10_000: Spec("hot", 10_000, width=1, bits=4, fingerprint=5, least=1, by="chi"),
    },
}
LABELS_EPOCHS = {1: 2, 100: 2, 1_000: 3, 10_000: 4}  # at most: validation chooses the best of them
# Validation chooses one of these.
STUDENTS_EPOCHS = {1: (4,), 100: (4, 8), 1_000: (4, 8, 16), 10_000: (8, 16)}


def arm_of(spec: Spec) -> str:
    """The name of its row in the tables."""
    if spec.method == "full":
        return "full tables"
    return next((name for name, sizes in POOLS.items() if spec in sizes.values()), spec.name)


def trainings(
    seeds: int, epochs: list[int] | None, labels_epochs: int | None, other_rates: Sequence[float] = ()
) -> Iterator[Training]:
    """What is trained, seed after seed.

    Args:
        seeds: how many.
        epochs: of students; None: more, the smaller they are.
        labels_epochs: of all others, at most; None: the same.
        other_rates: learning rates that are tried beside the run's, from labels alone.
    """
    specs = (FULL, *(sizes[ratio] for ratio in RATIOS for sizes in POOLS.values()))
    for seed in range(1, seeds + 1):
        for spec in specs:
            for rate in (None, *other_rates):
                yield Training(spec, epochs=labels_epochs or LABELS_EPOCHS[spec.ratio], seed=seed, rate=rate)
        for spec in specs:
            for count in epochs or STUDENTS_EPOCHS[spec.ratio]:
                yield Training(spec, epochs=count, taught=True, falling=True, seed=seed)


def teachers(count: int, model: str = "dlrm") -> list[Training]:
    """The teachers: seeds that no student has."""
    return [Training(TEACHER, teacher=True, seed=101 + n, model=model) for n in range(count)]


def made(spec: Spec, values: Values, seed: int, device: torch.device) -> Method:
    """The library's embedding; a teacher's is that of `benchmarks.scale`."""
    cardinalities, storage = values.cardinalities, STORAGES[spec.bits]
    budget = full_bytes(cardinalities, DIM) // spec.ratio
    if spec.method in ("full", "frequent"):
        return make(spec, values, seed, device)
    if spec.method != "hot":
        numbers = most_numbers(budget, storage, multiple=spec.width)
        options = {} if spec.width == DIM else {"width": spec.width}
        embedding = build(spec.method, cardinalities, DIM, numbers * 4, seed, **options).to(device)
        size = stored_bytes(embedding.embedding_bytes // 4, storage)
        return _with(spec, embedding, size)
    embedding = build(
        "hot",
        cardinalities,
        DIM,
        _float_budget(spec, cardinalities, budget),
        seed,
        width=spec.width,
        fingerprint_bits=spec.fingerprint,
        min_count=spec.least,
        by="chi2" if spec.by == "chi" else "count",
    )
    assert isinstance(embedding, Hot)
    assigned = embedding.assign_rows(list(_counts(values)))
    size = stored_bytes(embedding.table.weight.numel(), storage) + embedding.hot.stored_bytes
    note = (
        f"{assigned.hot:,} of {assigned.values:,} values have rows of their own: {assigned.hot_lookups:.1%} of "
        f"lookups, and {assigned.mistaken_lookups:.1%} by mistake"
    )
    return _with(spec, embedding.to(device), size, note)


def _with(spec: Spec, embedding: torch.nn.Module, size: int, note: str = "") -> Method:
    pool = [parameter.detach() for parameter in embedding.parameters()]
    as_they_are = lambda ids: ids.long()  # noqa: E731
    return Method(spec, embedding, as_they_are, as_they_are, lambda: pool, size, note)  # type: ignore[arg-type]


def _float_budget(spec: Spec, cardinalities: list[int], budget: int) -> int:
    """Bytes in which float32 rows are as many as the budget has room for at the spec's bits."""
    features, storage = len(cardinalities), STORAGES[spec.bits]

    def size(rows: int, kind: str) -> int:
        numbers = stored_bytes((rows + features) * spec.width, kind)  # type: ignore[arg-type]
        return numbers + coded_bytes(features, rows, rows, spec.fingerprint)

    low, high = 1, sum(cardinalities)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle, storage) <= budget else (low, middle - 1)
    return size(low, "float32")


def _counts(values: Values) -> Iterator[FeatureCounts]:
    assert values.clicks is not None
    sizes = list(values.cardinalities)
    for counts, clicks in zip(values.counts.split(sizes), values.clicks.split(sizes), strict=True):
        ids = torch.arange(1, len(counts)).numpy().astype("uint32")
        yield FeatureCounts(ids, counts[1:].cpu().long().numpy(), clicks[1:].cpu().long().numpy())
