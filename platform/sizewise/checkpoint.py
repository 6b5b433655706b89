"""Checkpoints that survive a crash at any instant: atomic writes, a digest inside, the newest valid one wins.

A checkpoint file is `torch.save` bytes followed by their SHA-256. Loading uses `weights_only=True`, so a
checkpoint can carry tensors and plain Python values but never code. Weights alone are safetensors, with the
digest of the tensors in the file's metadata.
"""

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from sizewise.sealed import DamagedError
from sizewise_prep.atomic import write_atomic

log = logging.getLogger(__name__)
KEPT = 2  # the newest, and one to fall back on
DIGEST_BYTES = 32


def save(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write `state` as the checkpoint of `iteration` and drop all but the newest `KEPT`."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomic(folder / f"{iteration:012d}.ckpt", payload + hashlib.sha256(payload).digest())
    for old in sorted(folder.glob("*.ckpt"))[:-KEPT]:
        old.unlink(missing_ok=True)


def load_newest(folder: Path, say: Callable[[str], None] = log.warning) -> dict[str, Any] | None:
    """The newest checkpoint whose digest holds, or None. A damaged one is set aside (`.damaged`), saying so."""
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
        data = path.read_bytes()
        payload, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() == digest:
            state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
            return state
        say(f"{path} is damaged: set aside as .damaged, falling back to the checkpoint before it")
        set_aside(path)
    return None


def set_aside(path: Path) -> None:
    """Rename a file so that nothing reads it again, and people can look at it."""
    path.rename(path.with_suffix(".damaged"))


def save_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, atomically, with their digest in the metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomic(path, safetensors.torch.save(tensors, metadata={"sha256": _digest(tensors)}))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors that `save_weights` wrote.

    Raises:
        DamagedError: the file is not what was written, or is gone.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise DamagedError(f"{path}: {error}") from None
    if _digest(tensors) != written:
        raise DamagedError(f"{path}: its content does not match its checksum")
    return tensors


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
