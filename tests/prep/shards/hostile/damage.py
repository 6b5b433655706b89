"""Small prepared data to damage, and what a reader says of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sizewise_core.errors import InputError
from sizewise_prep.shards.files import digest

ROWS = 60
Found = TypeVar("Found")


def copied(prepared: Path, to: Path) -> Path:
    folder = to / "shards"
    for file in prepared.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(prepared)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return folder


def restated(folder: Path, shard: Path, **changes: Any) -> None:
    """Let the manifest say of a shard what its file is now."""
    content = json.loads((folder / "manifest.json").read_text())
    for split in content["splits"].values():
        for listed in split["shards"]:
            if listed["file"] == shard.name:
                listed |= {"bytes": shard.stat().st_size, "sha256": digest(shard), **changes}
    (folder / "manifest.json").write_text(json.dumps(content))


def refusal_of(read: Callable[[], Found], path: Path) -> Found | str:
    """What reading gives; or the message that refuses it, which begins with the path and can be shown."""
    try:
        return read()
    except InputError as error:
        message = str(error)
    assert message.startswith(str(path))
    assert len(message) < 220 + len(str(path)), message
    assert message.isprintable(), message
    return message
