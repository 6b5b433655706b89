"""Whether a folder of shards is as its manifest says: every byte of every file, on this machine or in an object store.

for problem in verify("s3://bucket/data"):
    print(problem)
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from sizewise_core.errors import InputError
from sizewise_core.machine import limits
from sizewise_core.stores.storage import Place, StorageError, entries, exists, fetch, place
from sizewise_prep.shards.manifest import COUNTS, NAME, TEACHERS, Manifest, Shard, problem_of, rows_problem

_LATER = TEACHERS, COUNTS, f".{COUNTS}.partial"
"""Made of the data later; each reader checks it."""


def verify(folder: str | Place) -> list[str]:
    """One sentence for each file that is missing, differs from the manifest or is not in it.

    Files of an object store are fetched one by one for each CPU, and deleted at once.

    Raises:
        InputError: as `Manifest.load` does, or this machine lacks the room for a file.
        StorageError: the storage cannot be reached.
    """
    where = place(folder)
    manifest = Manifest.load(where)
    with ThreadPoolExecutor(limits.cpus()) as pool:
        problems = list(pool.map(lambda file: _problem(where, manifest, file), manifest.files))
    known = {NAME, *(file.file for file in manifest.files)}
    names = [name for name in _files(where) if PurePosixPath(name).parts[0] not in _LATER]
    extra = [f"{name}: is not in the manifest; remove it" for name in names if name not in known]
    return [problem for problem in problems if problem] + extra


def _problem(where: Place, manifest: Manifest, file: Shard) -> str | None:
    """What is wrong with a file, in a sentence that begins with its name; None where nothing is."""
    if file == manifest.counts and not exists(where / file.file):
        return None  # the rows are counted again where they are wanted
    if isinstance(where, Path):
        return _problem_here(where, manifest, file)
    with tempfile.TemporaryDirectory() as copies:
        copy = Path(copies) / file.file
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            fetch(where / file.file, copy)
        except FileNotFoundError:
            return f"{file.file}: is missing"
        except StorageError:
            raise
        except OSError as error:
            raise InputError(
                f"{file.file}: cannot be fetched to {copies} ({error.strerror}): set TMPDIR to a folder with room"
            ) from None
        return _problem_here(Path(copies), manifest, file)


def _problem_here(folder: Path, manifest: Manifest, file: Shard) -> str | None:
    if problem := problem_of(folder, file):
        return problem
    holds_rows = any(file in split.shards for split in manifest.splits.values())
    return rows_problem(folder, manifest, file) if holds_rows else None


def _files(where: Place, within: str = "") -> list[str]:
    """All files of a folder, by their paths in it, in order."""
    if isinstance(where, Path):
        return [path.relative_to(where).as_posix() for path in sorted(where.rglob("*")) if not path.is_dir()]
    found = []
    for entry in entries(where):
        name = f"{within}{entry.path.name}"
        found += _files(entry.path, f"{name}/") if entry.is_folder else [name]
    return found
