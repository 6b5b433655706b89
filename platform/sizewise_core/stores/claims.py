"""Numbered claims: a lock for object stores, where files cannot be locked.

    mine = Claim.newest(folder).next(b"who I am")     # None where another process was faster
    mine.superseded()                                 # True once another process has made a later claim

A claim is an object `0001.json`, `0002.json`, ... that only one process can create; the highest number is valid. Its
holder is never asked to release it (it may be dead, or cut off). Another process takes over by claiming the next
number, and the earlier holder notices when it next looks, so nothing that it writes until then may disturb the new
one.
"""

import json
import os
import secrets
import socket
from dataclasses import dataclass

from sizewise_core.stores.storage import Place, create, entries, exists, read


class SupersededError(RuntimeError):
    """Another process has since claimed the work that this one was doing."""


@dataclass(frozen=True)
class Claim:
    """The claim `number` in `folder`; number 0 stands for none."""

    folder: Place
    number: int

    @classmethod
    def newest(cls, folder: Place) -> "Claim":
        """The claim that is valid now."""
        names = [entry.path.stem for entry in entries(folder, "*.json")]
        return cls(folder, max((int(name) for name in names if name.isdigit()), default=0))

    @classmethod
    def take(cls, folder: Place) -> "Claim":
        """Make the next claim, taking over from any holder of the newest."""
        me = {"host": socket.gethostname(), "pid": os.getpid(), "claim": secrets.token_hex(8)}
        while (mine := cls.newest(folder).next(json.dumps(me).encode())) is None:
            pass  # another process was faster
        return mine

    def next(self, content: bytes) -> "Claim | None":
        """Claim the next number, unless another process just has. `content` must differ between processes."""
        after = Claim(self.folder, self.number + 1)
        return after if create(after.path, content) else None

    def superseded(self) -> bool:
        """Whether there is a later claim."""
        return exists(Claim(self.folder, self.number + 1).path)

    def content(self) -> bytes:
        """What its holder wrote."""
        return read(self.path)

    @property
    def path(self) -> Place:
        """Its object."""
        return self.folder / f"{self.number:04d}.json"
