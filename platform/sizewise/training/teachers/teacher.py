"""A teacher's log-odds for the training rows: computed once, a shard at a time, kept beside the shards.

    scores = TeacherScores.of(teacher, "data/criteo", manifest, split)
    scores.complete()                       # computes what is not there yet, or waits for the process that does
    split = split.with_teacher(scores.shard)

Four bytes a row, in the shards' order: `teachers/<digest>/train-00000.f32` holds the float32 numbers of a shard and
`train-00000.json` beside it, written last and sealed, what they are of. The digest names the teacher and the data. In a
data folder that cannot be written to, and of data in an object store, they are kept in the cache of this machine.

A process that is killed leaves complete shards behind, which are not computed again. Several processes share the work:
each takes shards that no other has locked, so all trials and workers that need the same teacher compute it together.

Only rows of the training split are scored, so nothing of the other splits reaches a student through its teacher.
"""

import errno
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from sizewise.store.data_identity import fingerprint
from sizewise.training.input.batches import Split
from sizewise_core.errors import InputError
from sizewise_core.files.atomic import hashed_file, write_atomic
from sizewise_core.files.sealed import DamagedError, sealed, unsealed
from sizewise_core.stores.storage import place
from sizewise_prep.shards.cache import cache_folder
from sizewise_prep.shards.files import digest
from sizewise_prep.shards.manifest import TEACHERS, Manifest, Shard

log = logging.getLogger(__name__)
VERSION = 1
WAIT_SECONDS = 0.2  # before looking again at shards that other processes are computing
MOST_RECORD_BYTES = 4096

Numbers = npt.NDArray[np.float32]
Scorer = Callable[[Split, int], Numbers]
"""Log-odds (rows,) of a shard's rows: of the part of the training split in it, and the number of its first row."""


@dataclass(frozen=True)
class Teacher:
    """Something that has log-odds for the training rows.

    Attributes:
        name: what messages call it.
        digest: tells it from all others, by content.
        load: makes what computes its scores, which may take memory and time.
    """

    name: str
    digest: str
    load: Callable[[], Scorer]


def mean_of(teachers: Sequence[Teacher]) -> Teacher:
    """The teacher whose log-odds are the mean of those of several; of one, that one itself."""
    if len(teachers) == 1:
        return teachers[0]

    def load() -> Scorer:
        scorers = [teacher.load() for teacher in teachers]

        def score(shard: Split, first: int) -> Numbers:
            summed = np.zeros(shard.rows, np.float64)
            for teacher, scorer in zip(teachers, scorers, strict=True):
                summed += _finite(teacher.name, scorer(shard, first), first)
            return (summed / len(scorers)).astype(np.float32)

        return score

    together = json.dumps([teacher.digest for teacher in teachers])
    name = ", ".join(teacher.name for teacher in teachers)
    return Teacher(name, hashlib.sha256(together.encode()).hexdigest(), load)


@dataclass(frozen=True)
class TeacherScores:
    """The scores of one teacher for the training rows of one data set.

    Attributes:
        teacher: whose they are.
        split: the training split.
        shards: its shards, as the manifest describes them.
        folders: where scores may lie; new ones go to the first that can be written to.
    """

    teacher: Teacher
    split: Split
    shards: tuple[Shard, ...]
    folders: tuple[Path, ...]
    _mapped: dict[int, Numbers] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, teacher: Teacher, data: str, manifest: Manifest, split: Split) -> "TeacherScores":
        """A teacher's scores, computed or not.

        Args:
            teacher: whose they are.
            data: the folder of shards, as a trial's configuration has it: a path or a URI.
            manifest: of the data.
            split: its training split, on this machine.
        """
        of = f"{VERSION} {teacher.digest} {fingerprint(manifest)}"
        name = hashlib.sha256(of.encode()).hexdigest()[:16]
        source = place(data)
        beside = (source / TEACHERS / name,) if isinstance(source, Path) else ()
        return cls(
            teacher,
            split,
            tuple(manifest.splits["train"].shards),
            (*beside, cache_folder() / TEACHERS / name),
        )

    def missing(self) -> list[int]:
        """The shards whose scores are still to be computed, in their order."""
        return [index for index in range(len(self.shards)) if self._found(index) is None]

    def complete(self, only: Sequence[int] | None = None) -> None:
        """Compute what is missing, together with all other processes that want the same.

        Args:
            only: of these shards; all where it is left out.

        Raises:
            InputError: the teacher's scores cannot be used, or no folder can be written to.
        """
        missing = [index for index in self.missing() if only is None or index in only]
        scorer: Scorer | None = None
        while missing:
            left = []
            for index in missing:
                with self._locked(index) as mine:
                    if not mine:
                        left.append(index)
                    elif self._found(index) is None:
                        scorer = scorer or self.teacher.load()
                        self._compute(index, scorer)
            if left == missing:
                time.sleep(WAIT_SECONDS)
            missing = left

    def shard(self, index: int) -> Numbers:
        """The scores of a shard's rows, mapped into memory and read-only.

        Raises:
            DamagedError: they were removed or changed since they were computed.
        """
        if index not in self._mapped:
            found = self._found(index)
            if found is None:
                raise DamagedError(
                    f"{self.folders[0]}: the teacher's scores of {self.shards[index].file} are gone or damaged"
                )
            self._mapped[index] = np.memmap(found, "<f4", "r", shape=(self.shards[index].rows,))
        return self._mapped[index]

    def _compute(self, index: int, scorer: Scorer) -> None:
        first = sum(shard.rows for shard in self.shards[:index])
        scores = _finite(self.teacher.name, scorer(self.split.shard(index), first), first)
        shard, folder = self.shards[index], self._writable()
        try:
            with hashed_file(folder / f"{_stem(shard)}.f32") as writer:
                writer.write(scores.astype("<f4").data)
            record = {
                "version": VERSION,
                "teacher": self.teacher.name,
                "shard": shard.sha256,
                "rows": shard.rows,
                "sha256": writer.sha256,
            }
            write_atomic(folder / f"{_stem(shard)}.json", sealed(json.dumps(record)).encode())
        except OSError as error:
            raise _no_room(folder, error) from None

    def _found(self, index: int) -> Path | None:
        """Where the complete and undamaged scores of a shard lie; damaged ones are reported and left out."""
        shard = self.shards[index]
        for folder in self.folders:
            path = folder / f"{_stem(shard)}.f32"
            if _is_file(path.with_suffix(".json")):
                if problem := _damage(path, shard):
                    log.warning("%s: %s: computed again", path, problem)
                else:
                    return path
        return None

    def _writable(self) -> Path:
        """The folder that new scores go to."""
        for folder in self.folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem = error
            else:
                if os.access(folder, os.W_OK | os.X_OK):
                    return folder
                problem = PermissionError(13, "Permission denied")
        raise _no_room(self.folders[-1], problem)

    @contextmanager
    def _locked(self, index: int) -> Iterator[bool]:
        """Whether this process may compute a shard now: no other does while it holds the lock."""
        folder = self._writable()
        lock = FileLock(folder / f".{_stem(self.shards[index])}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except NotImplementedError:
            # What filelock raises on file systems without locks. Others may do the same work, which harms nothing.
            yield True
            return
        except OSError as error:
            raise _no_room(folder, error) from None
        try:
            yield True
        finally:
            lock.release()


def replaced(path: object) -> InputError:
    """What is raised of a teacher that is another one than when its study began."""
    return InputError(f"distill.teacher: {path}: was replaced since the study began: bring it back")


def digest_once(path: Path) -> str:
    """The SHA-256 of a file, read again only where it was written since."""
    about = path.stat()
    return _digest(path, about.st_ino, about.st_mtime_ns)


def _finite(name: str, scores: Numbers, first: int) -> Numbers:
    """The scores. Raises InputError where one of them is not a number."""
    finite = np.isfinite(scores)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(
            f"distill.teacher: {name} gives {scores[row]} for training row {first + row + 1:,}, which must be a finite "
            "number: use another teacher"
        )
    return scores


def _stem(shard: Shard) -> str:
    return Path(shard.file).stem


def _is_file(path: Path) -> bool:
    """Whether there is a regular file, and no link: the folder may come from somebody else."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _damage(path: Path, shard: Shard) -> str:
    """What is wrong with a shard's scores that were complete once; nothing where all is well."""
    try:
        record = path.with_suffix(".json")
        if record.stat().st_size > MOST_RECORD_BYTES:
            return "is described by something else"
        known = unsealed(record.read_bytes())
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size != 4 * shard.rows:
            return f"has not four bytes for each of {shard.rows:,} rows"
        if (known.get("version"), known.get("shard"), known.get("rows")) != (
            VERSION,
            shard.sha256,
            shard.rows,
        ):
            return "is of another shard"
        if _digest(path, about.st_ino, about.st_mtime_ns) != known.get("sha256"):
            return "was changed"
    except DamagedError as error:
        return f"its record: {error}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


@cache
def _digest(path: Path, inode: int, written: int) -> str:
    """That of a file last written then: every trial of a study asks again."""
    return digest(path)


def _no_room(folder: Path, error: OSError) -> InputError:
    """What is said of a folder that takes no scores, and what to do."""
    fix = "make the data's folder writable, or set SIZEWISE_CACHE to a folder that is"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "make room there: four bytes for each training row"
    elif isinstance(error, IsADirectoryError):
        fix = "remove that folder: it is made again"
    return InputError(
        f"{folder}: the teacher's scores cannot be kept there ({error.strerror or error}): {fix}"
    )
