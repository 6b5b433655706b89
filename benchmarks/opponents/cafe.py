"""CAFE: a sketch finds hot values while training; they have rows of their own, all others share hashed rows.

Zhang et al., "CAFE: Towards Compact, Adaptive, and Fast Embedding for Large-scale Recommendation Models", SIGMOD 2024:
SpaceSaving in buckets of four slots, a value's importance the norm of its vector's gradient; a value that becomes hot
starts with the vector that it had. As simplified here every slot of the sketch owns a row, so that what the sketch
holds is what is hot: there is no threshold, no decay and no second level for values of medium importance. A key of four
bytes ships with each row; the sketch's scores do not.
"""

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.opponents.hashing import Hashed, Opponent, numbers
from numba import njit
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

SLOTS = 4  # of a bucket
KEY_BYTES = 4


class Cafe(Opponent):
    """Rows of the sketch's slots, then hashed ones."""

    def __init__(self, cardinalities: list[int], dim: int, buckets: int, shared: int, seed: int) -> None:
        super().__init__(cardinalities, dim, seed)
        self.own, self.shared = numbers(buckets * SLOTS, dim, seed), numbers(shared, dim, seed + 1)
        self.bucket = Hashed(self.features, 1, buckets, seed + 2)
        self.cold = Hashed(self.features, 1, shared, seed + 3)
        self.register_buffer("feature", torch.arange(self.features))
        self.keys = np.full((buckets, SLOTS), -1, np.int64)
        self.scores = np.zeros((buckets, SLOTS), np.float64)
        self._seen: list[tuple[Tensor, Tensor]] = []
        me = weakref.ref(self)
        handle = register_optimizer_step_post_hook(lambda optimizer, *_: _after_step(me, optimizer))
        weakref.finalize(self, handle.remove)

    feature: Tensor

    def lookup(self, ids: Tensor) -> Tensor:
        """Vectors of ids."""
        keys, buckets = ids + (self.feature << 32), self.bucket(ids).squeeze(-1)
        here = torch.from_numpy(self.keys)[buckets] == keys.unsqueeze(-1)
        slot = buckets * SLOTS + here.to(torch.uint8).argmax(-1)
        vectors = torch.where(
            here.any(-1, keepdim=True),
            nn.functional.embedding(slot, self.own),
            nn.functional.embedding(self.cold(ids).squeeze(-1), self.shared),
        )
        if vectors.requires_grad:
            vectors.register_hook(lambda gradient: self._seen.append((ids, gradient.detach().norm(dim=-1))))
        return vectors

    @torch.no_grad()
    def take(self, optimizer: torch.optim.Optimizer) -> None:
        """Count what the last step looked up; values that enter the sketch take their vectors along."""
        while self._seen:
            ids, importance = self._seen.pop()
            keys = (ids + (self.feature << 32)).flatten().numpy()
            unique, inverse = np.unique(keys, return_inverse=True)
            summed = np.bincount(inverse, importance.flatten().double().numpy(), len(unique))
            pair = torch.from_numpy(unique & 0xFFFFFFFF), torch.from_numpy(unique >> 32)
            buckets = _of_feature(self.bucket, *pair).numpy()
            entered, slots = _counted(unique, summed, buckets, self.keys, self.scores)
            if len(entered):
                rows = torch.from_numpy(slots)
                of = torch.from_numpy(entered)
                self.own[rows] = self.shared[_of_feature(self.cold, pair[0][of], pair[1][of])]
                if "sum" in (state := optimizer.state.get(self.own, {})):
                    state["sum"][rows] = 0.0


def _after_step(me: "weakref.ref[Cafe]", optimizer: torch.optim.Optimizer) -> None:
    embedding = me()
    if embedding is not None and embedding.own in optimizer.state:
        embedding.take(optimizer)


def _of_feature(hashed: Hashed, ids: Tensor, features: Tensor) -> Tensor:
    """Rows of (id, feature) pairs."""
    every = hashed(ids.unsqueeze(-1).expand(-1, len(hashed.hash.multiplier))).squeeze(-1)
    return every.gather(1, features.unsqueeze(-1)).squeeze(-1)


@njit(cache=False)
def _counted(keys: Any, amounts: Any, buckets: Any, held: Any, scores: Any) -> Any:
    """SpaceSaving: a key that is not held replaces the least of its bucket, and adds to its score."""
    entered, slots = [], []
    for n in range(len(keys)):
        b = buckets[n]
        least, found = 0, False
        for s in range(held.shape[1]):
            if held[b, s] == keys[n]:
                scores[b, s] += amounts[n]
                found = True
                break
            if scores[b, s] < scores[b, least]:
                least = s
        if not found:
            held[b, least] = keys[n]
            scores[b, least] += amounts[n]
            entered.append(n)
            slots.append(b * held.shape[1] + least)
    return _last_of_each(np.array(entered, np.int64), np.array(slots, np.int64))


@njit(cache=False)
def _last_of_each(entered: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> Any:
    """Of keys that took the same slot in turn, the last."""
    keep = np.ones(len(slots), np.bool_)
    order = np.argsort(slots, kind="mergesort")
    for n in range(len(order) - 1):
        if slots[order[n]] == slots[order[n + 1]]:
            keep[order[n]] = False
    return entered[keep], slots[keep]
