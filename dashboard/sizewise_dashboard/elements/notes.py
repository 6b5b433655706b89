"""Stars, tags, notes and archived studies and trials: one file beside the studies, which are never written to.

    change(runs, Key("quickstart", 7), Note(star=True, tags=("shipped",), text="ran in May"))
    load(runs)[Key("quickstart", 7)].text

The file is `.sizewise-notes.json` in the folder of studies, written completely or not at all.
"""

import json
import threading
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, StorageError, read, write

FILE = ".sizewise-notes.json"
_LOCK = threading.Lock()  # of all visitors of this dashboard
_MOST_BYTES = 4_000_000


class Key(NamedTuple):
    """What a note is about: a study, or one of its trials."""

    study: str
    trial: int | None = None

    @property
    def text(self) -> str:
        """As the file has it."""
        return self.study if self.trial is None else f"{self.study}/{self.trial}"


class Note(BaseModel):
    """What people say of a study or a trial."""

    model_config = ConfigDict(frozen=True)

    star: bool = False
    tags: tuple[str, ...] = ()
    text: str = Field("", max_length=4_000)
    archived: bool = False


_NOTES = TypeAdapter(dict[str, Note])


class Notes(dict[str, Note]):
    """All notes by the text of their key."""

    def of(self, key: Key) -> Note:
        """The note on something; an empty one where there is none."""
        return self.get(key.text, Note())


def load(runs: Place) -> Notes:
    """All notes of a folder of studies. Raises InputError where the file holds something else."""
    try:
        return Notes(_NOTES.validate_json(read(runs / FILE, _MOST_BYTES)))
    except FileNotFoundError:
        return Notes()
    except (StorageError, OSError) as error:
        raise InputError(f"{runs / FILE}: cannot be read ({error})") from None
    except ValidationError:
        raise InputError(f"{runs / FILE}: holds no notes: move it away to begin anew") from None


def change(runs: Place, key: Key, note: Note) -> None:
    """Write one note, and leave all others as they are. Raises InputError where it cannot be written.

    Args:
        runs: the folder of studies.
        key: what the note is about.
        note: the new one.
    """
    with _LOCK:
        notes = load(runs)
        notes[key.text] = note
        kept = {text: one.model_dump(exclude_defaults=True) for text, one in notes.items() if one != Note()}
        try:
            write(runs / FILE, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
        except (StorageError, OSError) as error:
            raise InputError(f"{runs / FILE}: cannot be written ({error})") from None


def tags_of(text: str) -> tuple[str, ...]:
    """Tags as people write them, separated by commas."""
    return tuple(dict.fromkeys(tag for part in text.split(",") if (tag := part.strip()[:60])))
