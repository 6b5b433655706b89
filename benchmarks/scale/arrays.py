"""Click rows as arrays in a device's memory, their token values numbered by what the training rows hold.

Each feature's values that occur in training rows are numbered from 1, and 0 stands for all others. Values that other
rows alone hold keep a number of their own above these: tables read them as 0, hashes as the values that they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

CHUNK = 1 << 24  # rows of a column worked on at a time
FEW = 1 << 20
GROUPS = 128  # of rows, by which the error of a difference of two AUCs is estimated


@dataclass
class Split:
    """Rows of one split.

    Attributes:
        dense: (rows, 13) float16 or float32, log(x + 1).
        ids: (rows, 26) int32.
        label: (rows,) uint8.
        probability: (rows,) float32, the true one; None where it is not known or not needed.
    """

    dense: Tensor
    ids: Tensor
    label: Tensor
    probability: Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)

    def head(self, rows: int) -> "Split":
        """The first rows, in the same memory."""
        return self.part(0, rows)

    def part(self, start: int, stop: int) -> "Split":
        """Rows start to stop (exclusive), in the same memory."""
        part = slice(start, stop)
        probability = None if self.probability is None else self.probability[part]
        return Split(self.dense[part], self.ids[part], self.label[part], probability)

    def ordered(self, order: Tensor) -> "Split":
        """The rows in another order, copied."""
        return Split(self.dense[order], self.ids[order], self.label[order])


@dataclass(eq=False)
class Values:
    """The values of the training rows, numbered.

    Attributes:
        sizes: of each feature, without "all others".
        counts: (sum of sizes + 1,) int32, training rows of each, feature after feature, "all others" first.
        clicks: those of them with a click; None if they were not counted.
    """

    sizes: list[int]
    counts: Tensor
    clicks: Tensor | None = None

    @property
    def cardinalities(self) -> list[int]:
        """Rows that a table of each feature has."""
        return [size + 1 for size in self.sizes]

    def starts(self) -> Tensor:
        """Where each feature begins in `counts`, int32 (features,)."""
        rows = torch.tensor(self.cardinalities, device=self.counts.device)
        return (rows.cumsum(0) - rows).to(torch.int32)


@dataclass
class Data:
    """All splits and their values."""

    train: Split
    validation: Split
    test: Split
    values: Values


def number_values(
    train: Split, others: Sequence[Split], universe: Sequence[int], with_clicks: bool = False
) -> Values:
    """Number the values that training rows hold, in place in all splits.

    Args:
        train: whose values get the numbers 1, 2, ...
        others: whose further values get numbers above these.
        universe: of each feature, what all its ids are below.
        with_clicks: count the clicks of each value, too.
    """
    sizes, counts, clicks = [], [], []
    for column, limit in enumerate(universe):
        count = _counted(train, column, limit)
        seen = count > 0
        number = seen.cumsum(0, dtype=torch.int32)
        size = int(number[-1])
        unseen = torch.arange(size + 1, size + 1 + limit, dtype=torch.int32, device=count.device)
        number = torch.where(seen, number, unseen)
        zero = count.new_zeros(1)
        counts.append(torch.cat([zero, count[seen]]))
        if with_clicks:
            clicks.append(torch.cat([zero, _counted(train, column, limit, clicked=True)[seen]]))
        for split in (train, *others):
            for start in range(0, len(split), CHUNK):
                part = split.ids[start : start + CHUNK, column]
                part.copy_(number[part.long()])
        sizes.append(size)
    return Values(sizes, torch.cat(counts), torch.cat(clicks) if with_clicks else None)


def _counted(split: Split, column: int, limit: int, clicked: bool = False) -> Tensor:
    """Rows, or clicks, of each id of a column: (limit,) int32."""
    total = torch.zeros(limit, dtype=torch.int32, device=split.ids.device)
    for start in range(0, len(split), CHUNK):
        ids = split.ids[start : start + CHUNK, column]
        if clicked:
            ids = ids[split.label[start : start + CHUNK] == 1]
        if limit < FEW:  # counted in the multiprocessors: all rows of a large part have the same few values
            total += torch.bincount(ids.long(), minlength=limit).to(torch.int32)
        else:
            total.index_add_(0, ids.long(), torch.ones_like(ids))
    return total


@dataclass(frozen=True)
class Scores:
    """How good a set of scores is; `parts` (`GROUPS`) are what the error of a difference is estimated from."""

    auc: float
    logloss: float
    parts: tuple[float, ...] = ()

    def error_of_difference(self, other: "Scores") -> float:
        """Standard error of the difference of two AUCs of the same rows (DeLong et al. 1988, by groups of rows)."""
        return sum((a - b) ** 2 for a, b in zip(self.parts, other.parts, strict=True)) ** 0.5


def scored(label: Tensor, logits: Tensor, with_parts: bool = False) -> Scores:
    """AUC (ties count one half) and log-loss, computed on the device of the scores; NaN where one is NaN.

    Args:
        label: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
        with_parts: what `error_of_difference` needs, too.
    """
    clicked = label == 1
    clicks, rest = logits[clicked], logits[~clicked]
    if not len(clicks) or not len(rest) or bool(logits.isnan().any()):
        return Scores(float("nan"), float("nan"))
    wins = _share_below(rest, clicks)
    logits64 = logits.double()
    logloss = float((softplus(logits64) - logits64 * label).mean())
    parts: tuple[float, ...] = ()
    if with_parts:
        components = torch.empty(len(label), dtype=torch.float64, device=label.device)
        components[clicked] = (wins - wins.mean()) / len(clicks)
        losses = _share_below(clicks, rest)
        components[~clicked] = (losses.mean() - losses) / len(rest)
        group = torch.arange(len(label), device=label.device) % GROUPS
        sums = torch.zeros(GROUPS, dtype=torch.float64, device=label.device).index_add_(0, group, components)
        sums = (sums - sums.mean()) * (GROUPS / (GROUPS - 1)) ** 0.5
        parts = tuple(sums.tolist())
    return Scores(float(wins.mean()), logloss, parts)


def _share_below(these: Tensor, of: Tensor) -> Tensor:
    """For each score, the share of `these` below it; equal ones count one half. Float64."""
    these = these.sort().values
    twice = torch.searchsorted(these, of) + torch.searchsorted(these, of, right=True)
    return twice.double() / (2 * len(these))


def predicted(model: torch.nn.Module, to_ids: Callable[[Tensor], Tensor], split: Split, batch: int) -> Tensor:
    """Log-odds of all rows, float32 (rows,); nothing waits for the host."""
    logits = torch.empty(len(split), device=split.label.device)
    with torch.no_grad():
        for start in range(0, len(split), batch):
            part = slice(start, start + batch)
            logits[part] = model(split.dense[part].float(), to_ids(split.ids[part])).float()
    return logits
