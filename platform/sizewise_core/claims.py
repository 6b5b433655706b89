"""Numbered claims: who may write where files cannot be locked, which is in object stores.

    mine = Claim.newest(folder).next(b"who I am")     # None where somebody else was faster
    mine.superseded()                                 # True once there is a later claim than mine

A claim is an object `0001.json`, `0002.json`, ... that only one process can create; the highest number holds. A
holder is never asked to let go (it may be dead, or cut off): whoever takes over claims the next number, and the
one before finds out when it next looks. So what a holder writes must not be in its successor's way.
"""

import json
import os
import secrets
import socket
from dataclasses import dataclass

from sizewise_core.storage import Place, create, entries, exists, read


class SupersededError(RuntimeError):
    """This process is no longer the one to do its work: another has claimed it since."""


@dataclass(frozen=True)
class Claim:
    """The claim `number` in `folder`; 0 is nobody's."""

    folder: Place
    number: int

    @classmethod
    def newest(cls, folder: Place) -> "Claim":
        """The claim that holds now."""
        names = [entry.path.stem for entry in entries(folder, "*.json")]
        return cls(folder, max((int(name) for name in names if name.isdigit()), default=0))

    @classmethod
    def take(cls, folder: Place) -> "Claim":
        """The next claim, whoever holds the newest."""
        me = {"host": socket.gethostname(), "pid": os.getpid(), "claim": secrets.token_hex(8)}
        while (mine := cls.newest(folder).next(json.dumps(me).encode())) is None:
            pass  # somebody else was faster
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
