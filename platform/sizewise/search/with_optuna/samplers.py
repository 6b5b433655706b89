"""Optuna's side of a search: which configuration to try next, given what is known. No Ray and no ledger here.

Every sampler is made afresh for each configuration, seeded from (study seed, configuration number), and sees
nothing but the known trials, in order. So a search that is given the same trials again, out of a ledger, suggests
the same again. Two kinds of samplers differ in how known trials are added to them:

- `nsgaii`, `nsgaiii` and `qmc` keep a state of their own (a trial's generation, a generation's parents, the position
  in the sequence). These come back by asking them again for every known trial, with its parameters given.
- the others look at trials alone, so known trials are simply added.

What Optuna does for a suggestion grows faster than the number of trials: it sorts them all by dominance. So
`tpe` and `gp` see a window of the known trials. When twice `WINDOW` trials have gathered, it shrinks to `WINDOW` of
all that are known: the best quarter by dominance, and others at random (`python benchmarks/engine.py window`
compares).
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import moocore
import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

WINDOW = {"tpe": 250, "gp": 100}
REPLAYED = {"nsgaii", "nsgaiii", "qmc"}


@dataclass(frozen=True)
class Outcome:
    """How a configuration turned out.

    values: one for each objective; None when it failed or was never trained.
    violations: by constraint, above 0 where it is broken.
    """

    values: list[float] | None
    violations: Mapping[str, float]

    @property
    def state(self) -> TrialState:
        """As Optuna calls it: PRUNED is a configuration of known violations without values."""
        if self.values is not None:
            return TrialState.COMPLETE
        return TrialState.PRUNED if self.violations else TrialState.FAIL


class _Open(NamedTuple):
    """A suggestion whose outcome is not known yet: its number and trial in the present Optuna study."""

    number: int
    trial: optuna.Trial | None
    params: Mapping[str, Any]
    distributions: dict[str, BaseDistribution]


class Suggester:
    """Suggests configurations of the space that `define` asks a trial for."""

    def __init__(
        self,
        name: str,
        seed: int,
        directions: list[Literal["minimize", "maximize"]],
        define: Callable[[Any], Any],
        window: int | None = None,
    ) -> None:
        self._name, self._seed, self._directions, self._define = name, seed, directions, define
        self._window = WINDOW.get(name) if window is None else window
        self._sampler = ReseedingSampler(name, seed)
        self._known: list[FrozenTrial] = []
        self._open: dict[int, _Open] = {}
        self._start([])

    def ask(self, number: int, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Parameters of configuration `number`: as given where they are in `given`, suggested elsewhere."""
        self._sampler.reseed(number)
        if given:
            self._study.enqueue_trial(dict(given))
        trial = self._study.ask()
        if self._name in REPLAYED:
            # Optuna would not ask the sampler where everything is given, and its state would come out different.
            _ = trial.relative_params
        self._define(trial)
        self._open[number] = _Open(trial.number, trial, trial.params, trial.distributions)
        self._size += 1
        return dict(trial.params)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Add the outcome of configuration `number`, which `ask` gave."""
        asked = self._open.pop(number)
        trial = _frozen(asked, outcome)
        if asked.trial is None:
            # Optuna completes only what it suggested itself, and this was carried over into a new window.
            self._study.tell(asked.number, state=TrialState.FAIL)
            self._study.add_trial(trial)
            self._size += 1
        else:
            for constraint, violation in outcome.violations.items():
                asked.trial.set_constraint(constraint, violation)
            self._study.tell(asked.trial, outcome.values, state=outcome.state)
        self._add_known(trial)

    def add_known_trial(self, number: int, params: Mapping[str, Any], outcome: Outcome) -> None:
        """Add the outcome of a configuration that `ask` did not give: one of the ledger, or of another study.

        Args:
            number: the configuration's.
            params: its parameters as Optuna keeps them.
            outcome: how it turned out.
        """
        if self._name in REPLAYED:
            self.ask(number, params)
            self.tell(number, outcome)
            return
        asked = optuna.trial.FixedTrial(dict(params))
        self._define(asked)
        trial = _frozen(asked, outcome)
        self._study.add_trial(trial)
        self._size += 1
        self._add_known(trial)

    def _add_known(self, trial: FrozenTrial) -> None:
        self._known.append(trial)
        if self._window and self._size - len(self._open) >= 2 * self._window:
            self._start(self._best())

    def _start(self, known: list[FrozenTrial]) -> None:
        """A new Optuna study that has the trials `known`, and what is still open."""
        self._study = optuna.create_study(directions=self._directions, sampler=self._sampler)
        self._study.add_trials(known)
        for position, (number, asked) in enumerate(self._open.items(), len(known)):
            running = optuna.trial.create_trial(
                state=TrialState.RUNNING, params=dict(asked.params), distributions=asked.distributions
            )
            self._study.add_trial(running)
            self._open[number] = _Open(position, None, asked.params, asked.distributions)
        self._size = len(known) + len(self._open)

    def _best(self) -> list[FrozenTrial]:
        """As many of the known trials as the window has, in the order in which they became known."""
        assert self._window
        ranked = np.argsort(self._rank(), kind="stable")
        best, rest = ranked[: self._window // 4], ranked[self._window // 4 :]
        rng = np.random.default_rng([self._seed, len(self._known)])
        chosen = np.sort(np.append(best, rng.choice(rest, self._window - len(best), replace=False)))
        return [self._known[index] for index in chosen]

    def _rank(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """How far from the front each known trial is; those without values, or that break a constraint, last."""
        ranks = np.full(len(self._known), math.inf)
        valid = [
            index
            for index, trial in enumerate(self._known)
            if trial.values is not None and all(v <= 0 for v in trial.constraints.values())
        ]
        if valid:
            values = np.array([self._known[index].values for index in valid])
            signs = [-1.0 if direction == "maximize" else 1.0 for direction in self._directions]
            ranks[valid] = moocore.pareto_rank(values * signs)
        return ranks


def _frozen(asked: Any, outcome: Outcome) -> FrozenTrial:
    return optuna.trial.create_trial(
        params=dict(asked.params),
        distributions=asked.distributions,
        values=outcome.values,
        state=outcome.state,
        constraints=dict(outcome.violations),
    )


class ReseedingSampler(BaseSampler):
    """A sampler by name whose random numbers depend on nothing but (study seed, configuration number)."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self.reseed(0)

    def reseed(self, number: int) -> None:
        """Be as new, for configuration `number`."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        self._sampler = self._make(seed)

    def _make(self, seed: int) -> BaseSampler:
        samplers = optuna.samplers
        match self._name:
            case "nsgaii":
                return samplers.NSGAIISampler(seed=seed)
            case "nsgaiii":
                return samplers.NSGAIIISampler(seed=seed)
            case "gp":
                return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "qmc":  # one scrambled Sobol sequence for the whole study
                return samplers.QMCSampler(
                    scramble=True,
                    seed=self._seed,
                    independent_sampler=samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
            case "grid":  # every point once, in random order, conditional spaces included
                return samplers.BruteForceSampler(seed=seed)
            case _:
                return samplers.TPESampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler does."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler does.

        Args:
            study: Optuna's.
            trial: the one that is suggested.
            search_space: distributions by parameter, from `infer_relative_search_space`.

        Returns:
            Values by parameter.
        """
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler does.

        Args:
            study: Optuna's.
            trial: the one that is suggested.
            param_name: the parameter.
            param_distribution: what its value is drawn from.

        Returns:
            The parameter's value.
        """
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
