"""The space that a study searches: one configuration of it at a time, and how many there are where it is finite.

`configure` asks an Optuna trial for every searched field, in a fixed order, so that the space may depend on
itself: an option is asked for only where its method or model was chosen.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from sizewise.config import Choices, Range, SizeRange, StudySpec
from sizewise.config.fields import is_domain
from sizewise.config.sections.model import WIDTHS
from sizewise.config.study_file import holds_whole_numbers
from sizewise.config.trial import TrialConfig, said_settings
from sizewise.embedding import METHODS
from sizewise.embedding.storage.quantization import PACKED

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
    chosen = _choose(spec, trial, full_bytes)
    return TrialConfig.from_flat({"data": spec.data, "seed": spec.seed if seed is None else seed, **chosen})


def _choose(spec: StudySpec, trial: Any, full_bytes: int) -> Mapping[str, object]:
    """A value of every setting and option by its flat name, but of the settings that `flat` leaves out."""
    plain = {n: {as_param(c): c for c in f.choices} for n, f in spec.searched() if isinstance(f, Choices)}

    def pick(name: str, field: Any) -> Any:
        if isinstance(field, Choices):
            # Optuna wants plain values, so lists go to it as text.
            return plain[name][trial.suggest_categorical(name, list(plain[name]))]
        if not isinstance(field, Range | SizeRange):
            return field
        if field.low == field.high:
            return field.low  # nothing to choose
        whole = holds_whole_numbers(name, field)
        low, high = cast(float, field.low), cast(float, field.high)  # sizes are bytes by now
        if whole and high - low < FEW:
            return trial.suggest_int(name, low, high, log=field.log)
        value = trial.suggest_float(name, low, high, log=field.log)
        return round(value) if whole else value

    def pick_section(section: str) -> dict[str, object]:
        fields = said_settings(section, getattr(spec, section))
        return {name: pick(name, field) for name, field in fields.items() if name not in chosen}

    # Samplers draw in this order.
    method: str = pick("method", spec.embedding.method)
    kind: str = pick("model", spec.model.kind)
    chosen: dict[str, object] = {"method": method}
    if is_domain(spec.model.kind):
        chosen["model"] = kind
    chosen |= {name: [] for name in WIDTHS if not spec.model.has(kind, name)}
    chosen |= pick_section("model")
    chosen |= pick_section("embedding")
    chosen |= {name: pick(name, field) for name, field in spec.embedding.options_of(method).items()}
    if chosen.get("storage") not in PACKED:
        chosen.pop("float32_share", None)  # which has no meaning then
    if METHODS[method].has_one_size:
        chosen["memory_budget"] = full_bytes // spec.model.largest_dim * cast(int, chosen["dim"])
    chosen |= pick_section("search")
    chosen |= pick_section("train")
    chosen |= {name: pick(name, field) for name, field in spec.model.options_of(kind).items()}
    return chosen


def seed_of(spec: StudySpec, replicate: int) -> int:
    """The first trial of a configuration has the study's seed, the others seeds of their own."""
    if not replicate:
        return spec.seed
    return int(np.random.SeedSequence([spec.seed, replicate]).generate_state(1)[0])


def as_param(value: Any) -> Any:
    """A setting as Optuna keeps it."""
    return json.dumps(value) if isinstance(value, list) else value


def points(spec: StudySpec, full_bytes: int, most: int) -> int:
    """How many configurations the space holds, counted up to `most`.

    Args:
        spec: a study without continuous ranges.
        full_bytes: bytes of the full tables at the longest searched vector (`spec.model.largest_dim`).
        most: where counting ends.
    """
    path: list[tuple[int, int]] = []  # at each parameter: which of how many values
    found = 0
    while found < most:
        walker = _Walker(path)
        _choose(spec, walker, full_bytes)
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
