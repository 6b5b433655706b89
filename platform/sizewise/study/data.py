"""Whether a study's data is still what it was when the study began.

Trials of different data cannot be compared, and a trial that fails for want of its data is not to blame.
"""

import hashlib
from functools import cache
from pathlib import Path

from sizewise_prep.errors import InputError
from sizewise_prep.manifest import NAME, Manifest
from sizewise_prep.shards import digest
from sizewise_prep.storage import exists, place


def fingerprint(manifest: Manifest) -> str:
    """What tells these rows, in this order and these splits, from others: a hexadecimal SHA-256."""
    shards = [
        (name, shard.sha256) for name, split in sorted(manifest.splits.items()) for shard in split.shards
    ]
    return hashlib.sha256(repr(shards).encode()).hexdigest()


def problem(data: str, known: str | None) -> str:
    """What is wrong with the shards in `data` as far as a look at the folder tells; nothing when all is well.

    Only shards that were written after the manifest are read, as one is that was replaced, or is of a copied folder.
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
    if isinstance(
        folder, Path
    ):  # from elsewhere every machine has its own copy, which is checked when it is made
        whole = (folder / NAME).stat().st_mtime_ns  # what was written last, with the digests of all shards
        for shard in (shard for split in manifest.splits.values() for shard in split.shards):
            path = folder / shard.file
            if not path.is_file() or path.stat().st_size != shard.bytes:
                return f"{path}: is missing or not whole: bring it back (`sizewise prep --verify {data}` checks all)"
            if (written := path.stat().st_mtime_ns) > whole and _digest(path, written) != shard.sha256:
                return f"{path}: was changed, and holds other rows than the manifest says: bring it back"
    return ""


@cache
def _digest(path: Path, written: int) -> str:
    """That of a file last written then: asked again whenever a trial fails."""
    return digest(path)
