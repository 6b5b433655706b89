"""Which trials share learning curves, or the first parts of them.

Trials that differ in length alone share a curve, unless their learning rate depends on the length. Where it falls at
their end, they still share the part before: a trial that keeps its state at the iterations where others begin to fall
lets those go on from there.
"""

from sizewise.config import Choices, StudySpec
from sizewise.config.fields import ends_of, is_domain
from sizewise.config.trial import TrialConfig
from sizewise.store.records import Record

MOST_LENGTHS = 16  # for which a trial keeps its state, a checkpoint each
_FALLS = ("decay", "decay_share", "decay_start", "decay_power")


class Curves:
    """The curves of the trials that have ended."""

    def __init__(self) -> None:
        self._longest: dict[str, Record] = {}
        self._stable: dict[str, dict[int, Record]] = {}  # by their epochs

    def add(self, record: Record, config: TrialConfig) -> None:
        """Take in a closed trial, if it was trained at all."""
        if record.trained_epochs is None:
            return
        longest = self._longest.get(config.curve())
        if longest is None or (longest.trained_epochs or 0.0) < record.trained_epochs:
            self._longest[config.curve()] = record
        if stable := config.stable_part():
            self._stable.setdefault(stable, {}).setdefault(config.search.epochs, record)

    def longest_of(self, config: TrialConfig) -> int | None:
        """The number of the longest trial with the curve of a configuration."""
        longest = self._longest.get(config.curve())
        return None if longest is None else longest.trial_id

    def stable_with(self, config: TrialConfig) -> list[Record]:
        """Trials that trained as a configuration does, up to where its learning rate falls; the longest come first."""
        stable = config.stable_part()
        found = self._stable.get(stable, {}) if stable else {}
        return [found[epochs] for epochs in sorted(found, reverse=True)]


def lengths(spec: StudySpec) -> list[int]:
    """The epochs of trials for which others are to keep their states; none where no two trials share a stable part."""
    if not any(is_domain(getattr(spec.train, name)) for name in _FALLS) and not is_domain(spec.search.epochs):
        return []
    if isinstance(spec.search.epochs, Choices):
        values = sorted(set(ends_of(spec.search.epochs)))
    else:
        low, high = ends_of(spec.search.epochs)[0], ends_of(spec.search.epochs)[-1]
        values = list(range(low, high + 1)) if high - low < 10_000 else [low, high]
    step = -(-len(values) // MOST_LENGTHS)
    return values[::-step][::-1]
