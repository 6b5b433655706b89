"""Classes that are chosen by name in a study file: Sizewise's own, and those of other installed distributions.

    METHODS = Registry("embedding method", "sizewise.methods", Embedding, {"robe": Robe, ...})
    METHODS["robe"]

A distribution provides one by an entry point in its pyproject.toml, and workers that have it installed find it too:

    [project.entry-points."sizewise.methods"]
    mine = "my_package.embedding:Mine"
"""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from sizewise_core.errors import InputError, shown

T = TypeVar("T")
NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST = 100  # characters that are quoted of another distribution's error message


class UnknownNameError(InputError, KeyError):
    """No class goes by that name; also a KeyError, as mappings raise it."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Mapping[str, type[T]], Generic[T]):
    """Classes by name; one from an entry point is imported when it is first used.

    Args:
        what: what the classes are, for messages: "embedding method".
        group: of entry points.
        base: the class that every class must be derived from.
        own: Sizewise's own classes by name, which no entry point can replace.
    """

    def __init__(self, what: str, group: str, base: Any, own: Mapping[str, type[T]]) -> None:
        self.what, self.group, self.base = what, group, base
        self.own: tuple[str, ...] = tuple(own)
        """Names of Sizewise's own classes, independent of what else is installed."""
        self._classes = dict(own)
        self._entry_points: dict[str, list[EntryPoint]] | None = None

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name.

        Raises:
            UnknownNameError: there is none.
            InputError: its entry point cannot be imported, or is something else.
        """
        if name not in self._classes:
            points = self._provided().get(name)
            if not points:
                raise UnknownNameError(
                    f"unknown {self.what} {shown(str(name))}: use one of {self.choices(name)}"
                )
            self._classes[name] = self._load(name, points)
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is one, without importing it."""
        return isinstance(name, str) and (name in self._classes or name in self._provided())

    def __iter__(self) -> Iterator[str]:
        """All names, Sizewise's own first."""
        return iter({**self._classes, **self._provided()})

    def __len__(self) -> int:
        """How many there are."""
        return len({**self._classes, **self._provided()})

    def choices(self, name: object) -> str:
        """For messages about an unknown name: all known names, and the one most like it."""
        near = difflib.get_close_matches(str(name), list(self), n=1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"or install the distribution that provides {shown(str(name))}"
        )
        return f"{', '.join(self)} ({hint})"

    def _provided(self) -> dict[str, list[EntryPoint]]:
        if self._entry_points is None:
            try:
                found = entry_points(group=self.group)
            except Exception as error:  # a damaged file of some installed distribution
                raise InputError(
                    f"{self.what}s of other distributions cannot be listed ({_short(error)}): repair or uninstall the "
                    "distribution whose entry_points.txt is damaged"
                ) from error
            named: dict[str, list[EntryPoint]] = {}
            for point in found:
                if point.name not in self._classes and point not in named.get(point.name, []):
                    named.setdefault(point.name, []).append(point)
            self._entry_points = named
        return self._entry_points

    def _load(self, name: str, points: list[EntryPoint]) -> type[T]:
        if not NAME.fullmatch(name):
            raise InputError(f"{self.what} {shown(name)}: its name must be lower-case letters, digits and _")
        if len({point.value for point in points}) > 1:
            origins = " and ".join(sorted({point.dist.name for point in points if point.dist}))
            raise InputError(f"{self.what} {name} is provided by {origins}: uninstall all but one")
        (point, *_) = points
        origin = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
        try:
            found: Any = point.load()
        except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
            raise InputError(
                f"{self.what} {name}{origin} cannot be imported ({_short(error)}): fix or uninstall that distribution"
            ) from error
        fault = self._fault(found)
        if fault:
            raise InputError(f"{self.what} {name}{origin}: {point.value} {fault}")
        kind: type[T] = found
        return kind

    def _fault(self, kind: object) -> str:
        """What keeps something from being one of these classes, if anything does."""
        if not (isinstance(kind, type) and issubclass(kind, self.base)):
            return f"is no subclass of {self.base.__module__}.{self.base.__name__}"
        if inspect.isabstract(kind):
            return f"does not define {', '.join(sorted(vars(kind)['__abstractmethods__']))}"
        return ""


def _short(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
