"""What the list of studies says of each besides its status: when it was created, on which data, with which methods."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cachetools import LRUCache

from sizewise.results import Status
from sizewise.results.files.finding import files_of
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, StorageError
from sizewise_dashboard import snapshots

SORTS = ("last change", "created", "name", "best AUC", "size of the smallest")
_MOST = 1_000  # studies whose facts are kept


@dataclass(frozen=True)
class Facts:
    """One study in the list; `created` in unix seconds, `data` as the study file names it."""

    status: Status
    created: float | None = None
    data: str = ""
    methods: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The study's."""
        return self.status["name"]

    def holds(self, words: str, tags: Iterable[str] = ()) -> bool:
        """Whether each of the words is in the study's name, data, methods, state or tags, in any case of letters."""
        text = " ".join([self.name, self.data, *self.methods, self.status["state"], *tags]).lower()
        return all(word in text for word in words.lower().split())


_KEPT: LRUCache[tuple[str, str, float], tuple[float | None, str, tuple[str, ...]]] = LRUCache(_MOST)


def facts(runs: Place) -> list[Facts]:
    """All studies under `runs`, most recently changed first. Raises InputError when there is no such folder."""
    return [Facts(status, *_read(runs, status)) for status in snapshots.listed(runs)]


def ordered(found: list[Facts], by: str) -> list[Facts]:
    """The studies in one of the orders of SORTS."""
    if by == "name":
        return sorted(found, key=lambda fact: fact.name)
    if by == "created":
        return sorted(found, key=lambda fact: -(fact.created or 0.0))
    if by == "best AUC":
        return sorted(found, key=lambda fact: -(fact.status["best_auc"] or 0.0))
    if by == "size of the smallest":
        return sorted(found, key=_smallest)
    return found


def _smallest(fact: Facts) -> float:
    point = fact.status["smallest"]
    return float("inf") if point is None or point["bytes"] is None else point["bytes"]


def _read(runs: Place, status: Status) -> tuple[float | None, str, tuple[str, ...]]:
    """When a study was created, its data and methods, read again when it has changed."""
    key = (str(runs), status["name"], status["last_change"])
    if key not in _KEPT:
        try:
            files = files_of(runs, status["name"])
            record = files.facts([])
            methods = {str(trial.config["method"]) for trial in files.ledger([]) if "method" in trial.config}
        except (InputError, StorageError, OSError):  # the status says why
            return None, "", ()
        created, data = (record.created, record.data.path) if record else (None, "")
        _KEPT[key] = (created, data, tuple(sorted(methods)))
    return _KEPT[key]
