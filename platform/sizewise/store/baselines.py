"""What runs today: as a study file or `--baseline` asks for it, and what is known of it once it was scored.

asked = BaselineAsked.read("today.pt2,bytes=20MB")     # or {"auc": 0.748, "bytes": "20MB"}, or {"path": ...}
keep(folder, record)                                   # FOLDER/baselines/DIGEST.json
kept(folder, digest)
"""

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sizewise.store.records import BaselineRecord, read_record
from sizewise.store.study_folder import MOST_BYTES, StudyFolder
from sizewise_core.errors import InputError, shown
from sizewise_core.files.sealed import DamagedError, JsonObject, sealed
from sizewise_core.stores.storage import Place, make_folder, read, write
from sizewise_core.units import parse_bytes

log = logging.getLogger(__name__)
FIGURES = ("auc", "bytes", "p99_ms", "cost")
HOW = "give figures (auc=0.75,bytes=20MB,p99_ms=3,cost=12), or the path of a model or of its scores"
_Size = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, lt=2**62)]
_Amount = Annotated[float, Field(ge=0, lt=2**62)]


class BaselineAsked(BaseModel):
    """What runs today, as it is written: figures, or a path whose scores of the validation rows give its AUC.

    Attributes:
        path: of an exported folder, a program or a file of scores; None where there are figures alone.
        auc: on validation rows; only without a path.
        bytes: its size; of a folder or a program its own where it is left out.
        p99_ms: its latency.
        cost: of running it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    path: str | None = None
    auc: Annotated[float, Field(ge=0, le=1)] | None = None
    bytes: _Size | None = None
    p99_ms: _Amount | None = None
    cost: _Amount | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, data: Any) -> Any:
        return _fields(data) if isinstance(data, str) else data

    @model_validator(mode="after")
    def _is_some(self) -> "BaselineAsked":
        if self.path is None and self.auc is None:
            raise ValueError(f"has no auc: {HOW}")
        if self.path is not None and self.auc is not None:
            raise ValueError(f"auc: {shown(self.path)} is scored, which gives its AUC: leave auc out")
        if self.path is not None and (not self.path.strip() or "\0" in self.path):
            raise ValueError(f"names no file: {HOW}")
        return self

    @classmethod
    def read(cls, text: str) -> "BaselineAsked":
        """What `--baseline` says.

        Raises:
            InputError: neither figures nor a path.
        """
        try:
            return cls.model_validate(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InputError(
                f"--baseline {shown(text)}: {first['msg'].removeprefix('Value error, ')}"
            ) from None


def _fields(text: str) -> JsonObject:
    """The fields of a baseline that is written as one text. Raises ValueError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    found: JsonObject = {}
    if (
        words
        and (words[0].partition("=")[0] not in FIGURES)
        and ("=" not in words[0] or Path(words[0]).exists())
    ):
        found["path"] = words.pop(0)
    for word in words:
        name, _, value = word.partition("=")
        if name not in FIGURES:
            raise ValueError(f"{shown(name)} is none of {', '.join(FIGURES)}: {HOW}")
        try:
            found[name] = (
                parse_bytes(int(value) if value.isdigit() else value) if name == "bytes" else float(value)
            )
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] < 2**62 or (name == "auc" and found[name] > 1):
            raise ValueError(f"{name}={shown(value)} is no such number: {HOW}")
    return found


def keep(folder: Place, record: BaselineRecord) -> None:
    """Keep what a baseline was scored as in a study's folder, so that it is scored once.

    A folder that cannot be written keeps nothing.
    """
    path = StudyFolder(folder).baseline(record.digest)
    try:
        make_folder(path.parent)
        write(path, sealed(record.model_dump_json()).encode())
    except (OSError, InputError):
        log.debug("%s: cannot be written", path, exc_info=True)


def kept(folder: Place, digest: str) -> BaselineRecord | None:
    """What the baseline with that digest was scored as; None where that is not kept, or damaged."""
    path = StudyFolder(folder).baseline(digest)
    with suppress(OSError, DamagedError, ValidationError, InputError):
        record = read_record(read(path, MOST_BYTES), BaselineRecord)
        return record if record.digest == digest else None
    return None


def of_facts(facts: Mapping[str, Any]) -> BaselineRecord | None:
    """The baseline in what `study.json` says; None where there is none, or it is damaged."""
    with suppress(ValidationError):
        return BaselineRecord.model_validate(facts["baseline"]) if facts.get("baseline") else None
    return None
