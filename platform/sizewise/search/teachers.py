"""The teachers that a study trains itself, before its first student: models of one method, alike but for their seeds.

    train: {distill: {teacher: full, teachers: 4, epochs: 1, learning_rate: 0.02}}
    train: {distill: {teacher: hot, teachers: 4, memory_budget: 10x}}

They are trials of the study with records of their own, which say so, and no suggestions of the sampler's. They learn
from labels alone, and their last weights are taken, so that nothing about them depends on the validation split.
"""

from typing import Any

from sizewise.config import Choices, StudySpec
from sizewise.config.fields import bytes_of, is_domain
from sizewise.config.sections.model import WIDTHS
from sizewise.config.trial import SECTIONS, TrialConfig, flat_name
from sizewise.embedding import METHODS


def method_of(spec: StudySpec) -> str | None:
    """The method of the teachers that a study trains itself; None where it trains none."""
    names = spec.train.distill_teacher
    return names[0] if len(names) == 1 and names[0] in METHODS else None


def wanted(spec: StudySpec) -> int:
    """How many teachers a study trains itself."""
    return spec.train.distill_teachers if method_of(spec) else 0


def teacher_config(spec: StudySpec, seed: int, full_bytes: int) -> TrialConfig:
    """A teacher's configuration: where the study searches a setting of its own, the largest or first value.

    Args:
        spec: the study.
        seed: of this teacher.
        full_bytes: of the full tables at the longest searched vector.
    """
    method = method_of(spec)
    assert method is not None
    settings: dict[str, object] = {"data": spec.data, "seed": seed}
    for section in SECTIONS:
        values: Any = getattr(spec, section)
        for field in SECTIONS[section].settings():
            settings[flat_name(section, field)] = _one(getattr(values, field))
    kind = spec.model.kinds[0]
    settings |= {name: [] for name in WIDTHS if not spec.model.has(kind, name)}
    settings |= {name: _one(value) for name, value in spec.model.options_of(kind).items()}
    of_students = ("distill_", "float32_share")
    settings = {name: value for name, value in settings.items() if not name.startswith(of_students)}
    one_size = METHODS[method].has_one_size
    return TrialConfig.from_flat(
        {
            **settings,
            "dim": spec.model.largest_dim,
            "decay": "none",
            "method": method,
            "memory_budget": full_bytes
            if one_size
            else bytes_of(spec.train.distill_memory_budget, full_bytes),
            "epochs": spec.train.distill_epochs,
            "learning_rate": spec.train.distill_learning_rate,
        }
    )


def _one(value: Any) -> Any:
    if isinstance(value, Choices):
        return value.choices[0]
    return value.high if is_domain(value) else value
