"""An exported model's folder: `model.pt2`, the program, and `model.json`, what it is and expects.

deployed = Deployed.open(Path("model"))
deployed(dense, tokens)                # (rows,) log-odds
deployed.description.validation["auc"]
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from sizewise_prep.errors import InputError, first_problem
from sizewise_prep.layout import Layout
from sizewise_prep.manifest import Tokens

PROGRAM, DESCRIPTION = "model.pt2", "model.json"


class Latency(BaseModel):
    """The median milliseconds of a call with so many rows."""

    rows: int
    milliseconds: float


class Description(BaseModel):
    """`model.json`.

    Attributes:
        study, trial_id, iteration: where the weights come from.
        config: every setting that they were trained with.
        layout: the columns of the raw rows that it reads.
        tokens: what the program makes of a token before it looks it up.
        validation, test: auc, logloss and normalized_entropy at that iteration; test is empty where the data has none.
        embedding_bytes, model_bytes: as in the study's tables; the file also holds the program and a vocabulary.
        latency: on the machine and with the threads that `measured_on` names.
        program_bytes, sha256: of `model.pt2`.
    """

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    sizewise: str
    study: str
    trial_id: int
    iteration: int
    config: dict[str, Any]
    layout: Layout
    tokens: Tokens
    validation: dict[str, float | None]
    test: dict[str, float | None]
    embedding_bytes: int
    model_bytes: int
    compression_ratio: float
    latency: list[Latency]
    measured_on: str
    program_bytes: int
    sha256: str


@dataclass(frozen=True)
class Deployed:
    """An exported model, ready to score rows."""

    description: Description
    module: torch.nn.Module

    @staticmethod
    def open(folder: Path) -> "Deployed":
        """The model that `export` wrote to `folder`.

        Raises:
            InputError: no such folder, no export in it, a damaged file, or one of a later version.
        """
        try:
            description = Description.model_validate_json((folder / DESCRIPTION).read_bytes())
            content = (folder / PROGRAM).read_bytes()
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
            raise InputError(f"{folder / PROGRAM}: is damaged (its SHA-256 differs); export the trial again")
        return Deployed(description, torch.export.load(io.BytesIO(content)).module())

    @torch.inference_mode()
    def __call__(
        self, dense: npt.NDArray[np.float32], tokens: npt.NDArray[np.uint32]
    ) -> npt.NDArray[np.float32]:
        """Log-odds (rows,).

        Args:
            dense: (rows, integers), NaN where missing.
            tokens: (rows, features), 0 where missing.
        """
        if not len(dense):
            return np.empty(0, np.float32)
        logits: npt.NDArray[np.float32] = self.module(
            torch.from_numpy(dense), torch.from_numpy(tokens)
        ).numpy()
        return logits
