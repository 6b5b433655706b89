"""Which model tolerates compression best: test AUC of each at 1x, 100x and 1,000x, over seeds, equally tuned.

    python benchmarks/models.py --work build/models          # a run that was ended goes on where it was
    python benchmarks/models.py --work build/models --show   # the tables of what is finished

Full tables (1x) and one robe pool (100x, 1,000x), float32, dim 16, Adagrad, batches of 512. Each model at each size
has its learning rate chosen on validation rows with the first seed, out of one list for all; other seeds have that
rate, and validation chooses the epoch. Rows: the real sample; planted ones; planted ones with crosses that carry signal
(`crosses`: `sizewise generate --crosses 3`), whose log-odds have a term for every pair of values of three pairs of
features, so that no sum over features can express them; the same with a feature for each of these pairs (`crossed`).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.quality.rows import REAL, load, sizes
from benchmarks.quality.tables import interval
from benchmarks.scale.arrays import Data, Split, number_values, predicted, scored
from benchmarks.scale.methods import BOTTOM, TOP, Spec, make
from benchmarks.scale.rows import bayes
from benchmarks.scale.table import Record, Result
from benchmarks.scale.training import Schedule, fit
from benchmarks.timing import machine

from sizewise import models
from sizewise_prep.planted import Dials, World
from sizewise_prep.planted.columns.crosses import PAIRS
from sizewise_prep.raw.parsing.rows import log_dense

MODELS: dict[str, dict[str, Any]] = {
    "dlrm": {"bottom_mlp": BOTTOM, "top_mlp": TOP},
    "dcn": {"layers": 3, "rank": 64, "bottom_mlp": BOTTOM, "top_mlp": TOP},
    "deepfm": {"top_mlp": TOP},
    "mlp": {"top_mlp": TOP},
    "wide_deep": {"top_mlp": TOP},
}
RATIOS = (1, 100, 1_000)
RATES = (0.005, 0.01, 0.02, 0.04)
SOURCES = ("real", "planted", "crosses", "crossed")
ROWS, BATCH, EPOCHS, SEEDS = 137_139, 512, 2, 3
CROSSES = Dials(crosses=3)
CPU = torch.device("cpu")


class Training(NamedTuple):
    """One model, trained once."""

    kind: str
    ratio: int
    rate: float
    seed: int

    @property
    def key(self) -> str:
        """What it is known by in a folder of results."""
        return f"{self.kind} {self.ratio}x rate{self.rate:g} seed{self.seed}"


@lru_cache(maxsize=1)
def data_of(source: str) -> tuple[Data, str]:
    """Rows, and what is known of the best possible test AUC."""
    if source in ("real", "planted"):
        return load(str(REAL) if source == "real" else source, ROWS, 1, CPU)
    rows = _with_crosses(as_features=source == "crossed")
    train, validation, test = sizes(len(rows))
    ends = (0, train), (train, train + validation), (len(rows) - test, len(rows))
    splits = [rows.part(*end) for end in ends]
    universe = [int(column.max()) + 1 for column in rows.ids.T]
    probability = splits[2].probability
    assert probability is not None
    known = f"Bayes AUC on the test rows {bayes(probability.double())[0]:.4f} expected"
    return Data(*splits, number_values(splits[0], splits[1:], universe)), known


def _with_crosses(as_features: bool) -> Split:
    """Planted rows of which crosses carry signal, and a feature for each of these or none."""
    chunk = World(1, ROWS, CROSSES).chunk(0, ROWS)
    columns = list(chunk.tokens)
    if as_features:
        pairs = [(columns[a].astype(np.uint64), columns[b]) for a, b in PAIRS[: CROSSES.crosses]]
        columns += [np.where((a == 0) | (b == 0), 0, a << 32 | b) for a, b in pairs]
    ids = np.stack([np.unique(column, return_inverse=True)[1] for column in columns], axis=1)
    dense = np.where(chunk.observed, chunk.integers, np.nan).T.astype(np.float32)
    arrays = (
        log_dense(dense, fill=True),
        ids.astype(np.int32),
        chunk.labels,
        chunk.probability.astype(np.float32),
    )
    return Split(*map(torch.from_numpy, arrays))


def train(training: Training, data: Data, record: Record) -> None:
    """Train, and keep a result at the end of each epoch."""
    spec = Spec("full" if training.ratio == 1 else "robe", training.ratio)
    method = make(spec, data.values, training.seed, CPU)
    dense = data.train.dense.shape[1]
    model = models.build(training.kind, method.embedding, dense, MODELS[training.kind])
    schedule = Schedule(EPOCHS, BATCH, training.rate, looks=tuple(range(1, EPOCHS + 1)), shuffled=True)
    found: list[Result] = []

    def watch(iterations: int, epoch: float, seconds: float) -> bool:
        logits = [predicted(model, method.ids, split, 1 << 14) for split in (data.validation, data.test)]
        validation, test = scored(data.validation.label, logits[0]), scored(data.test.label, logits[1])
        state = "end" if epoch >= EPOCHS else "epoch"
        found.append(
            Result(
                training.key, training.kind, training.ratio, training.seed, 0, training.rate, False, BATCH,
                method.shipped_bytes, epoch, iterations, seconds, validation.auc, test.auc, test.logloss, test.auc,
                state=state, note=f"{model.model_bytes - model.embedding.embedding_bytes} bytes of layers",
            )
        )  # fmt: skip
        return True

    fit(method, model, data.train, data.train.label, schedule, training.seed, watch)
    for result in found:
        record.add(result)


def tuned(record: Record, kind: str, ratio: int) -> float | None:
    """The rate of the best validation AUC with the first seed; None until all of them were tried."""
    tried = [r for r in record.results if (r.name, r.ratio, r.seed) == (kind, ratio, 1)]
    if {result.rate for result in tried} != set(RATES):
        return None
    return max(tried, key=lambda result: result.validation_auc).rate


def missing(record: Record, kinds: Iterable[str] = tuple(MODELS)) -> Iterator[Training]:
    """What is to be trained next, until nothing is."""
    for ratio in RATIOS:
        for kind in kinds:
            for rate in RATES:
                yield Training(kind, ratio, rate, 1)
            for seed in range(2, SEEDS + 1):
                yield Training(kind, ratio, tuned(record, kind, ratio) or RATES[0], seed)


def chosen(record: Record, kind: str, ratio: int) -> list[Result]:
    """The results of validation's choice of rate and epoch, by seed."""
    rate = tuned(record, kind, ratio)
    results = [r for r in record.results if (r.name, r.ratio, r.rate) == (kind, ratio, rate)]
    by_epoch = {epoch: [r for r in results if r.epoch == epoch] for epoch in {r.epoch for r in results}}
    best = max(
        by_epoch.values(), key=lambda group: statistics.mean(r.validation_auc for r in group), default=[]
    )
    return sorted(best, key=lambda result: result.seed)


def table(record: Record, kinds: Iterable[str] = tuple(MODELS)) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| model | compression | rate | epochs | test AUC | against its own 1x | against dlrm of that size |"
    yield "| --- " * 7 + "|"
    for ratio in RATIOS:
        for kind in kinds:
            found = chosen(record, kind, ratio)
            if not found:
                continue
            against = [_difference(found, chosen(record, *other)) for other in ((kind, 1), ("dlrm", ratio))]
            cells = [kind, f"{ratio:,}x", f"{found[0].rate:g}", f"{found[0].epoch:g}"]
            yield "| " + " | ".join([*cells, interval([r.test_auc for r in found]), *against]) + " |"


def _difference(results: list[Result], others: list[Result]) -> str:
    """Paired by seed."""
    other = {result.seed: result.test_auc for result in others}
    pairs = [result.test_auc - other[result.seed] for result in results if result.seed in other]
    return interval(pairs, signed=True) if any(pairs) else "-"


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/models"))
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=SOURCES)
    parser.add_argument("--minutes", type=float, default=1e9, help="no training starts after that")
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * arguments.minutes
    for source in arguments.only:
        if source == "real" and not REAL.exists():
            print(f"{REAL}: there are no such rows: left out", file=sys.stderr)
            continue
        record = Record.open(arguments.work / source)
        known = ""
        for training in () if arguments.show else missing(record):
            if record.has(training.key):
                continue
            if time.monotonic() > until:
                break
            data, known = data_of(source)
            train(training, data, record)
            print(training.key, [f"{r.validation_auc:.4f}" for r in record.results[-EPOCHS:]], flush=True)
        known = known or data_of(source)[1]
        print(
            "\n".join(
                [f"\n### {source}", "", "; ".join(filter(None, [known, machine()])), "", *table(record)]
            )
        )


if __name__ == "__main__":
    main()
