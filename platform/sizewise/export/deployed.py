"""An exported model's folder: `model.pt2`, the program, and `model.json`, its description.

deployed = Deployed.open(Path("model"))
deployed(dense, tokens)                # (rows,) log-odds
deployed.description.validation["auc"]
"""

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sizewise.export.archive import checked
from sizewise_core.errors import InputError, first_problem, shown
from sizewise_core.files.sealed import DamagedError, JsonObject, sealed, unsealed
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.dense import restored
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.shards.manifest import Manifest, Tokens
from sizewise_prep.shards.values.vocabulary import Vocabulary

PROGRAM, DESCRIPTION = "model.pt2", "model.json"
_MOST_DESCRIPTION = 16 << 20  # bytes
_ROWS = 16_384  # of shards, scored at a time
_Count = Annotated[int, Field(ge=0, le=2**53)]


class Latency(BaseModel):
    """The median milliseconds of a call with this many rows."""

    rows: int
    milliseconds: float


class Description(BaseModel):
    """`model.json`.

    Attributes:
        study, trial_id, iteration: where the weights come from.
        config: every setting that they were trained with.
        layout: the columns of the raw rows that it reads.
        tokens: what the program does to a token before the look-up.
        max_list: of longer lists the last so many values are kept, as in the training rows; None: all.
        validation, test: auc, logloss and normalized_entropy at that iteration; test is empty where the data has none.
        stored_as: the storage that it was rounded to when it was exported; None where it is stored as it was trained.
        embedding_bytes, model_bytes: as in the study's tables; the file also holds the program and a vocabulary.
        latency: on the machine and with the threads that `measured_on` names.
        program_bytes, sha256: of `model.pt2`.
        data_sha256: the fingerprint of the shards that it was trained on; empty where an older version exported it.
    """

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    sizewise: str
    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=255)]
    trial_id: _Count
    iteration: _Count
    config: JsonObject
    layout: Layout
    tokens: Tokens
    max_list: Annotated[Annotated[int, Field(ge=1)] | None, Field(exclude_if=lambda used: used is None)] = (
        None
    )
    validation: dict[str, float | None]
    test: dict[str, float | None]
    stored_as: Literal["bfloat16", "int8", "int4", "int2"] | None = None
    embedding_bytes: _Count
    model_bytes: _Count
    compression_ratio: float
    latency: list[Latency]
    measured_on: str
    program_bytes: _Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    data_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @classmethod
    def of_text(cls, content: bytes) -> "Description":
        """The description in `model.json`; those of versions up to 0.3.0 have no checksum, and are taken as they are.

        Raises:
            DamagedError: not what was written.
            ValidationError: none that this version knows.
        """
        unsealed(content)
        return cls.model_validate_json(content)

    def text(self) -> bytes:
        """The content of `model.json`, with its checksum."""
        return sealed(self.model_dump_json(indent=2)).encode()

    @field_validator("layout")
    @classmethod
    def _is_fitted(cls, layout: Layout) -> Layout:
        if not layout.is_fitted_by(layout.fitted):
            raise ValueError("lacks the edges or moments of its columns")
        return layout


@dataclass(frozen=True)
class Deployed:
    """An exported model, ready to score rows."""

    description: Description
    module: torch.nn.Module

    @staticmethod
    def open(folder: Path) -> "Deployed":
        """The model that `export` wrote to `folder`.

        Raises:
            InputError: no such folder, no export in it, a damaged file, one of a later version, or a program that is
                not one that Sizewise exports (`archive.checked`), because it could run any code.
        """
        try:
            description = Description.of_text(_read(folder / DESCRIPTION, _MOST_DESCRIPTION))
            content = _read(folder / PROGRAM, description.program_bytes)
        except DamagedError as error:
            raise InputError(
                f"{folder / DESCRIPTION}: {error}: it was edited, or copied incompletely; export the trial again"
            ) from None
        except ValidationError as error:
            raise InputError(
                f"{folder / DESCRIPTION}: {first_problem(error)}; export the trial again"
            ) from None
        except OSError as error:
            raise InputError(
                f"{error.filename}: cannot be read ({error.strerror}); "
                "make the folder with `sizewise export NAME --trial ID --out DIR`"
            ) from None
        if hashlib.sha256(content).hexdigest() != description.sha256:
            raise InputError(
                f"{folder / PROGRAM}: is damaged, or of another export than {DESCRIPTION} beside it (its SHA-256 "
                "differs); export the trial again"
            )
        archive = checked(content, folder / PROGRAM)
        del content  # it may be large
        try:
            deployed = Deployed(description, torch.export.load(archive).module())
            columns = len(description.layout.dense), len(description.layout.tokens)
            answer = deployed(
                np.zeros((2, columns[0]), np.float32),
                np.zeros((2, columns[1]), np.uint32),
                [
                    ListColumn.of_lengths(np.array([0, 1]), np.zeros(1, np.uint32))
                    for _ in description.layout.token_lists
                ],
            )
        except Exception as error:  # PyTorch raises many kinds, some with the graph in their message
            raise InputError(
                f"{folder / PROGRAM}: PyTorch {torch.__version__} cannot run it ({type(error).__name__}); export the "
                "trial again"
            ) from None
        if answer.shape != (2,) or answer.dtype != np.float32:
            raise InputError(f"{folder / PROGRAM}: does not give one number a row; export the trial again")
        return deployed

    @torch.inference_mode()
    def __call__(
        self,
        dense: npt.NDArray[np.float32],
        tokens: npt.NDArray[np.uint32],
        lists: Sequence[ListColumn] = (),
    ) -> npt.NDArray[np.float32]:
        """Log-odds (rows,).

        Args:
            dense: (rows, integers), NaN where missing.
            tokens: (rows, features), 0 where missing.
            lists: of each column of lists, of raw tokens, the same rows'.
        """
        if not len(dense):
            return np.empty(0, np.float32)
        inputs = [torch.from_numpy(dense), torch.from_numpy(tokens)]
        if lists:
            most = self.description.max_list
            columns = [column if most is None else column.last(most) for column in lists]
            inputs.append(torch.from_numpy(np.concatenate([column.used for column in columns])))
            inputs.append(torch.from_numpy(np.stack([column.lengths for column in columns], axis=1)))
        try:
            logits: npt.NDArray[np.float32] = self.module(*inputs).numpy()
        except (IndexError, RuntimeError) as error:
            if "memory" in str(error):
                raise
            # Such as a row that the table does not have.
            raise InputError(
                f"{PROGRAM} of study {self.description.study}: fails on these rows ({str(error)[:60]!a}); export the "
                "trial again"
            ) from None
        return logits

    def of_shard(
        self, rows: Rows, manifest: Manifest, vocabulary: Vocabulary | None
    ) -> npt.NDArray[np.float32]:
        """Log-odds (rows,) of a shard's rows: it is given raw rows, as far as shards still have them.

        Args:
            rows: as they are stored.
            manifest: of their data.
            vocabulary: of contiguous ids; None where ids are tokens.
        """
        parts = [np.empty(0, np.float32)]
        for low in range(0, len(rows), _ROWS):
            high = min(low + _ROWS, len(rows))
            dense, ids = rows.dense[low:high], rows.ids[low:high]
            lists = [column.part(low, high) for column in rows.lists]
            if manifest.settings.dense_is_log:
                dense = restored(dense, manifest.layout)
            tokens = ids if vocabulary is None else vocabulary.raw_tokens(ids)
            if vocabulary is not None:
                lists = _raw_lists(lists, vocabulary.tokens[ids.shape[1] :])
            # PyTorch takes no read-only ones.
            parts.append(self(np.array(dense), np.array(tokens), lists))
        return np.concatenate(parts)

    def misfit(self, manifest: Manifest) -> str:
        """Why the rows of some data are none that it can score; empty where they are.

        Args:
            manifest: of the data.
        """
        tokens, layout = self.description.tokens, self.description.layout
        if tokens != manifest.settings.tokens:
            return (
                f"was trained on {tokens} tokens, and the data has {manifest.settings.tokens} ones: prepare the data "
                f"with `sizewise prep --tokens {tokens}`, or use another model"
            )
        takes = len(layout.dense), len(layout.features)
        if takes != (has := (len(manifest.dense_missing), len(manifest.cardinalities))):
            return (
                f"takes {takes[0]} dense and {takes[1]} token columns, and the data has {has[0]} and {has[1]}: use "
                "another model"
            )
        theirs, ours = _columns(layout), _columns(manifest.layout)
        for (name, made), (other, made_here) in zip(theirs, ours, strict=True):
            if name != other:
                return (
                    f"takes column {shown(name, 30)} where the data has {shown(other, 30)}: its columns are others, or "
                    "in another order: use another model, or a file of its scores"
                )
            if made != made_here:
                return (
                    f"takes column {shown(name, 30)} as its own data had it, and this data was prepared with another "
                    "kind, other buckets or another cross: use another model, or a file of its scores"
                )
        return ""


def _columns(layout: Layout) -> list[tuple[str, object]]:
    """A program's columns in the order that it takes them, each with what its tokens are made of."""
    kinds: dict[str, object] = {
        name: layout.kinds[name] for name in (*layout.read_tokens, *layout.token_lists)
    }
    buckets = {name: (bucket.of, layout.edges(name)) for name, bucket in layout.bucketed.items()}
    made = kinds | buckets | layout.crosses
    return [*((name, "") for name in layout.dense), *((name, made[name]) for name in layout.features)]


def _raw_lists(lists: Sequence[ListColumn], known: Sequence[npt.NDArray[np.uint32]]) -> list[ListColumn]:
    """Lists of raw tokens, of lists of contiguous ids; 0 where a token was missing or unknown."""
    return [
        ListColumn.of_lengths(column.lengths, np.concatenate([[np.uint32(0)], tokens])[column.used])
        for column, tokens in zip(lists, known, strict=True)
    ]


def _read(path: Path, most: int) -> bytes:
    """A regular file's content, at most so many bytes. Raises OSError, and InputError for any other file."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        what = f"has more than {most:,} bytes" if stat.S_ISREG(found.st_mode) else "is no regular file"
        raise InputError(f"{path}: {what}; export the trial again")
    return path.read_bytes()
