"""Whether a study's data is still what it was when the study began.

Trials of different data cannot be compared, and a trial that fails for want of its data is not to blame.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from sizewise_core.errors import InputError
from sizewise_core.machine import limits
from sizewise_core.stores.storage import exists, place
from sizewise_prep.shards.files import Shape, digest, read_shard
from sizewise_prep.shards.manifest import NAME, Manifest


def fingerprint(manifest: Manifest) -> str:
    """The identity of these rows, in this order and these splits: a hexadecimal SHA-256."""
    shards = [
        (name, shard.sha256) for name, split in sorted(manifest.splits.items()) for shard in split.shards
    ]
    return hashlib.sha256(repr(shards).encode()).hexdigest()


def problem(data: str, known: str | None) -> str:
    """What is wrong with the shards in `data` as far as its names and sizes show; nothing when all is well.

    A shard that was written after the manifest is read, for it was replaced. Where all of them were, the folder was
    copied: reading it could take hours, which `sizewise prep --verify` is for.
    `known` is their fingerprint when the study began; None where an older version began it.
    """
    if not exists(place(data)):
        return (
            f"{data}: the data is not there any more: bring it back, or write where it is now into study.yaml and "
            "remove that file's last line, the checksum"
        )
    try:
        manifest = Manifest.load(data)
    except InputError as error:
        return str(error)
    if known and fingerprint(manifest) != known:
        return f"{data}: holds other rows than when the study began: bring those back, or start another study on these"
    folder = place(data)
    if not isinstance(folder, Path):
        return ""  # every machine has its own copy, which is checked when it is made
    shards = {folder / shard.file: shard for split in manifest.splits.values() for shard in split.shards}
    for path, shard in shards.items():
        if not path.is_file() or path.stat().st_size != shard.bytes:
            return (
                f"{path}: is missing or not whole: bring it back (`sizewise prep --verify {data}` checks all)"
            )
    with ThreadPoolExecutor(limits.cpus()) as pool:
        found = pool.map(
            lambda path: _unreadable(path, manifest.shape(shards[path]), path.stat().st_mtime_ns), shards
        )
        if unreadable := next((problem for problem in found if problem), ""):
            return unreadable
    whole = (folder / NAME).stat().st_mtime_ns  # what was written last, with the digests of all shards
    written = {path: path.stat().st_mtime_ns for path in shards}
    later = [path for path in shards if written[path] > whole]
    for path in later if len(later) < len(shards) else ():
        if _digest(path, written[path]) != shards[path].sha256:
            return f"{path}: was changed, and holds other rows than the manifest says: bring it back"
    return ""


@cache
def _unreadable(path: Path, shape: Shape, written: int) -> str:
    """Why training could not read a file last written then as a shard of this shape; nothing where it could."""
    try:
        read_shard(path, shape)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error}): check its permissions"
    return ""


@cache
def _digest(path: Path, written: int) -> str:
    """That of a file last written then: asked again whenever a trial fails."""
    return digest(path)
