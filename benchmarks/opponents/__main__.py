"""Runs it all: see the package's docstring."""

import argparse
import time
from pathlib import Path

import torch
from benchmarks.opponents.arms import OPPONENTS, RATIOS, made, spec_of
from benchmarks.quality.arms import FULL, LABELS_EPOCHS, POOLS
from benchmarks.quality.once import SEED_OF_THE_WORLD
from benchmarks.quality.rows import REAL, load
from benchmarks.quality.several import Source, complete
from benchmarks.quality.tables import Chosen, best, interval, settings
from benchmarks.scale.methods import Spec
from benchmarks.scale.runs import Training
from benchmarks.scale.table import Record
from benchmarks.timing import machine

OURS = ("robe, float32", "robe, int4", "hash, narrow, int4", "hot, int8 or int4")


def training(spec: Spec, seed: int) -> Training:
    """From labels, as long as those of `benchmarks.quality`."""
    return Training(spec, epochs=LABELS_EPOCHS[spec.ratio], seed=seed)


def chosen(record: Record, specs: list[Spec], seeds: int) -> Chosen | None:
    """Validation's choice of settings and passes, by the results of the first seeds."""
    names = {(spec.name, spec.ratio) for spec in specs}
    wanted = [
        result
        for result in record.results
        if (result.name, result.ratio) in names and not result.teachers and result.seed <= seeds
    ]
    return best(settings("", wanted))


def specs_of(opponent: str, ratio: int) -> list[Spec]:
    """Both settings."""
    return [spec_of(opponent, setting, ratio) for setting in OPPONENTS[opponent]]


def run(record: Record, of: Source, seeds: int, jobs: int, until: float) -> None:
    """Full tables and ours, then the opponents: both settings with one seed, then what validation chose with others."""
    ours = [FULL, *(POOLS[name][ratio] for name in OURS for ratio in RATIOS)]
    several = range(1, seeds + 1)
    complete(record, of, [], [training(spec, seed) for seed in several for spec in ours], jobs, until)
    every = [spec for ratio in RATIOS for opponent in OPPONENTS for spec in specs_of(opponent, ratio)]
    complete(record, of, [], [training(spec, 1) for spec in every], jobs, until)
    more = []
    for ratio in reversed(RATIOS):
        for opponent in OPPONENTS:
            pair = specs_of(opponent, ratio)
            found = chosen(record, pair, seeds=1)
            if found:
                name = next(iter(found.results.values())).name
                more += [spec for spec in pair if spec.name == name]
    complete(record, of, [], [training(spec, seed) for seed in several[1:] for spec in more], jobs, until)


def table(record: Record, seeds: int) -> str:
    """Test AUC of what validation chose at every compression, and what it is less than full tables of the same seed."""
    full = chosen(record, [FULL], seeds)
    lines = [
        "| method | " + " | ".join(f"{ratio:,}x | against full" for ratio in RATIOS) + " | chosen |",
        "| --- " * 8 + "|",
    ]
    if full:
        lines.append(f"| full tables | {interval(full.test)} |" + " - |" * 6)
    named = [(name, {ratio: [POOLS[name][ratio]] for ratio in RATIOS}) for name in OURS]
    named += [(name, {ratio: specs_of(name, ratio) for ratio in RATIOS}) for name in OPPONENTS]
    for name, specs in named:
        cells, words = [name], []
        for ratio in RATIOS:
            found = chosen(record, specs[ratio], seeds)
            if not found or not full:
                cells += ["-", "-"]
                continue
            pairs = [(r, full.results.get(seed)) for seed, r in found.results.items()]
            differences = [mine.test_auc - theirs.test_auc for mine, theirs in pairs if theirs]
            cells += [interval(found.test), interval(differences, signed=True)]
            words.append(next(iter(found.results.values())).name.partition(": ")[2].removesuffix(" int4"))
        lines.append("| " + " | ".join([*cells, ", ".join(filter(None, dict.fromkeys(words)))]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["real", "planted"], help="real, planted, or raw rows")
    parser.add_argument("--rows", type=int, default=137_139, help="of the planted log")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/quality"),
        help="that of `benchmarks.quality` is gone on with",
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="no training starts after that")
    parser.add_argument("--show", action="store_true", help="only the tables of what is finished")
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    for data in arguments.data:
        source = str(REAL) if data == "real" else data
        if source != "planted" and not Path(source).exists():
            print(f"{source}: there are no such rows: left out")
            continue
        name = f"planted-{arguments.rows}" if data == "planted" else Path(source).name.partition(".")[0]
        record = Record.open(arguments.work / name)
        if not arguments.show:
            of = Source(source, arguments.rows, arguments.batch, arguments.rate, "cpu", looks=1, make=made)
            run(record, of, arguments.seeds, arguments.jobs, until)
        _, known = load(source, arguments.rows, SEED_OF_THE_WORLD, torch.device("cpu"))
        print(
            f"## {name}\n\n{'; '.join(filter(None, [known, machine()]))}\n\n{table(record, arguments.seeds)}"
        )


if __name__ == "__main__":
    main()
