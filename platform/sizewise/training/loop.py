"""What one Ray Train worker does: step, evaluate, report, checkpoint, resume.

`train` is the whole training loop and knows nothing of Ray: `workers` calls it inside a Ray Train worker, tests
and benchmarks with a reporter of their own.

    outcome = train(config, Path("checkpoints/0000"), report=print)
"""

import contextlib
import gc
import logging
import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from filelock import FileLock
from torch import nn

from sizewise.config.trial import TrialConfig
from sizewise.embedding import full_bytes
from sizewise.metrics.evaluation import best
from sizewise.metrics.registry import computed
from sizewise.metrics.scores import Scores, evaluate_scores
from sizewise.search.pruning import Rule, auc_error, verdict_from
from sizewise.theory.communication import wire_bytes
from sizewise.training import checkpoint
from sizewise.training.batches import Batch, Split
from sizewise.training.building import build_model as build_model  # also known by these names here
from sizewise.training.building import model_sizes as model_sizes
from sizewise.training.optimizers import build_optimizer
from sizewise.training.optimizers import restore as restore_optimizer
from sizewise.training.predicting import evaluation_rows
from sizewise.training.predicting import predict as predict
from sizewise.training.schedule import STAIRS, Rates
from sizewise.training.step import Distill, Step
from sizewise.training.teacher import TeacherScores
from sizewise.training.teacher_sources import Source, teacher_of
from sizewise_core import allocator
from sizewise_core.claims import Claim, SupersededError
from sizewise_core.errors import InputError
from sizewise_core.sealed import DamagedError
from sizewise_core.storage import Place, entries, place, remove
from sizewise_prep.shards.cache import local_shards
from sizewise_prep.shards.manifest import Manifest

log = logging.getLogger(__name__)
ORPHAN_SECONDS = 300.0  # how long a worker whose driver died may hold its trial's folder
Report = Callable[[dict[str, Any]], None]
# Called once where a trial continues from a checkpoint, with the evaluations that it carried, and what was damaged.
Resumed = Callable[[list[dict[str, Any]], list[str]], None]
Verdict = Callable[[list[dict[str, Any]]], str]  # why a trial with these evaluations should stop, or nothing


@dataclass(frozen=True)
class Outcome:
    """What a finished trial leaves: all its evaluations, and the test scores of its best one."""

    evaluations: list[dict[str, Any]]
    test: dict[str, Any]
    pruned: str = ""  # why it ended before its last iteration, if it did


class DivergedError(RuntimeError):
    """The loss is no longer a number; the message names the iteration and the fix."""


def evaluation_points(config: TrialConfig, iterations_per_epoch: int) -> list[int]:
    """The iterations after which a trial is evaluated, the last one always among them."""
    total = config.search.epochs * iterations_per_epoch
    every = config.train.evaluate_every
    step = max(every if isinstance(every, int) else every * iterations_per_epoch, 1)
    points = {min(max(round(k * step), 1), total) for k in range(1, math.ceil(total / step) + 1)}
    return sorted(points | {total})


def train(
    config: TrialConfig,
    folder: Place,
    report: Report,
    *,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
    resumed: Resumed | None = None,
    uses: Mapping[str, float] | None = None,
    continues: str | None = None,
    pruning: dict[str, Any] | None = None,
    teacher: Sequence[Mapping[str, Any]] = (),
) -> Outcome:
    """Train one configuration to its last iteration, going on from the newest checkpoint in `folder`.

    Args:
        config: what to train.
        folder: where its checkpoints are.
        report: called with every evaluation.
        rank: of this worker.
        world: workers in all.
        device: to train on.
        resumed: called once where there was something to go on from, or something damaged.
        uses: what the trial holds while it trains (`cpu_seconds`: CPUs, `gpu_seconds`: GPUs), for evaluations to say
            how much of it led to them.
        continues: the checkpoints of a shorter trial of the same curve, to begin with.
        pruning: when to stop early: a `pruning.Rule` as a dictionary, and `path`, what the driver keeps on record.
        teacher: what a student learns from: each one's `teacher_sources.Source` as a dictionary.

    Every worker calls `report` at every evaluation (rank 0 with the evaluation's row, the others with an empty
    one), after the checkpoint that holds it has been written; and `resumed` once where there was something to
    go on from, or something damaged.

    Raises:
        DivergedError: the model's loss or output is not finite.
        DamagedError: the weights of the best evaluation were damaged since; the next attempt starts anew.
        Timeout: another process has been training this trial for minutes.
        SupersededError: another process has begun to train this trial (in an object store).
        InputError: a teacher cannot be used.
    """
    with _held(folder, rank, world) as (own, claim):
        if continues and rank == 0:
            checkpoint.adopt(checkpoint.current(place(continues)), own)
        where, sources = device or torch.device("cpu"), [Source.model_validate(dict(one)) for one in teacher]
        trial = _Trial(config, own, report, rank, world, where, claim, uses or {}, sources)
        trial.compared = pruning is not None
        trial.restore(resumed or _log_damage)
        return trial.run(_verdict(pruning) if pruning else lambda rows: "")


@contextlib.contextmanager
def _held(folder: Place, rank: int, world: int) -> Iterator[tuple[Place, Claim | None]]:
    """The folder to work in, which no other process works in: a worker orphaned by a killed driver may train on.

    A folder is locked: wait until the kernel has freed the orphan's lock. An object store has none: leave the
    orphan its files, work on copies, and hold a claim by which this worker learns that it has become an orphan.
    """
    if isinstance(folder, Path):
        checkpoint.make(folder)
        with FileLock(folder / "lock", timeout=ORPHAN_SECONDS) if rank == 0 else nullcontext():
            yield folder, None
        return
    own, claim = checkpoint.take_over(folder) if rank == 0 else (folder, None)
    shared = [str(own)]
    if world > 1:
        torch.distributed.broadcast_object_list(shared)
    yield place(shared[0]), claim


def _log_damage(evaluations: list[dict[str, Any]], damage: list[str]) -> None:
    for line in damage:
        log.warning(line)


class _Trial:
    """The state of one trial while it trains."""

    def __init__(
        self,
        config: TrialConfig,
        folder: Place,
        report: Report,
        rank: int,
        world: int,
        device: torch.device,
        claim: Claim | None,
        uses: Mapping[str, float],
        teacher: Sequence[Source],
    ) -> None:
        self.config, self.folder, self.report = config, folder, report
        self.rank, self.world, self.device, self.claim = rank, world, device, claim
        self.uses, self.teacher = uses, teacher
        self.of = checkpoint.identity(config)
        torch.manual_seed(config.seed)  # a process that trained another trial before must not matter
        data = local_shards(config.data)
        manifest = Manifest.load(data)
        self.full_bytes = full_bytes(manifest.cardinalities, config.model.dim)
        self.splits = {name: Split.open(data, name) for name in ("train", "validation", "test")}
        self.per_epoch = self.splits["train"].iterations(config.train.batch_size)
        self.model = build_model(config, manifest).to(device)
        self.model.embedding.set_schedule(self.per_epoch, config.search.epochs)
        self.optimizer = build_optimizer(
            config.train.optimizer, self.model, config.search.learning_rate, in_backward=world == 1
        )
        self.iteration = 0
        self.samples = 0
        self.train_seconds = 0.0
        self.evaluations: list[dict[str, Any]] = []
        self.compared = False  # with other trials, by their scores of the same rows
        self.parallel: nn.Module = self.model
        gradients = sum(4 * p.numel() for p in self.model.parameters())
        self.wire_bytes = wire_bytes(gradients, world)
        if world > 1:
            # One all-reduce of all gradients, made where they are; buffers are the same on every worker.
            self.parallel = nn.parallel.DistributedDataParallel(
                self.model,
                broadcast_buffers=False,
                bucket_cap_mb=gradients // 2**20 + 1,
                gradient_as_bucket_view=True,
            )
        distill = None
        if config.train.distill_teacher:
            distill = Distill(config.train.distill_weight, config.train.distill_temperature)
        self.step = Step(
            self.parallel, self.optimizer, config.train.batch_size, self.device, world, distill=distill
        )
        self.rates = Rates(
            config.train.decay,
            config.search.learning_rate,
            config.search.epochs * self.per_epoch,
            STAIRS if self.step.recorder else None,
        )

    def run(self, verdict: Verdict) -> Outcome:
        """Train to the end, or until `verdict` has a reason to stop."""
        points = set(evaluation_points(self.config, self.per_epoch))
        # Asked here too, because a trial that was interrupted may have been about to stop.
        pruned = self._ask(verdict) if self.evaluations else ""
        total = self.config.search.epochs * self.per_epoch
        ended = bool(pruned) or self.iteration >= total
        batches = self._rows(ended).stream(
            self.iteration,
            total,
            self.config.train.batch_size,
            self.config.seed,
            self.rank,
            self.world,
            ahead=self.device.type == "cuda",
        )
        saved = started = time.monotonic()
        while not pruned and self.iteration < total:
            self._step(next(batches))
            if self.iteration in points:
                self._synchronize()
                self.train_seconds += time.monotonic() - started
                self._evaluate()
                self._save()
                self.report(self.evaluations[-1] if self.rank == 0 else {})
                pruned = self._ask(verdict)
                saved = started = time.monotonic()
            elif time.monotonic() - saved > self.config.train.checkpoint_seconds:
                self._synchronize()
                self.train_seconds += time.monotonic() - started
                self._save()
                saved = started = time.monotonic()
        return Outcome(self.evaluations, self._test(), pruned)

    def _rows(self, ended: bool) -> Split:
        """The training split, with a teacher's scores where there is one, and anything is left to train."""
        split = self.splits["train"]
        if not self.config.train.distill_teacher or ended:
            return split
        if not self.teacher:
            raise InputError(f"distill.teacher: {', '.join(self.config.train.distill_teacher)} was not found")
        data = local_shards(self.config.data)
        scores = TeacherScores.of(
            teacher_of(self.teacher, data, self.device), self.config.data, Manifest.load(data), split
        )
        if scores.missing():
            scores.complete()
            gc.collect()
            allocator.give_back()
            reset_peak_memory(self.device)  # the trial's own peak comes without its teacher's
        return split.with_teacher(scores.shard)

    def _ask(self, verdict: Verdict) -> str:
        """Rank 0's verdict, for all; at the last iteration there is nothing left to stop."""
        ended = self.iteration >= self.config.search.epochs * self.per_epoch
        pruned = [verdict(self.evaluations) if self.rank == 0 and not ended else ""]
        if self.world > 1:
            torch.distributed.broadcast_object_list(pruned)
        return pruned[0]

    def _step(self, batch: Batch) -> None:
        position, size = self.iteration % self.per_epoch, self.config.train.batch_size
        rows = min(size, self.splits["train"].rows - position * size)
        self.rates.set(self.optimizer, self.iteration)
        self.step(batch, rows)
        self.iteration += 1
        self.samples += rows

    def _evaluate(self) -> None:
        labels, logits = self._predict("validation")
        if self.rank:
            return
        scores = evaluate_scores(labels, logits)
        row = {
            "iteration": self.iteration,
            "epoch": self.iteration / self.per_epoch,
            "samples": self.samples,
            "auc": scores.auc,
            "logloss": scores.logloss,
            "normalized_entropy": scores.normalized_entropy,
            **computed(labels, logits),
            "embedding_bytes": self.model.embedding.embedding_bytes,
            "model_bytes": self.model.model_bytes,
            "compression_ratio": self.full_bytes / self.model.embedding.embedding_bytes,
            "optimizer_bytes": optimizer_bytes(self.optimizer),
            "train_seconds": self.train_seconds,
            **{name: self.train_seconds * count for name, count in self.uses.items()},
            "samples_per_second": self.samples / max(self.train_seconds, 1e-9),
            "peak_memory_bytes": peak_memory(self.device),
            "wire_bytes": self.wire_bytes,
            **(auc_error(labels, logits) if self.compared else {}),
        }
        self.evaluations.append(row)
        if best(self.evaluations) is row:
            checkpoint.save_weights(self._weights(self.iteration), self.model.state_dict(), self.of)

    def _predict(self, split: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Labels and logits of a split, every worker computing its share of each batch; rank 0 gets them all."""
        size = evaluation_rows(self.device)
        ahead = self.device.type == "cuda"
        rows = self.splits[split].in_order(size, self.rank, self.world, ahead=ahead)
        labels, logits = predict(self.model, rows, self.device)
        self.model.embedding.verify()  # what no step on a GPU has waited to check
        if self.world > 1:
            shares: list[Any] | None = [None] * self.world if self.rank == 0 else None
            torch.distributed.gather_object((labels, logits), shares)
            if shares is not None:
                labels, logits = (np.concatenate(column) for column in zip(*shares, strict=True))
        loss = self.step.loss()  # since the evaluation before: the first that the host hears of it
        if not (np.isfinite(logits).all() and math.isfinite(loss)):
            raise DivergedError(
                f"diverged: loss or predictions are not finite at iteration {self.iteration} "
                f"(learning rate {self.config.search.learning_rate:g}): search lower learning rates"
            )
        return labels, logits

    def _test(self) -> dict[str, Any]:
        """Score the test split once, with the weights of the best evaluation on the validation split."""
        iteration = [best(self.evaluations)["iteration"] if self.rank == 0 else 0]
        if self.world > 1:
            torch.distributed.broadcast_object_list(iteration)
        self.model.load_state_dict(checkpoint.load_weights(self._weights(iteration[0]), self.of))
        undefined = Scores(math.nan, math.nan, math.nan, math.nan, "the data has no test rows")
        scores = evaluate_scores(*self._predict("test")) if self.splits["test"].rows else undefined
        return {"iteration": iteration[0], **scores._asdict()}

    def _save(self) -> None:
        if self.rank:
            return
        if self.claim and self.claim.superseded():
            raise SupersededError(f"{self.folder}: another process trains this trial now")
        state = {
            "config": self.config.digest(),
            "of": self.of,
            "iteration": self.iteration,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "evaluations": self.evaluations,
        }
        checkpoint.save(self.folder, self.iteration, state)
        # Only now may older best weights go: until here the checkpoint before this one needed them.
        keep = self._weights(best(self.evaluations)["iteration"]) if self.evaluations else None
        for old, *_ in entries(self.folder, "best-*.safetensors"):
            if old != keep and int(old.stem.removeprefix("best-")) < self.iteration:
                remove(old)

    def restore(self, resumed: Resumed) -> None:
        """Go on where the newest intact checkpoint left off; it was saved before anything of it was reported."""
        found = [self._newest() if self.rank == 0 else None]
        if self.world > 1:
            torch.distributed.broadcast_object_list(found)
        assert found[0] is not None
        state, damage = found[0]
        if state is not None:
            self.iteration = state["iteration"]
            self.samples = state["samples"]
            self.train_seconds = state["train_seconds"]
            self.evaluations = state["evaluations"]
            self.model.load_state_dict(state["model"])
            restore_optimizer(self.optimizer, state["optimizer"])
            torch.set_rng_state(state["random"])
        if state is not None or damage:
            resumed(list(self.evaluations), damage)

    def _newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest intact checkpoint, if any, and what was found damaged on the way to it."""
        damage: list[str] = []
        state = checkpoint.load_newest(self.folder, damage.append, self.of)
        if state is not None and state["evaluations"]:
            try:
                checkpoint.load_weights(self._weights(best(state["evaluations"])["iteration"]), self.of)
            except DamagedError as error:
                # No later checkpoint brings these weights back: only training does, which gives the same ones.
                damage.append(f"{error}: the trial starts anew")
                for path, *_ in entries(self.folder, "*.ckpt"):
                    checkpoint.set_aside(path)
                return None, damage
        return state, damage

    def _weights(self, iteration: int) -> Place:
        return self.folder / f"best-{iteration:012d}.safetensors"

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _verdict(pruning: dict[str, Any]) -> Verdict:
    rule, path = Rule.model_validate(pruning["rule"]), place(pruning["path"])
    return lambda rows: verdict_from(path, rule, rows)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimizer's state: memory that training takes and the deployed model does not."""
    tensors = (
        value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    )
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_memory(device: torch.device) -> int:
    """Bytes: of device memory on a GPU, of resident memory of this process otherwise."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Count peaks of memory from here on, as Linux and CUDA allow; elsewhere they stay those of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now
