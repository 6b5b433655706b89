"""How what small models lose changes with the rows that they learn from: planted logs of growing size, over seeds.

    python -m benchmarks.trend                    # 0.14, 0.69 and 3.4 million rows, three seeds; hours on two cores
    python -m benchmarks.trend --rows 17150000 --seeds 1      # full tables of 0.5 GB, an hour and a half of one core
    python -m benchmarks.trend --rows 3430000 --only-goals    # what the goals are about, nothing else
    python -m benchmarks.trend --show             # the tables of what is finished

The log's world is one for all sizes of a run, its vocabularies grow with the rows as `sizewise_prep.planted` has it.
Full tables, `robe` in float32 and the best small methods (`hot` in int4 at 1,000x, `hash` of dim 1 in int4 at 10,000x)
learn from labels, and again with two teachers (rows of their own for values that ten training rows hold, one epoch).
Batch, learning rate and every other setting are the same for all methods and sizes. How often the rows are passed over
(with a teacher at a rate that falls to zero) is chosen on validation rows where there are several settings (`Epochs`).
`int4` is rounded after training, or learnt: in the last quarter, in the last half, or in all of the training the
numbers have four bits already, and the step between them is learnt (the best share by validation).
Training, records and splits are those of `benchmarks.quality`. Each training is kept when it is finished and skipped
next time. What the goals are about is trained for all seeds first. On a GPU rows are made there and steps are CUDA
graphs, one training at a time.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

if torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported

from benchmarks.quality.arms import FULL, POOLS, teachers
from benchmarks.quality.once import SEED_OF_THE_WORLD
from benchmarks.quality.rows import load, sizes
from benchmarks.quality.several import Source, complete
from benchmarks.quality.tables import Chosen, best, interval, settings
from benchmarks.scale.methods import Spec
from benchmarks.scale.runs import Training
from benchmarks.scale.table import Record
from benchmarks.timing import machine

ROWS = (137_139, 686_000, 3_430_000)
TEACHERS = 2
HOT, HASH = POOLS["hot, int8 or int4"][1_000], POOLS["hash, narrow, int4"][10_000]
ROBE = POOLS["robe, float32"]
SHARES = (0.25, 0.5, 1)
HOT_LEARNT, HASH_LEARNT = (tuple(replace(spec, learnt=share) for share in SHARES) for spec in (HOT, HASH))
ARMS: dict[str, tuple[Spec, ...]] = {
    "full tables": (FULL,),
    "hot, int4, 1,000x": (HOT,),
    "hot, int4 learnt, 1,000x": HOT_LEARNT,
    "robe, float32, 1,000x": (ROBE[1_000],),
    "hash, dim 1, int4, 10,000x": (HASH,),
    "hash, dim 1, int4 learnt, 10,000x": HASH_LEARNT,
    "robe, float32, 10,000x": (ROBE[10_000],),
}


@dataclass(frozen=True)
class Epochs:
    """How often trainings pass over the rows: from labels at most (validation chooses), with teachers by method.

    A step is learnt from labels where it is with teachers.
    """

    labels: int
    full_labels: int
    taught: dict[Spec, tuple[int, ...]]


FEW = Epochs(4, 2, {FULL: (4,), HOT: (4, 8), HASH: (8, 16), ROBE[1_000]: (8,), ROBE[10_000]: (16,)})
SOME = Epochs(2, 2, {FULL: (2,), HOT: (2, 4), HASH: (4,)})
MANY = Epochs(  # what the goals are about
    1,
    1,
    {FULL: (2,), HOT: (2,), HASH: (4,)} | dict.fromkeys(HOT_LEARNT, (2,)) | dict.fromkeys(HASH_LEARNT, (4,)),
)

MOST = Epochs(1, 1, {HOT: (2,), HOT_LEARNT[0]: (2,), HASH: (4,), HASH_LEARNT[0]: (4,)})


def epochs_at(rows: int) -> Epochs:
    """The more rows, the fewer passes over them: small logs over-fit, and large ones take long."""
    if rows < 1_000_000:
        return FEW if rows < 300_000 else SOME
    return MANY if rows < 10_000_000 else MOST


def trainings(epochs: Epochs, seed: int) -> list[Training]:
    """What is trained with a seed, passing over the rows so often: from labels, then with teachers."""
    labels = [
        Training(spec, epochs=epochs.full_labels if spec == FULL else epochs.labels, seed=seed)
        for specs in ARMS.values()
        for spec in specs
        if not spec.learnt or spec in epochs.taught
    ]
    distilled = [
        Training(spec, epochs=count, taught=True, falling=True, seed=seed)
        for spec, counts in epochs.taught.items()
        for count in counts
    ]
    return labels + sorted(distilled, key=lambda training: training.spec not in (HOT, HASH))


def goals_first(epochs: Epochs, seeds: int) -> tuple[list[Training], list[Training]]:
    """What the two goals are about, of all seeds, and all else: full tables, 1,000x from labels, 10,000x distilled."""
    every = [training for seed in range(1, seeds + 1) for training in trainings(epochs, seed)]
    labels, taught = (FULL, HOT, *HOT_LEARNT), (HASH, *HASH_LEARNT)
    needed = [training for training in every if training.spec in (taught if training.taught else labels)]
    return needed, [training for training in every if training not in needed]


def found(record: Record, specs: tuple[Spec, ...], taught: bool) -> Chosen | None:
    """Validation's choice of epochs, and of how long a step is learnt."""
    wanted = [
        result
        for result in record.results
        for spec in specs
        if (result.name, result.ratio, bool(result.teachers)) == (spec.name, spec.ratio, taught)
    ]
    return best(settings(specs[0].name, wanted))


def table(records: dict[int, Record]) -> str:
    """Every size's AUC and what is lost against full tables of the same seed, from labels."""
    lines = [
        "| training rows | method | bytes | labels only | against full | epochs "
        "| with two teachers | against full from labels | epochs |",
        "| --- " * 9 + "|",
    ]
    for rows, record in records.items():
        full = found(record, (FULL,), taught=False)
        for name, specs in ARMS.items():
            pair = [found(record, specs, taught) for taught in (False, True)]
            known = [chosen for chosen in pair if chosen]
            if not known:
                continue
            size = next(iter(known[0].results.values())).shipped_bytes
            cells = [f"{sizes(rows)[0]:,}", name, f"{size:,}"]
            for chosen in pair:
                cells += _cells(chosen, full)
            lines.append("| " + " | ".join(cells) + " |")
        own = [r.test_auc for r in record.results if r.name.startswith("frequent") and r.state == "end"]
        if own:
            lines.append(
                f"| {sizes(rows)[0]:,} | the teachers, each by itself | - | {statistics.mean(own):.4f} |"
                + " - |" * 5
            )
    return "\n".join(lines) + "\n"


def _cells(chosen: Chosen | None, full: Chosen | None) -> list[str]:
    if chosen is None:
        return ["-", "-", "-"]
    pairs = [(result, full.results.get(seed)) for seed, result in chosen.results.items()] if full else []
    differences = [mine.test_auc - theirs.test_auc for mine, theirs in pairs if theirs]
    learnt = next(iter(chosen.results.values())).name.partition(", step ")[2]
    epochs = f"{chosen.epochs:g}" + (f", {learnt}" if learnt else "")
    return [interval(chosen.test), interval(differences, signed=True), epochs]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="of the logs, test included")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--teacher-model", default="dlrm", help="around the teachers' embeddings: dlrm, deepfm, mlp, ..."
    )
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--jobs", type=int, default=0, help="trainings at a time; left out: 2, or 1 on a GPU")
    parser.add_argument("--work", type=Path, default=Path("build/trend"))
    parser.add_argument("--minutes", type=float, default=1e9, help="no training starts after that")
    parser.add_argument("--only-goals", action="store_true", help="nothing but what the goals are about")
    parser.add_argument(
        "--as-many",
        action="store_true",
        help="few rows trained like many: a rehearsal of what many are trained on",
    )
    parser.add_argument("--show", action="store_true", help="only the table of what is finished")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    until = time.monotonic() + 60 * arguments.minutes
    # Students' records are of these teachers.
    suffix = "" if arguments.teacher_model == "dlrm" else f"-{arguments.teacher_model}"
    folders = {rows: arguments.work / f"planted-{rows}{suffix}" for rows in arguments.rows}
    records = {rows: Record.open(folder) for rows, folder in folders.items()}
    for rows, record in records.items():
        if arguments.show:
            continue
        epochs = MANY if arguments.as_many else epochs_at(rows)
        of = Source(
            "planted",
            rows,
            arguments.batch,
            arguments.rate,
            device,
            looks=1 if epochs in (MANY, MOST) else 2,
        )
        needed, others = goals_first(epochs, arguments.seeds)
        listed = needed if arguments.only_goals else needed + others
        own = teachers(TEACHERS, arguments.teacher_model)
        complete(record, of, own, listed, arguments.jobs, until)
        _, bayes = load("planted", rows, SEED_OF_THE_WORLD, torch.device(device))
        (folders[rows] / "about.txt").write_text(f"{rows:,} rows: {bayes}\n")
        print(table(records), flush=True)
    about = [path.read_text() for path in sorted(arguments.work.glob("planted-*/about.txt"))]
    print(
        "".join(
            [*about, f"batch {arguments.batch}, Adagrad {arguments.rate}; {machine()}\n\n", table(records)]
        )
    )


if __name__ == "__main__":
    main()
