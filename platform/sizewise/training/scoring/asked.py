"""The metrics that a trial's settings ask for, of the rows of a split.

    asked = Asked(config, manifest, splits)
    asked.measure("validation", labels, logits)        # {"gauc": 0.71}; nothing where nothing is asked for

The keys of the rows are read once, when they are needed first.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sizewise.config.trial import TrialConfig
from sizewise.metrics.asked import calibration_error, group_auc, logloss_by_frequency, tenths
from sizewise.training.input.batches import Split
from sizewise.training.scoring.predicting import EVALUATION_BATCH
from sizewise_prep.raw.layout import CRITEO
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.counts import training_counts

Column = npt.NDArray[np.integer]


class Asked:
    """What is measured beside the scores that every trial has.

    Args:
        config: the trial.
        manifest: of its data.
        splits: by name.
        size: rows that are scored together.
        world: workers, each of which scores a share of each batch.
    """

    def __init__(
        self,
        config: TrialConfig,
        manifest: Manifest,
        splits: Mapping[str, Split],
        size: int = EVALUATION_BATCH,
        world: int = 1,
    ) -> None:
        self._data, self._settings, self._splits = config.data, config.train, splits
        self._size, self._world = size, world
        self._columns = list((manifest.settings.layout or CRITEO).tokens)
        self._keys: dict[str, Column] = {}
        self._tenths: dict[str, Column] = {}

    def measure(
        self,
        split: str,
        labels: npt.NDArray[np.float32],
        logits: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float32] | None = None,
    ) -> dict[str, float]:
        """The metrics by name.

        Args:
            split: whose rows were scored.
            labels, logits, weights: (rows,), in the order in which the workers' shares come; weights may be None.
        """
        measured: dict[str, float] = {}
        if self._settings.gauc_by is not None:
            if split not in self._keys:
                self._keys[split] = self._values(split, self._settings.gauc_by)
            measured["gauc"] = group_auc(labels, logits, self._keys[split], weights)
        if self._settings.frequency_of is not None:
            if split not in self._tenths:
                self._tenths[split] = self._frequencies(split, self._settings.frequency_of)
            measured |= logloss_by_frequency(labels, logits, self._tenths[split], weights)
        if self._settings.calibration_bins:
            measured["calibration_error"] = calibration_error(
                labels, logits, self._settings.calibration_bins, weights
            )
        return measured

    def _values(self, split: str, column: str) -> Column:
        number = self._columns.index(column)
        parts = [
            batch.ids[:, number].numpy().copy()
            for rank in range(self._world)
            for batch in self._splits[split].in_order(self._size, rank, self._world)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint32)

    def _frequencies(self, split: str, column: str) -> Column:
        values = self._values(split, column)
        known = training_counts(self._data)[self._columns.index(column)]
        place = np.minimum(np.searchsorted(known.ids, values), max(len(known.ids) - 1, 0))
        if not len(known.ids):
            return tenths(np.zeros(len(values), np.int64))
        return tenths(np.where(known.ids[place] == values, known.counts[place], 0))
