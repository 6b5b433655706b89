"""Runs it all: see the package's docstring."""

import argparse
import os
import sys
import time
from pathlib import Path

import torch

if torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported

from benchmarks.quality import tables
from benchmarks.quality.arms import teachers, trainings
from benchmarks.quality.once import SEED_OF_THE_WORLD
from benchmarks.quality.rows import REAL, load
from benchmarks.quality.several import Source, complete
from benchmarks.scale.table import Record
from benchmarks.timing import machine


def command_line() -> argparse.Namespace:
    """What it was started with."""
    parser = argparse.ArgumentParser(description="Test AUC of every method and size, over seeds.")
    parser.add_argument(
        "--data", nargs="+", default=["real", "planted"], help="real, planted, or paths of raw rows"
    )
    parser.add_argument("--rows", type=int, default=137_139, help="of the planted log")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--epochs", type=int, nargs="+", help="of students (default: more, the smaller they are)"
    )
    parser.add_argument("--labels-epochs", type=int, help="of all others, at most")
    parser.add_argument("--teachers", type=int, default=4)
    parser.add_argument(
        "--teacher-model", default="dlrm", help="around the teachers' embeddings: dlrm, deepfm, mlp, ..."
    )
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[0.02, 0.01],
        help="Adagrad's: validation chooses one from labels alone; teachers and students have the first",
    )
    parser.add_argument("--only", default="", help="students whose key has this text")
    parser.add_argument("--jobs", type=int, default=0, help="trainings at a time; left out: 2, or 1 on a GPU")
    parser.add_argument("--work", type=Path, default=Path("build/quality"))
    parser.add_argument("--minutes", type=float, default=1e9, help="no training starts after that")
    parser.add_argument("--show", action="store_true", help="only the tables of what is finished")
    return parser.parse_args()


def main() -> None:
    arguments = command_line()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    until = time.monotonic() + 60 * arguments.minutes
    finished: dict[str, Record] = {}
    for data in arguments.data:
        source = str(REAL) if data == "real" else data
        if source != "planted" and not Path(source).exists():
            print(f"{source}: there are no such rows: left out", file=sys.stderr)
            continue
        name = f"planted-{arguments.rows}" if data == "planted" else Path(source).name.partition(".")[0]
        if arguments.teacher_model != "dlrm":  # other students' records are of other teachers
            name += f"-{arguments.teacher_model}"
        record = Record.open(arguments.work / name)
        if not arguments.show:
            students = [
                training
                for training in trainings(
                    arguments.seeds, arguments.epochs, arguments.labels_epochs, arguments.rates[1:]
                )
                if arguments.only in training.key
            ]
            own = teachers(arguments.teachers, arguments.teacher_model)
            of = Source(source, arguments.rows, arguments.batch, arguments.rates[0], device)
            complete(record, of, own, students, arguments.jobs, until)
        _, known = load(source, arguments.rows, SEED_OF_THE_WORLD, torch.device("cpu"))
        heading = [f"## {name}", "", "; ".join(filter(None, [known, machine()]))]
        kind = "planted" if data == "planted" else "real" if "kaggle_sample" in source else ""
        text = tables.written(record, kind if arguments.rows == 137_139 else "", heading)
        (arguments.work / name / "tables.md").write_text(text)
        print(text, flush=True)
        finished[kind or name] = record
    if len(finished) > 1:
        print(tables.pooled(finished), flush=True)


if __name__ == "__main__":
    main()
