"""The constraints of a study on what was measured of a model."""

from collections.abc import Mapping

from sizewise.config import Limit


class Limits:
    """A study's constraints, by metric."""

    def __init__(self, constraints: Mapping[str, Limit]) -> None:
        self._constraints = constraints

    def violations(self, measured: Mapping[str, float]) -> dict[str, float]:
        """By how much each constraint on a metric that was measured is broken."""
        named = _named(measured)
        return {
            metric: limit.violation(named[metric])
            for metric, limit in self._constraints.items()
            if metric in named
        }

    def broken(self, measured: Mapping[str, float]) -> str:
        """The broken constraints in words; nothing when all are kept."""
        return "; ".join(
            self._constraints[metric].text(metric, _named(measured)[metric])
            for metric, violation in self.violations(measured).items()
            if violation > 0
        )


def _named(measured: Mapping[str, float]) -> Mapping[str, float]:
    """Metrics by the names that objectives and constraints have."""
    return {**measured, "iterations": measured["iteration"]} if "iteration" in measured else measured
