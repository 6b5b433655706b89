"""Runs it all: see the package's docstring."""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

if torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported

from benchmarks.scale import planted
from benchmarks.scale.arrays import Data, predicted, scored
from benchmarks.scale.methods import Method, Spec, make
from benchmarks.scale.rows import bayes
from benchmarks.scale.runs import SCORED_AT_ONCE, Training, log_odds, train
from benchmarks.scale.table import Record, written
from benchmarks.scale.training import Schedule, fit, free, mixed, now
from benchmarks.timing import machine

from sizewise.embedding import fused
from sizewise.models.dlrm import DLRM
from sizewise_prep.planted import Dials, World

FIRST_LOOKS = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
BATCHES = (8_192, 16_384, 32_768, 65_536)
RATES = (0.01, 0.02, 0.05, 0.1)

FULL = Spec("full")
FREQUENT = Spec("frequent", least=10)
HOT_100 = Spec("hot", 100, width=8, bits=8)
HOT_1000 = Spec("hot", 1_000, width=2, bits=4)
HOT_1000_WIDE = Spec("hot", 1_000, width=4, bits=4)
HASH_10000 = Spec("hash", 10_000, width=1, bits=4)
HOT_10000 = Spec("hot", 10_000, width=1, bits=4, fingerprint=5)
ROBE = {ratio: Spec("robe", ratio) for ratio in (100, 1_000, 10_000)}


# The most valuable first. A model trained from labels at a rate that falls to zero is what people ship; at a constant
# rate its curve says how many iterations a quality takes.
TRAININGS = (
    Training(FULL),
    Training(FULL, falling=True, teacher=True),
    Training(HOT_1000, falling=True),
    Training(HASH_10000, epochs=3, falling=True),
    Training(ROBE[1_000], epochs=2, falling=True),
    Training(ROBE[10_000], epochs=3, falling=True),
    Training(HOT_1000, epochs=2),
    Training(HASH_10000, epochs=4),
    Training(FULL, falling=True, teacher=True, seed=2),
    Training(HOT_1000, epochs=2, taught=True, falling=True),
    Training(HASH_10000, epochs=4, taught=True, falling=True),
    Training(HOT_100, falling=True),
    Training(HOT_100, taught=True, falling=True),
    Training(ROBE[100], falling=True),
    Training(ROBE[10_000], epochs=4),
    Training(FULL, taught=True, falling=True),
    Training(HOT_10000, epochs=3, taught=True, falling=True),
    Training(HOT_1000, taught=True, falling=True),
    Training(ROBE[1_000], epochs=2, taught=True, falling=True),
    Training(HOT_1000, falling=True, seed=2),
    Training(HASH_10000, epochs=3, falling=True, seed=2),
    Training(HOT_1000, epochs=2, taught=True, falling=True, seed=2),
    Training(HASH_10000, epochs=4, taught=True, falling=True, seed=2),
    Training(FREQUENT, falling=True),
    Training(HOT_1000_WIDE, epochs=2, taught=True, falling=True),
)


def group(spec: Spec) -> str:
    """Trainings of one group have one learning rate."""
    if spec.method in ("full", "frequent"):
        return "full"
    return "robe" if spec.method == "robe" else "narrow"


@dataclass(frozen=True)
class Sizes:
    """Of a run."""

    rows: int = 1 << 28
    held_out: int = 1 << 22
    small_rows: int = 1 << 24
    small_held_out: int = 1 << 20
    timed_steps: int = 200
    batches: tuple[int, ...] = BATCHES
    rates: tuple[float, ...] = RATES
    looks: tuple[float, ...] = FIRST_LOOKS


SMOKE = Sizes(4096, 1024, 1024, 512, 2, (256, 512), (0.02, 0.1), (0.25, 0.5))
INTERPRETED = Sizes(64, 64, 32, 64, 2, (16, 32), (0.02,), (0.5,))


def said(error: Exception) -> str:
    """What it says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


class Bench:
    """One run of the program on one device."""

    def __init__(self, device: torch.device, folder: Path, sizes: Sizes, minutes: float) -> None:
        self.device, self.sizes, self.folder = device, sizes, folder
        self.begun = time.monotonic()
        self.end = self.begun + 60 * minutes
        self.record = Record.open(folder)
        self.heading: list[str] = []
        self.left_out: list[str] = []
        self.step_ms: dict[str, float] = {}
        self.rates: dict[str, float] = {}
        self.batch = sizes.batches[0]
        self.scores: torch.Tensor | None = None  # mean log-odds of the teachers so far, float16
        self.teachers = 0
        self.trainings: tuple[Training, ...] = ()

    def say(self, text: str, keep: bool = True) -> None:
        """Print, and keep above the table."""
        print(f"[{time.monotonic() - self.begun:6.1f} s] {text}", flush=True)
        if keep:
            self.heading.append(text)
            self.write()

    def write(self) -> None:
        """The table, as far as it is."""
        left = ["Left out, for want of time: " + "; ".join(self.left_out)] if self.left_out else []
        written(self.record, [line + "\n" for line in self.heading + left])

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def _built(self, spec: Spec, seed: int, data: Data) -> tuple[Method, DLRM]:
        method = make(spec, data.values, seed, self.device)
        return method, method.model(bfloat16=self.device.type == "cuda")

    # --- settings -------------------------------------------------------------------------------------------------

    def choose(self, data: Data, batch: int | None, seconds: float) -> None:
        """Batch by the clock, learning rates by small runs on validation rows; kept in the folder."""
        kept = self.folder / "settings.json"
        asked = {"rows": len(data.train), "values": sum(data.values.sizes)}
        if kept.exists():
            found = json.loads(kept.read_text())
            if found["data"] == asked and batch in (None, found["batch"]):
                self.batch, self.rates, self.step_ms = found["batch"], found["rates"], found["step_ms"]
                self.say(f"settings of before: batch {self.batch:,}, rates {self.rates}")
                return
        until = time.monotonic() + seconds
        self._choose_batch(data, batch, seconds * 2 / 3)
        lines = []
        for name, spec in {"full": FULL, "narrow": HOT_1000, "robe": ROBE[1_000]}.items():
            found = {}
            # From the middle outwards, so that a clock that runs out has seen the likeliest.
            for rate in sorted(self.sizes.rates, key=lambda rate: abs(rate - 0.021)):
                if found and time.monotonic() > until:
                    break
                try:
                    found[rate] = self._small(spec, rate, data)
                except Exception as error:
                    self.say(f"{name} at learning rate {rate:g}: failed: {said(error)}")
                    found[rate] = 0.0
            self.rates[name] = max(found, key=lambda rate: found[rate])
            lines.append(
                f"{name} " + ", ".join(f"{rate:g}: {auc:.4f}" for rate, auc in sorted(found.items()))
            )
        small = min(self.sizes.small_rows, len(data.train))
        self.say(
            f"learning rates, by validation AUC after {small:,} rows at batch {self.batch:,}: "
            + "; ".join(lines)
        )
        settings = {"data": asked, "batch": self.batch, "rates": self.rates, "step_ms": self.step_ms}
        kept.write_text(json.dumps(settings))

    def _choose_batch(self, data: Data, batch: int | None, until_rates: float) -> None:
        """The smallest batch at which three quarters of the list fit into what `until_rates` seconds leave."""
        for candidate in (batch,) if batch else self.sizes.batches:
            self.batch = candidate
            for name, spec in {"full": FULL, "narrow": HOT_1000, "robe": ROBE[1_000]}.items():
                try:
                    self.step_ms[name] = self._timed(spec, data)
                except Exception as error:
                    self.say(f"{name}: not timed: {said(error)}")
                    self.step_ms[name] = max(self.step_ms.values(), default=1.0)
            most = self.trainings[: -(-3 * len(self.trainings) // 4)]
            needed = sum(self.expected(training, len(data.train)) for training in most)
            times = ", ".join(f"{name} {ms:.3f} ms" for name, ms in self.step_ms.items())
            self.say(
                f"batch {candidate:,}: a step takes {times}; three quarters of the list take {needed:.0f} s"
            )
            if needed < self.left() - until_rates:
                break

    def expected(self, training: Training, rows: int) -> float:
        """Seconds that a training takes, evaluations, tests and a teacher's pass included."""
        step = self.step_ms.get(group(training.spec), 0.0) / 1e3
        looks = len(self.sizes.looks) + 4 * training.epochs
        per_row = step / self.batch / 3  # of a forward pass
        scored_rows = looks * self.sizes.held_out + training.teacher * rows
        return 1.5 + rows / self.batch * step * training.epochs + scored_rows * per_row

    def _timed(self, spec: Spec, data: Data) -> float:
        """Milliseconds of a step, recording left out."""
        method, model = self._built(spec, 1, data)
        rows = data.train.head(min(self.batch * (self.sizes.timed_steps + 20), len(data.train)))
        taken: list[tuple[int, float]] = []
        schedule = Schedule(1, self.batch, 0.02, looks=(min(0.5, 20 * self.batch / len(rows)),))
        fit(method, model, rows, rows.label, schedule, 1, lambda n, _, s: not taken.append((n, s)))
        del method, model
        free(self.device)
        (n0, s0), (n1, s1) = taken[0], taken[-1]
        return 1e3 * (s1 - s0) / max(n1 - n0, 1) if len(taken) > 1 else 1e3 * s1 / n1

    def _small(self, spec: Spec, rate: float, data: Data) -> float:
        method, model = self._built(spec, 1, data)
        rows, held = data.train.head(self.sizes.small_rows), data.validation.head(self.sizes.small_held_out)
        fit(method, model, rows, rows.label, Schedule(1, self.batch, rate), 1, lambda *_: True)
        auc = scored(held.label, predicted(model, method.ids, held, SCORED_AT_ONCE)).auc
        del method, model
        free(self.device)
        return auc if auc == auc else 0.0

    # --- trainings ------------------------------------------------------------------------------------------------

    def run(self, training: Training, data: Data) -> None:
        """Train, evaluate and record; what does not fit into the time left is left out."""
        # A teacher's scores are not kept: it is trained again where a student still waits for them.
        waited_for = training.teacher and any(t.taught and not self.record.has(t.key) for t in self.trainings)
        if self.record.has(training.key) and not waited_for:
            self.say(f"{training.key}: finished before", keep=False)
            return
        needed = self.expected(training, len(data.train))
        if needed > self.left() - 3:
            self.left_out.append(f"{training.key} ({needed:.0f} s)")
            self.say(
                f"{training.key}: left out, needs about {needed:.0f} s of {self.left():.0f} s", keep=False
            )
            self.write()
            return
        if training.taught and self.scores is None:
            self.left_out.append(f"{training.key} (no teacher)")
            return
        try:
            self._train(training, data)
        except Exception as error:  # out of memory, or what else a device has against it: the others go on
            self.say(f"{training.key}: failed: {said(error)}")
        free(self.device)

    def _train(self, training: Training, data: Data) -> None:
        begun = time.monotonic()
        method, model = self._built(training.spec, training.seed, data)
        target = data.train.label
        if training.taught:
            assert self.scores is not None
            target = mixed(target, self.scores)
        later = tuple(epoch + quarter / 4 for epoch in range(1, training.epochs) for quarter in range(4))
        rate = self.rates[group(training.spec)]
        schedule = Schedule(training.epochs, self.batch, rate, training.falling, self.sizes.looks + later)
        # A teacher that only its scores are wanted of again is in the folder already.
        record = None if self.record.has(training.key) else self.record
        teachers = self.teachers if training.taught else 0
        final = train(
            training, method, model, data, target, schedule, record, teachers, late=lambda: self.left() < 2
        )
        if training.teacher and final.state == "end":
            self._score(method, model, data)
        self.say(
            f"{training.key}: validation {final.validation_auc:.4f}, test {final.test_auc:.4f} "
            f"({final.float_test_auc:.4f} in float32), {final.shipped_bytes:,} bytes, "
            f"{final.seconds:.1f} s of training, {1e3 * final.seconds / final.iterations:.3f} ms a step, "
            f"{time.monotonic() - begun:.1f} s in all; {method.note}",
            keep=False,
        )
        self.step_ms[group(training.spec)] = 1e3 * final.seconds / final.iterations
        self.write()

    def _score(self, method: Method, model: DLRM, data: Data) -> None:
        """Add a teacher's log-odds for all training rows to the mean."""
        scores = log_odds(method, model, data)
        if self.scores is None:
            self.scores = torch.zeros(len(scores), dtype=torch.float16, device=self.device)
        self.scores.mul_(self.teachers / (self.teachers + 1)).add_(scores / (self.teachers + 1))
        self.teachers += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Full tables and pools on hundreds of millions of planted rows."
    )
    parser.add_argument("--minutes", type=float, default=6.5, help="that all of it may take")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "build/scale")), help="folder of results"
    )
    parser.add_argument("--rows", type=int, help="training rows; as many as fit, up to 268,435,456")
    parser.add_argument("--vocabulary", type=float, default=80.0, help="factor on the large columns' values")
    parser.add_argument("--batch", type=int, help="rows of a step; left out, by the clock")
    parser.add_argument("--choosing-seconds", type=float, default=45.0, help="for the choice of settings")
    parser.add_argument("--seed", type=int, default=1, help="of the planted world")
    parser.add_argument("--only", default="", help="trainings whose key has this text, with what they need")
    parser.add_argument("--smoke", action="store_true", help="tiny, on the CPU")
    parser.add_argument(
        "--interpreted", action="store_true", help="with --smoke: the GPU's kernels in Triton's interpreter"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.smoke:
        print("no CUDA device here: nothing measured (--smoke runs all of it without one)", file=sys.stderr)
        raise SystemExit(2)
    device = torch.device("cpu" if arguments.smoke else "cuda")
    if arguments.interpreted:
        fused.TRITON_ON.add("cpu")
        sizes = INTERPRETED
    else:
        sizes = SMOKE if arguments.smoke else Sizes()
    if arguments.smoke:
        torch.set_num_threads(1)
    if arguments.rows:
        sizes = replace(sizes, rows=arguments.rows)
    torch.set_float32_matmul_precision("high")
    bench = Bench(device, arguments.out, sizes, arguments.minutes)
    card = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else "no GPU: a smoke test, these numbers mean nothing"
    )
    bench.say(f"`python -m benchmarks.scale`, {card}; {machine()}")
    vocabulary = arguments.vocabulary if not arguments.smoke else 1.0
    rows, multiple = sizes.rows, sizes.batches[-1]
    rows = rows // multiple * multiple
    if device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0]
        world = World(arguments.seed, rows, Dials(vocabulary=vocabulary))
        fits = planted.fitting(world, rows, sizes.held_out, free_bytes, multiple)
        if fits < rows:
            bench.say(
                f"{rows:,} rows do not fit into {free_bytes / 1e9:.1f} GB beside the tables: {fits:,} rows"
            )
        rows = fits
    data = planted.make_data(arguments.seed, vocabulary, rows, sizes.held_out, device, bench.say)
    free(device)
    probability = data.test.probability
    assert probability is not None
    best, entropy = bayes(probability)
    drawn = scored(data.test.label, torch.logit(probability.double()))
    bench.say(
        f"Bayes AUC on the test rows {best:.4f} expected, {drawn.auc:.4f} on the labels drawn; "
        f"log-loss {entropy:.4f}, {drawn.logloss:.4f}"
    )
    bench.trainings = tuple(t for t in TRAININGS if arguments.only in t.key or t.teacher or t == TRAININGS[0])
    bench.choose(data, arguments.batch, arguments.choosing_seconds)
    bench.say(
        "AUC and log-loss of models as they ship; ± is 1.96 standard errors of the difference, on the same test rows, "
        "from full tables trained at the same kind of rate. Iterations are compared on validation rows, as multiples "
        "of those of full tables; a teacher takes as many as an epoch, once for all students."
    )
    for training in bench.trainings:
        bench.run(training, data)
    now(device)
    bench.say("finished" if not bench.left_out else "finished; some trainings did not fit", keep=False)
    print((arguments.out / "table.md").read_text())


if __name__ == "__main__":
    main()
