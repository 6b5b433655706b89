"""The space that a study searches: one configuration of it at a time, and how many there are where it is finite.

`configure` asks an Optuna trial for every searched field, in a fixed order, so that the space may depend on
itself: an option is asked for only where its method was chosen.
"""

import json
from typing import Any, cast

import numpy as np

from sizewise.config import Choices, Range, SizeRange, StudySpec
from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS

# From so many whole numbers on, samplers see a continuous range, whose values are rounded: to `tpe`, each whole
# number is an interval of its own, and its likelihood takes tens of milliseconds once there are hundreds of trials.
FEW = 1_000


def configure(spec: StudySpec, trial: Any, full_bytes: int, seed: int | None = None) -> TrialConfig:
    """One configuration out of the study's space.

    Args:
        spec: the study.
        trial: anything with Optuna's `suggest_*` methods.
        full_bytes: of the full tables at the longest searched vector (`spec.model.largest_dim`).
        seed: of the trial, where it is not the study's.
    """

    def pick(name: str, field: Any) -> Any:
        if isinstance(field, Choices):
            # Optuna wants plain values, so lists go to it as text.
            return plain[name][trial.suggest_categorical(name, list(plain[name]))]
        if isinstance(field, Range | SizeRange) and field.low == field.high:
            return field.low  # nothing to choose
        if isinstance(field, Range | SizeRange):
            whole = isinstance(field.low, int) and isinstance(field.high, int) and name != "learning_rate"
            low, high = cast(float, field.low), cast(float, field.high)  # sizes are bytes by now
            if whole and high - low < FEW:
                return trial.suggest_int(name, low, high, log=field.log)
            value = trial.suggest_float(name, low, high, log=field.log)
            return round(value) if whole else value
        return field

    plain = {n: {as_param(c): c for c in f.choices} for n, f in spec.searched() if isinstance(f, Choices)}
    method = pick("method", spec.embedding.method)
    dim = pick("dim", spec.model.dim)
    widths = {name: pick(name, getattr(spec.model, name)) for name in ("bottom_mlp", "top_mlp")}
    return TrialConfig(
        data=spec.data,
        dim=dim,
        **widths,
        method=method,
        options={name: pick(name, field) for name, field in spec.embedding.options_of(method).items()},
        memory_budget=full_bytes // spec.model.largest_dim * dim
        if METHODS[method].has_one_size
        else pick("memory_budget", spec.search.memory_budget),
        learning_rate=pick("learning_rate", spec.search.learning_rate),
        epochs=pick("epochs", spec.search.epochs),
        batch_size=pick("batch_size", spec.train.batch_size),
        optimizer=pick("optimizer", spec.train.optimizer),
        evaluate_every=pick("evaluate_every", spec.train.evaluate_every),
        checkpoint_seconds=spec.train.checkpoint_seconds,
        precision=pick("precision", spec.train.precision),
        model=spec.model.kind,
        model_options={name: pick(name, field) for name, field in spec.model.options.items()},
        seed=spec.seed if seed is None else seed,
    )


def seed_of(spec: StudySpec, replicate: int) -> int:
    """The first trial of a configuration has the study's seed, the others seeds of their own."""
    if not replicate:
        return spec.seed
    return int(np.random.SeedSequence([spec.seed, replicate]).generate_state(1)[0])


def as_param(value: Any) -> Any:
    """A setting as Optuna keeps it."""
    return json.dumps(value) if isinstance(value, list) else value


def points(spec: StudySpec, full_bytes: int, most: int) -> int:
    """How many configurations the space holds, counted up to `most`; for spaces without continuous ranges."""
    path: list[tuple[int, int]] = []  # at each parameter: which of how many values
    found = 0
    while found < most:
        walker = _Walker(path)
        configure(spec, walker, full_bytes)
        found, path = found + 1, walker.path
        while path and path[-1][0] == path[-1][1] - 1:
            path.pop()
        if not path:
            break
        path[-1] = (path[-1][0] + 1, path[-1][1])
    return found


class _Walker:
    """Answers with the values of `path`, beyond its end with each first value, and keeps its answers."""

    def __init__(self, path: list[tuple[int, int]]) -> None:
        self.given, self.path = path, []  # type: tuple[list[tuple[int, int]], list[tuple[int, int]]]

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return choices[self._next(len(choices))]

    def suggest_int(self, name: str, low: int, high: int, log: bool = False) -> int:
        return low + self._next(high - low + 1)

    def _next(self, count: int) -> int:
        depth = len(self.path)
        index = self.given[depth][0] if depth < len(self.given) else 0
        self.path.append((index, count))
        return index
