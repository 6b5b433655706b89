"""What lies in a study's folder, listed and read a part at a time; what is not as it should be becomes a line.

    files = StudyFiles(runs / "mine")
    files.record("study.json", StudyRecord, problems)
    files.records("trials", TrialRecord, problems)

Whatever stands in the place of a file or of a folder (a link, a pipe, a device, far too much) is named and never
opened; see `sizewise_core.local_files`.
"""

import errno
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

from sizewise.store.ledger import MOST_BYTES
from sizewise.store.records import Record, parse
from sizewise_core.storage import Entry, Place, entries
from sizewise_core.storage_contents import read_entries

AT_ONCE, BYTES_AT_ONCE = 2_000, 64 << 20  # files whose contents are in memory together
Part = Literal["trials", "evaluations", "test"]


class StudyFiles:
    """The files of one study; each part is listed once, when first asked for.

    Attributes:
        problems: what could not be listed, a line each.
    """

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        self.problems: list[str] = []

    @cached_property
    def top(self) -> list[Entry]:
        """What lies in the folder itself. Raises OSError."""
        return entries(self.folder)

    @cached_property
    def trials(self) -> list[Entry]:
        """Records of the ledger."""
        return self._part("trials", ".json")

    @cached_property
    def evaluations(self) -> list[Entry]:
        """Curves, a file a trial."""
        return self._part("evaluations", ".jsonl")

    @cached_property
    def test(self) -> list[Entry]:
        """Test scores."""
        return self._part("test", ".json")

    def listed(self, part: Part) -> list[Entry]:
        """Everything in a part, also what readers have no use for."""
        if part not in self._listed:
            self._listed[part] = self._list(part)
        return self._listed[part]

    @property
    def all(self) -> list[Entry]:
        """Every file that a reader looks at."""
        return (
            [entry for entry in self.top if not entry.is_folder] + self.trials + self.evaluations + self.test
        )

    @property
    def is_study(self) -> bool:
        """Whether this is a study's folder. Raises OSError."""
        return any(entry.path.name in ("study.json", "study.yaml", "trials") for entry in self.top)

    @property
    def last_change(self) -> float:
        """When a file last changed, in unix seconds."""
        return max((entry.modified for entry in self.top + self.trials + self.evaluations), default=0.0)

    def __contains__(self, name: str) -> bool:
        return any(entry.path.name == name for entry in self.top)

    def record(self, name: str, kind: type[Record], problems: list[str]) -> Record | None:
        """One of the files at the top."""
        listed = [entry for entry in self.top if entry.path.name == name]
        absent = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        content = next(iter(read_entries(listed, MOST_BYTES).values()), absent)
        return parse(self.folder / name, content, kind, problems)

    def records(
        self, part: Literal["trials", "test"], kind: type[Record], problems: list[str]
    ) -> list[Record]:
        """All readable records of one part."""
        found = []
        for batch in batches(getattr(self, part)):
            for path, content in read_entries(batch, MOST_BYTES).items():
                record: Any = parse(path, content, kind, problems)
                if record is not None and path.stem == f"{record.trial_id:04d}":
                    found.append(record)
                elif record is not None:
                    problems.append(f"{part}/{path.name} was skipped (it is of trial {record.trial_id})")
        return found

    @cached_property
    def _listed(self) -> dict[str, list[Entry]]:
        return {}

    def _part(self, part: Part, ending: str) -> list[Entry]:
        return [entry for entry in self.listed(part) if entry.path.name.endswith(ending)]

    def _list(self, part: Part) -> list[Entry]:
        seen = [entry for entry in self.top if entry.path.name == part]
        if not seen:
            return []
        if not seen[0].is_folder:
            self.problems.append(f"{part} was skipped (no folder, or a link to one, which is not followed)")
            return []
        try:
            return entries(self.folder / part)
        except OSError as error:
            self.problems.append(f"{part} was skipped ({error.strerror or error})")
            return []


def batches(listed: list[Entry]) -> Iterator[list[Entry]]:
    """So many files at a time that their contents fit in memory, however many there are."""
    batch: list[Entry] = []
    size = 0
    for entry in listed:
        if batch and (len(batch) == AT_ONCE or size + entry.size > BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch
