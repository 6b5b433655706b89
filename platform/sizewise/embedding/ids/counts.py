"""How often every value of every feature occurs in the training rows, and which values matter most.

counts = [FeatureCounts(ids, counts, clicks), ...]            # one a feature
ranking = Ranking(counts, by="count", min_count=10)
features, ids = ranking.top(1000)                             # the most frequent first
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sizewise_core.errors import InputError

Words = npt.NDArray[np.uint32]
By = Literal["count", "chi2"]


class FeatureCounts(NamedTuple):
    """The values of one feature in the training rows."""

    ids: Words
    """(n,) uint32, ascending and distinct."""
    counts: npt.NDArray[np.int64]
    """(n,): rows that hold each."""
    clicks: npt.NDArray[np.int64] | None = None
    """(n,): those of the rows that were clicked."""


class Ranking:
    """Values of all features, most important first; of equally important ones that of the first feature, then id.

    Args:
        counts: one a feature.
        by: "count": how often a value occurs; "chi2": the chi-square of a value's presence and the label.
        min_count: values that occur fewer times take no part.

    Raises:
        InputError: chi-square is wanted without clicks.
    """

    def __init__(self, counts: Sequence[FeatureCounts], by: By, min_count: int) -> None:
        self._counts = counts
        self._starts = np.cumsum([0, *(len(feature.ids) for feature in counts)])
        occurring = np.concatenate([feature.counts for feature in counts])
        self._score = np.concatenate([_score(feature, by) for feature in counts])
        self._score[occurring < min_count] = -1
        self.size = int(np.count_nonzero(self._score >= 0))

    def top(self, most: int) -> tuple[npt.NDArray[np.int64], Words]:
        """Features and ids of the first values, at most so many."""
        most = min(most, self.size)
        least = np.partition(self._score, -most)[-most]
        candidates = np.flatnonzero(self._score >= least)
        chosen = candidates[np.argsort(-self._score[candidates], kind="stable")][:most]
        features = np.searchsorted(self._starts, chosen, "right") - 1
        ids = np.empty(most, np.uint32)
        for feature in range(len(self._counts)):
            of_feature = features == feature
            ids[of_feature] = self._counts[feature].ids[chosen[of_feature] - self._starts[feature]]
        return features, ids


def often_enough(counts: Sequence[FeatureCounts], min_count: int) -> int:
    """How many values occur at least so often; InputError if none does."""
    values = sum(int(np.count_nonzero(feature.counts >= min_count)) for feature in counts)
    if not values:
        most = max(int(feature.counts.max(initial=0)) for feature in counts)
        raise InputError(
            f"embedding.min_count {min_count}: no value occurs so often in the training rows (at most {most:,} "
            "times): set a lower min_count"
        )
    return values


def checked_counts(counts: Sequence[Any], features: int) -> list[FeatureCounts]:
    """Counts of so many features; InputError where they are not such."""
    if len(counts) != features:
        raise InputError(f"counts of {len(counts)} features were given, the embedding has {features}")
    checked = []
    for number, given in enumerate(counts):
        ids, occurring, clicks = (*given, None)[:3]
        feature = FeatureCounts(np.asarray(ids), np.asarray(occurring), clicks)
        ids, lengths = feature.ids, {len(values) for values in feature if values is not None}
        if ids.dtype != np.uint32 or len(lengths) != 1 or not (ids[1:] > ids[:-1]).all():
            raise InputError(
                f"counts of feature {number}: give distinct ascending uint32 ids, and one count for each"
            )
        checked.append(feature)
    return checked


def _score(feature: FeatureCounts, by: By) -> npt.NDArray[np.float64]:
    present = feature.counts.astype(np.float64)
    if by == "count":
        return present
    if feature.clicks is None:
        raise InputError("embedding.by chi2 needs the clicks of every value, and these counts have none")
    clicked = feature.clicks.astype(np.float64)
    rows, clicks = present.sum(), clicked.sum()
    apart = clicked * (rows - clicks) - (present - clicked) * clicks
    margins = present * (rows - present) * clicks * (rows - clicks)
    score: npt.NDArray[np.float64] = np.zeros_like(present)
    np.divide(rows * apart**2, margins, out=score, where=margins > 0)
    return score
