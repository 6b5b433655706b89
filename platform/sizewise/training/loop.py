"""What one Ray Train worker does: step, evaluate, report, checkpoint, resume.

`train` is the whole training loop and knows nothing of Ray: `workers` calls it inside a Ray Train worker, tests
and benchmarks with a reporter of their own.

    outcome = train(config, Path("checkpoints/0000"), report=print)
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch import nn

from sizewise.config.trial import TrialConfig
from sizewise.embedding import full_bytes
from sizewise.embedding.storage.rounding import rounds, stored_as
from sizewise.embedding.storage.table import shipped
from sizewise.metrics.errors import error_parts
from sizewise.metrics.evaluation import Evaluation, TestScores, as_rows, best, from_rows
from sizewise.metrics.registry import computed
from sizewise.metrics.scores import Scores, evaluate_scores
from sizewise.search.pruning import Comparison, verdict_from
from sizewise.store.study_folder import TrialFolder
from sizewise.theory.communication import wire_bytes
from sizewise.training.building import build_model as build_model  # also known by these names here
from sizewise.training.building import model_sizes as model_sizes
from sizewise.training.checkpoints import checkpoint
from sizewise.training.checkpoints.branching import branch, branch_points, keep
from sizewise.training.checkpoints.holding import held
from sizewise.training.how import How
from sizewise.training.input.batches import Batch, Split
from sizewise.training.memory import optimizer_bytes, peak_memory
from sizewise.training.memory import reset_peak_memory as reset_peak_memory
from sizewise.training.outcome import ONLY as ONLY
from sizewise.training.outcome import Outcome as Outcome
from sizewise.training.outcome import Worker as Worker
from sizewise.training.points import evaluation_points as evaluation_points
from sizewise.training.scoring.asked import Asked
from sizewise.training.scoring.predicting import Weighed, evaluation_rows
from sizewise.training.scoring.predicting import predict as predict
from sizewise.training.steps.dropout import add_dropout, seed_dropout, steps_are_seeded
from sizewise.training.steps.few_bits import FewBits
from sizewise.training.steps.optimizers import optimizer_of
from sizewise.training.steps.optimizers import restore as restore_optimizer
from sizewise.training.steps.schedule import STAIRS, Rates
from sizewise.training.steps.step import Distill, Step
from sizewise.training.teachers.teacher_sources import Source, with_scores
from sizewise_core.stores.claims import Claim, SupersededError
from sizewise_core.stores.storage import Place, place
from sizewise_prep.shards.cache import local_shards
from sizewise_prep.shards.manifest import Manifest

log = logging.getLogger(__name__)
Report = Callable[[Evaluation | None], None]
# Called once where a trial continues from a checkpoint, with the evaluations that it carried, and what was damaged.
Resumed = Callable[[Sequence[Evaluation], Sequence[str]], None]
Verdict = Callable[[Sequence[Evaluation]], str]  # why a trial with these evaluations should stop, or nothing


class DivergedError(RuntimeError):
    """The loss is no longer a number; the message names the iteration and the fix."""


def train(
    config: TrialConfig,
    folder: Place,
    report: Report,
    *,
    worker: Worker = ONLY,
    resumed: Resumed | None = None,
    **how: Unpack[How],
) -> Outcome:
    """Train one configuration to its last iteration, going on from the newest checkpoint in `folder`.

    Args:
        config: what to train.
        folder: where its checkpoints are.
        report: called with every evaluation.
        worker: which of its workers this is.
        resumed: called once where there was something to go on from, or something damaged.
        how: as `how.How` describes.

    Every worker calls `report` at every evaluation (rank 0 with the evaluation, the others with None), after the
    checkpoint that holds it has been written; and `resumed` once where there was something to go on from, or something
    damaged.

    Raises:
        DivergedError: the model's loss or output is not finite.
        DamagedError: the weights of the best evaluation were damaged since; the next attempt starts anew.
        Timeout: another process has been training this trial for minutes.
        SupersededError: another process has begun to train this trial (in an object store).
        InputError: a teacher cannot be used.
    """
    continues, pruning = how.get("continues"), how.get("pruning")
    with held(folder, worker.rank, worker.world) as (own, claim):
        if continues and worker.rank == 0:
            checkpoint.adopt(checkpoint.current(place(continues)), own)
        teacher = [Source.model_validate(dict(one)) for one in how.get("teacher", ())]
        trial = _Trial(config, own, worker, claim, teacher)
        trial.share(how.get("stable", ()), how.get("lengths", ()))
        trial.restore(resumed or _log_damage)
        return trial.run(report, _verdict(pruning) if pruning else lambda rows: "")


def _log_damage(evaluations: Sequence[Evaluation], damage: Sequence[str]) -> None:
    for line in damage:
        log.warning(line)


class _Trial:
    """The state of one trial while it trains."""

    def __init__(
        self,
        config: TrialConfig,
        folder: Place,
        worker: Worker,
        claim: Claim | None,
        teacher: Sequence[Source],
    ) -> None:
        self.config, self.folder, self.claim, self.teacher = config, folder, claim, teacher
        self.rank, self.world, self.device, self.uses = worker.rank, worker.world, worker.device, worker.uses
        self.of = checkpoint.identity(config)
        torch.manual_seed(config.seed)  # a process that trained another trial before must not matter
        data = local_shards(config.data)
        manifest = Manifest.load(data)
        self.full_bytes = full_bytes(manifest.cardinalities, config.model.dim)
        self.splits = {name: Split.open(data, name) for name in ("train", "validation", "test")}
        self.asked = Asked(config, manifest, self.splits, evaluation_rows(self.device), self.world)
        self.per_epoch = self.splits["train"].iterations(config.train.batch_size)
        self.model = build_model(config, manifest).to(self.device)
        self.model.embedding.set_schedule(self.per_epoch, config.search.epochs)
        self.few_bits = FewBits.of(config, self.model.embedding, config.search.epochs * self.per_epoch)
        add_dropout(self.model, config.train.dropout)
        self.seeded = steps_are_seeded(config, self.world, self.device)
        self.optimizer = optimizer_of(config, self.model, self.world)
        self.branches: set[int] = set()  # iterations after which its state is kept for other trials
        self.iteration, self.samples, self.train_seconds = 0, 0, 0.0
        self.evaluations: list[Evaluation] = []
        self.parallel: nn.Module = self.model
        gradients = sum(4 * p.numel() for p in self.model.parameters())
        self.wire_bytes = wire_bytes(gradients, self.world)
        if self.world > 1:
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
            self.parallel, self.optimizer, config.train.batch_size, self.device, self.world, distill=distill
        ).in_parts(config.train.accumulate)
        total = config.search.epochs * self.per_epoch
        stairs = STAIRS if self.step.recorder else None
        self.rates = Rates.of(config.train, config.search.learning_rate, total, stairs)

    def run(self, report: Report, verdict: Verdict) -> Outcome:
        """Train to the end, or until `verdict` has a reason to stop, and report every evaluation."""
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
        self._keep()
        saved = started = time.monotonic()
        while not pruned and self.iteration < total:
            self._step(next(batches))
            if self.iteration in points:
                self._synchronize()
                self.train_seconds += time.monotonic() - started
                self._evaluate()
                self._save()
                self._keep()  # before anybody knows that the trial has come so far
                report(self.evaluations[-1] if self.rank == 0 else None)
                pruned = self._ask(verdict)
                saved = started = time.monotonic()
            elif self._save_is_due(saved):
                self._synchronize()
                self.train_seconds += time.monotonic() - started
                self._save()
                self._keep()
                saved = started = time.monotonic()
        return Outcome(self.evaluations, self._test(), pruned)

    def _save_is_due(self, saved: float) -> bool:
        """Whether to save between evaluations; `saved` is when that was done last."""
        due = time.monotonic() - saved > self.config.train.checkpoint_seconds
        return due or self.iteration in self.branches

    def share(self, stable: Sequence[str], lengths: Sequence[int]) -> None:
        """Begin with what other trials kept, where there are no checkpoints, and keep its own states for others."""
        self.branches = branch_points(self.config, self.per_epoch, lengths)
        if self.rank == 0:
            branch([place(one) for one in stable], self.folder, self.config, self.per_epoch)

    def _keep(self) -> None:
        """Keep the state for other trials where they go on from it."""
        if self.rank == 0 and self.iteration in self.branches:
            keep(self.folder, self.config, self._state())

    def _rows(self, ended: bool) -> Split:
        """The training split, with a teacher's scores where there is one, and anything is left to train."""
        split = self.splits["train"]
        if not self.config.train.distill_teacher or ended:
            return split
        return with_scores(split, self.config, self.teacher, self.device)

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
        self.few_bits.step(self.model.embedding, self.iteration)
        if self.seeded:
            seed_dropout(self.config.seed, self.iteration, self.rank)
        self.step(batch, rows)
        self.iteration += 1
        self.samples += rows

    def _evaluate(self) -> None:
        labels, logits, weights = self._predict("validation")
        rounded, parts = self._evaluate_rounded()
        if self.rank:
            return
        measured = {
            "iteration": self.iteration,
            "epoch": self.iteration / self.per_epoch,
            "samples": self.samples,
            **self._scores_and_sizes(labels, logits, weights),
            "optimizer_bytes": optimizer_bytes(self.optimizer),
            "train_seconds": self.train_seconds,
            **{name: self.train_seconds * count for name, count in self.uses.items()},
            "samples_per_second": self.samples / max(self.train_seconds, 1e-9),
            "peak_memory_bytes": peak_memory(self.device),
            "wire_bytes": self.wire_bytes,
            **self.model.embedding.facts(),
        }
        row = Evaluation(
            measured, in_storages=rounded, parts_in_storages=parts, **error_parts(labels, logits, weights)
        )
        self.evaluations.append(row)
        if best(self.evaluations) is row:
            checkpoint.save_weights(self._weights(self.iteration), shipped(self.model.state_dict()), self.of)

    def _evaluate_rounded(self) -> tuple[Mapping[str, Mapping[str, float]], Mapping[str, Mapping[str, str]]]:
        """What is measured of the model rounded to each of the storages that the study asks for, and its errors."""
        measured: dict[str, Mapping[str, float]] = {}
        parts: dict[str, Mapping[str, str]] = {}
        if rounds(self.model.embedding):
            for storage in self.config.embedding.also_stored_as:
                with stored_as(self.model.embedding, storage):
                    labels, logits, weights = self._predict("validation")
                    measured[storage] = {} if self.rank else self._scores_and_sizes(labels, logits, weights)
                    parts[storage] = {} if self.rank else error_parts(labels, logits, weights)
        return measured, parts

    def _scores_and_sizes(
        self,
        labels: npt.NDArray[np.float32],
        logits: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float32] | None,
    ) -> dict[str, float]:
        """How good the model is that predicts this, and how large, as it is at this moment."""
        scores, size = evaluate_scores(labels, logits, weights), self.model.embedding_bytes
        return {
            "auc": scores.auc,
            "logloss": scores.logloss,
            "normalized_entropy": scores.normalized_entropy,
            **computed(labels, logits),
            **self.asked.measure("validation", labels, logits, weights),
            "embedding_bytes": size,
            "model_bytes": self.model.model_bytes,
            "compression_ratio": self.full_bytes / size,
        }

    def _predict(
        self, split: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Labels, logits and weights of a split; every worker computes its share of each batch, rank 0 gets all."""
        size = evaluation_rows(self.device)
        ahead = self.device.type == "cuda"
        rows = Weighed(self.splits[split].in_order(size, self.rank, self.world, ahead=ahead))
        labels, logits = predict(self.model, rows, self.device)
        weights = rows.weights()
        self.model.embedding.verify()  # what no step on a GPU has waited to check
        if self.world > 1:
            shares: list[Any] | None = [None] * self.world if self.rank == 0 else None
            torch.distributed.gather_object((labels, logits, weights), shares)
            if shares is not None:
                columns = list(zip(*shares, strict=True))
                labels, logits = (np.concatenate(column) for column in columns[:2])
                weights = None if weights is None else np.concatenate(columns[2])
        loss = self.step.loss()  # since the evaluation before: the first that the host hears of it
        if not (np.isfinite(logits).all() and math.isfinite(loss)):
            raise DivergedError(
                f"diverged: loss or predictions are not finite at iteration {self.iteration} "
                f"(learning rate {self.config.search.learning_rate:g}): search lower learning rates"
            )
        return labels, logits, weights

    def _test(self) -> TestScores:
        """Score the test split once, with the weights of the best evaluation on the validation split."""
        iteration = [best(self.evaluations).iteration if self.rank == 0 else 0]
        if self.world > 1:
            torch.distributed.broadcast_object_list(iteration)
        self.model.load_state_dict(checkpoint.load_weights(self._weights(iteration[0]), self.of))
        undefined = Scores(math.nan, math.nan, math.nan, math.nan, "the data has no test rows")
        if not self.splits["test"].rows:
            return TestScores(iteration[0], undefined)
        labels, logits, weights = self._predict("test")
        # Where ranks share the work, those of rank 0 count.
        others = (
            {}
            if self.rank
            else computed(labels, logits) | self.asked.measure("test", labels, logits, weights)
        )
        return TestScores(iteration[0], evaluate_scores(labels, logits, weights), others)

    def _save(self) -> None:
        if self.rank:
            return
        if self.claim and self.claim.superseded():
            raise SupersededError(f"{self.folder}: another process trains this trial now")
        checkpoint.save(self.folder, self.iteration, self._state())
        # Only now may older best weights be set apart: until here the checkpoint before this one needed them.
        kept = best(self.evaluations).iteration if self.evaluations else None
        checkpoint.drop_weights(self.folder, self.iteration, kept)

    def _state(self) -> checkpoint.State:
        return {
            "config": self.config.digest(),
            "of": self.of,
            "iteration": self.iteration,
            "samples": self.samples,
            "train_seconds": self.train_seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "evaluations": as_rows(self.evaluations),
        }

    def restore(self, resumed: Resumed) -> None:
        """Go on where the newest intact checkpoint left off; it was saved before anything of it was reported."""
        found = [checkpoint.newest_usable(self.folder, self.of) if self.rank == 0 else None]
        if self.world > 1:
            torch.distributed.broadcast_object_list(found)
        assert found[0] is not None
        state, damage = found[0]
        if state is not None:
            self.iteration = state["iteration"]
            self.samples = state["samples"]
            self.train_seconds = state["train_seconds"]
            self.evaluations = from_rows(state["evaluations"])
            self.model.load_state_dict(state["model"])
            self.few_bits.restore(self.model.embedding, self.iteration)
            restore_optimizer(self.optimizer, state["optimizer"])
            torch.set_rng_state(state["random"])
        if state is not None or damage:
            resumed(list(self.evaluations), damage)

    def _weights(self, iteration: int) -> Place:
        return TrialFolder(self.folder).weights(iteration)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _verdict(pruning: Mapping[str, Any]) -> Verdict:
    rule, path = Comparison.from_plain(pruning)
    return lambda rows: verdict_from(place(path), rule, rows)
