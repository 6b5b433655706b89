"""Settings that a study file writes under a key of their own, such as `distill: {teacher: ..., weight: 0.9}`.

In a section each is a setting like all others (`distill_weight`), so that it can be searched, kept and shown alike.
"""

from collections.abc import Mapping
from typing import Any

from sizewise.config.fields import did_you_mean

Groups = Mapping[str, Mapping[str, str]]
"""By key of the study file: the names of settings by the names that they have under it."""


def ungrouped(data: Any, groups: Groups) -> Any:
    """A section as it is written, with each setting of its groups by its own name.

    Raises:
        ValueError: a group is no mapping, or has an unknown key.
    """
    if not isinstance(data, Mapping):
        return data
    settings = {name: value for name, value in data.items() if name not in groups}
    for group, names in groups.items():
        written = data.get(group)
        if written is None:
            continue
        if not isinstance(written, Mapping):
            raise ValueError(f"{group}: holds fields ({', '.join(names)}), not {written!r}")
        for name, value in written.items():
            if name not in names:
                near = did_you_mean(str(name), names) or f"; known keys: {', '.join(names)}"
                raise ValueError(f"{group}.{name}: unknown key{near}")
            settings[names[name]] = value
    return settings


def grouped(written: Mapping[str, Any], groups: Groups, absent: Mapping[str, Any]) -> dict[str, object]:
    """A section's settings as a study file writes them.

    Args:
        written: by their own names.
        groups: as for `ungrouped`.
        absent: values of settings by their own names; a group in which all of them have these is left out, and from
            one of which some have others, those that have them.
    """
    inner = {own for names in groups.values() for own in names.values()}
    section = {name: value for name, value in written.items() if name not in inner}
    for group, names in groups.items():
        if any(written[own] != absent[own] for own in names.values() if own in absent):
            section[group] = {
                name: written[own]
                for name, own in names.items()
                if own not in absent or written[own] != absent[own]
            }
    return section


def place_of(setting: str, groups: Groups) -> tuple[str, ...]:
    """Where in its section a study file writes a setting."""
    for group, names in groups.items():
        for name, own in names.items():
            if own == setting:
                return group, name
    return (setting,)
