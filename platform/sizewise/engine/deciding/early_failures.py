"""Trials that fail before their first evaluation: by their configuration, or for a reason that would hit every trial.

An environment that is broken (a module that does not load, a card that cannot be used, a compiler that is missing)
fails trial after trial in seconds. So while no trial has been evaluated since the driver started, a failed trial stays
open: until another one is evaluated, which shows that trials can be trained here, or until so many have failed for the
same reason that it cannot be the configurations'.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

ENOUGH = 3  # trials in a row that fail for one reason
# What a configuration does, such as a learning rate that is too high, or a model that is too large.
_OWN = re.compile(r"DivergedError: |out of memory: ")
# Trials, processes and addresses, which differ in one reason.
_NUMBERS = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")
_SHOWN = 200  # characters of a reason


class Failure(NamedTuple):
    """Why a trial failed, and whether its worker had begun, so that its configuration can be to blame."""

    reason: str
    began: bool


@dataclass
class EarlyFailures:
    """What failed since the driver started, while it is unknown whether their configurations are to blame."""

    held: dict[int, Failure] = field(default_factory=dict)  # by trial, in the order in which they ended
    possible: bool = False  # a trial was evaluated here, so that trials can be trained

    def doubtful(self, reason: str) -> bool:
        """Whether a failure may have a reason that would hit every trial."""
        return not self.possible and not _OWN.match(reason)

    def add(self, trial_id: int, failure: Failure) -> None:
        """Keep a doubtful failure."""
        self.held[trial_id] = failure

    def common(self, last: bool) -> str:
        """The reason that hits every trial, in a sentence; nothing while there is none.

        Args:
            last: no other trial is left to show whether trials can be trained here.
        """
        found = list(self.held.values())
        same = len({_NUMBERS.sub("#", failure.reason) for failure in found}) == 1
        enough = len(found) >= (1 if last and not any(f.began for f in found) else 2 if last else ENOUGH)
        if not same or not enough:
            return ""
        who = "the first trial" if len(found) == 1 else f"{len(found)} trials of {len(found)}"
        first = min(self.held)
        return (
            f"{who} failed before the first evaluation, and so would all others: {found[0].reason:.{_SHOWN}} "
            f"(traceback: logs/{first:04d}.txt)"
        )
