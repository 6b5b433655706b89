"""What running trials are compared with: the front of all evaluations on record, for the rule that stops trials early.

The driver keeps it up to date and writes it for the workers now and then; `search.pruning` has the rule.
"""

import math
import time
from collections.abc import Sequence

import numpy as np

from sizewise.metrics.evaluation import Evaluation
from sizewise.search import pruning
from sizewise.search.pruning import Comparison, Front, Rule
from sizewise.search.suggest import Search
from sizewise.store.study_folder import StudyFolder
from sizewise_core.stores.storage import Place

# What running trials are compared with may be this old; a trial that begins gets it fresh.
FRONT_SECONDS = 1.0


class FrontOnRecord:
    """The front of a study's evaluations.

    Args:
        rule: when a trial is stopped early.
        search: the study's trials.
        folder: the study's.
    """

    def __init__(self, rule: Rule, search: Search, folder: Place) -> None:
        self.rule, self._search, self._folder = rule, search, folder
        self._front = Front()
        self._written = -math.inf  # when it was; never where nobody reads it
        self._read = False
        self.fill()

    def fill(self) -> None:
        """Take what is on record out of the ledger: a failed trial's models are on no front."""
        self._front = Front()
        for number, record in self._search.records.items():
            if record.state in ("running", "finished", "pruned"):
                self._take(self._search.ledger.evaluations(number))

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        """Take evaluations in, and write the front where that changed what somebody reads."""
        if self._take(evaluations) and self._read and time.monotonic() - self._written > FRONT_SECONDS:
            self._write()

    def _take(self, evaluations: Sequence[Evaluation]) -> bool:
        """Whether that changed the front."""
        changed = [self._front.add(self.rule.cost(one), one) for one in evaluations]
        return any(changed)

    def comparison(self) -> Comparison:
        """What a trial that begins is given, with the front as it is now."""
        self._read = True
        self._write()
        return Comparison(self.rule, str(StudyFolder(self._folder).pruning))

    def verdict(self, evaluations: Sequence[Evaluation]) -> str:
        """Why the trial with these should stop now; "" to train on. Workers ask `pruning.verdict_from`."""
        return self.rule.verdict(evaluations, self._front, len(self._search.records), self._seed_variance())

    def _write(self) -> None:
        pruning.save(self._folder, self._front, len(self._search.records), self._seed_variance())
        self._written = time.monotonic()

    def _seed_variance(self) -> float:
        """Of AUC over replicates, pooled over the configurations that have some; 0 while there are none."""
        groups = [[r.values["auc"] for r in group if r.values] for group in self._search.replicated]
        groups = [aucs for aucs in groups if len(aucs) > 1]
        freedom = sum(len(aucs) - 1 for aucs in groups)
        return float(sum(np.var(aucs) * len(aucs) for aucs in groups) / freedom) if groups else 0.0
