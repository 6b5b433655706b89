"""What lies in a study's folder, listed and read a part at a time; what is not as it should be becomes a line.

    files = StudyFiles(runs / "mine")
    files.facts(problems), files.ledger(problems)

Whatever stands in the place of a file or of a folder (a link, a pipe, a device, far too much) is named and never
opened; see `sizewise_core.files.local_files`.
"""

import errno
import os
from collections.abc import Iterator
from functools import cached_property
from typing import TypeVar

from sizewise.store.records import DriverRecord, Kind, StudyRecord, TestRecord, TrialRecord, parse
from sizewise.store.study_folder import ENDINGS, MOST_BYTES, Part, StudyFolder, number_name
from sizewise_core.stores.storage import Entry, Place, entries
from sizewise_core.stores.storage_contents import read_entries

OfTrial = TypeVar("OfTrial", TrialRecord, TestRecord)
AT_ONCE, BYTES_AT_ONCE = 2_000, 64 << 20  # files whose contents are in memory together


class StudyFiles:
    """The files of one study; each part is listed once, when first asked for.

    Attributes:
        problems: what could not be listed, a line each.
    """

    def __init__(self, folder: Place) -> None:
        self.folder, self.paths = folder, StudyFolder(folder)
        self.problems: list[str] = []

    @cached_property
    def top(self) -> list[Entry]:
        """What lies in the folder itself. Raises OSError."""
        return entries(self.folder)

    @cached_property
    def trials(self) -> list[Entry]:
        """Records of the ledger."""
        return self._part("trials")

    @cached_property
    def evaluations(self) -> list[Entry]:
        """Curves, a file a trial."""
        return self._part("evaluations")

    @cached_property
    def test(self) -> list[Entry]:
        """Test scores."""
        return self._part("test")

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
        own = self.paths.facts, self.paths.study_yaml, self.paths.part("trials")
        return any(path in self for path in own)

    @property
    def last_change(self) -> float:
        """When a file last changed, in unix seconds."""
        return max((entry.modified for entry in self.top + self.trials + self.evaluations), default=0.0)

    def __contains__(self, path: Place) -> bool:
        return any(entry.path.name == path.name for entry in self.top)

    def facts(self, problems: list[str]) -> StudyRecord | None:
        """What the study asks."""
        return self._record(self.paths.facts, StudyRecord, problems)

    def driver(self, problems: list[str]) -> DriverRecord | None:
        """Who drives the study."""
        return self._record(self.paths.driver, DriverRecord, problems)

    def _record(self, path: Place, kind: type[Kind], problems: list[str]) -> Kind | None:
        """One of the files at the top."""
        listed = [entry for entry in self.top if entry.path.name == path.name]
        absent = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        content = next(iter(read_entries(listed, MOST_BYTES).values()), absent)
        return parse(path, content, kind, problems)

    def ledger(self, problems: list[str]) -> list[TrialRecord]:
        """All readable records of trials."""
        return self._records("trials", TrialRecord, problems)

    def test_scores(self, problems: list[str]) -> list[TestRecord]:
        """All readable test scores."""
        return self._records("test", TestRecord, problems)

    def _records(self, part: Part, kind: type[OfTrial], problems: list[str]) -> list[OfTrial]:
        found = []
        for batch in batches(getattr(self, part)):
            for path, content in read_entries(batch, MOST_BYTES).items():
                record = parse(path, content, kind, problems)
                if record is not None and path.stem == number_name(record.trial_id):
                    found.append(record)
                elif record is not None:
                    problems.append(f"{part}/{path.name} was skipped (it is of trial {record.trial_id})")
        return found

    @cached_property
    def _listed(self) -> dict[str, list[Entry]]:
        return {}

    def _part(self, part: Part) -> list[Entry]:
        return [entry for entry in self.listed(part) if entry.path.name.endswith(ENDINGS[part])]

    def _list(self, part: Part) -> list[Entry]:
        seen = [entry for entry in self.top if entry.path.name == part]
        if not seen:
            return []
        if not seen[0].is_folder:
            self.problems.append(f"{part} was skipped (no folder, or a link to one, which is not followed)")
            return []
        try:
            return entries(self.paths.part(part))
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
