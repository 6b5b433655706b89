"""Shards of an object store, copied to this machine once, so that they can be mapped into memory.

    folder = local_shards("s3://bucket/shards")      # a pathlib.Path; a local path is returned unchanged

They are kept under `$SIZEWISE_CACHE`, else `$XDG_CACHE_HOME/sizewise`, else `~/.cache/sizewise`, in a folder named by
the URI and a digest of the manifest: shards that are prepared again are fetched again. Every file is checked against
the manifest before it gets its name. Of several processes, one fetches and the others wait.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import write_atomic
from sizewise_core.stores.storage import Place, fetch, place, read
from sizewise_prep.shards.files import Shape, digest, read_shard
from sizewise_prep.shards.manifest import NAME, Manifest, Shard

# Errors of mkdir and open for a folder that cannot be used, such as a home folder on a read-only disk.
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)


def cache_folder() -> Path:
    """The folder that keeps what is fetched."""
    if chosen := os.environ.get("SIZEWISE_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sizewise"


def local_shards(data: str | Place) -> Path:
    """The folder of shards on this machine, fetched if need be.

    Raises:
        InputError: no shards there, the cache cannot be written, or a shard is not what the manifest says.
        StorageError: the storage cannot be reached.
    """
    source = place(data)
    if isinstance(source, Path):
        return source
    manifest = Manifest.load(source)
    folder = fetched(source, [shard for split in manifest.splits.values() for shard in split.shards])
    if not (folder / NAME).exists():
        write_atomic(folder / NAME, read(source / NAME, links=True))
    return folder


def fetched(source: Place, files: Sequence[Shard]) -> Path:
    """The folder on this machine that holds these files of a manifest in an object store; raises as `local_shards`."""
    manifest, content = Manifest.load(source), read(source / NAME, links=True)
    rows = {shard.file for split in manifest.splits.values() for shard in split.shards}
    named = hashlib.sha256(str(source).encode() + b"\n" + content).hexdigest()[:16]
    folder = cache_folder() / "shards" / f"{re.sub(r'[^A-Za-z0-9_-]', '_', source.name)}-{named}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The lock is beside the folder, which holds nothing but the data.
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            for file in files:
                if not _is_there(folder, file):
                    _fetch_shard(source, folder, file, manifest.shape(file) if file.file in rows else None)
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        raise InputError(
            f"{folder}: the cache cannot be written ({error.strerror}): set SIZEWISE_CACHE to a folder on a local disk"
        ) from None
    return folder


def _is_there(folder: Path, shard: Shard) -> bool:
    """Whether a shard has been fetched; its content was checked before it got its name."""
    path = folder / shard.file
    return path.exists() and path.stat().st_size == shard.bytes


def _fetch_shard(source: Place, folder: Path, shard: Shard, shape: Shape | None) -> None:
    temporary, target = folder / f"{shard.file}.part", folder / shard.file
    try:
        fetch(source / shard.file, temporary)
        if temporary.stat().st_size != shard.bytes or digest(temporary) != shard.sha256:
            raise InputError(
                f"{source / shard.file}: is not the shard that {source / NAME} describes (its SHA-256 differs): upload "
                "the folder again, or prepare it again"
            )
        if shape is not None:
            read_shard(temporary, shape)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except FileNotFoundError:
        raise InputError(f"{source / shard.file}: this shard is missing: upload the folder again") from None
    except OSError as error:
        if error.filename is None or isinstance(error, PermissionError):
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}: set SIZEWISE_CACHE to a disk with room for the shards",
            str(folder),
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
