"""Checkpoints that survive a crash at any instant: atomic writes, a digest inside, the newest valid one wins.

A checkpoint file is `torch.save` bytes followed by their SHA-256. Loading uses `weights_only=True`, so a
checkpoint can carry tensors and plain Python values but never code. Weights alone are safetensors, with the
digest of the tensors in the file's metadata.
"""

import hashlib
import io
import json
import logging
from collections.abc import Callable
from typing import Any

import safetensors
import safetensors.torch
import torch

from sizewise.sealed import DamagedError
from sizewise_prep.storage import Place, entries, make_folder, read, remove, rename, write

log = logging.getLogger(__name__)
KEPT = 2  # the newest, and one to fall back on
DIGEST_BYTES = 32


def save(folder: Place, iteration: int, state: dict[str, Any]) -> None:
    """Write `state` as the checkpoint of `iteration` and drop all but the newest `KEPT`."""
    make_folder(folder)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write(folder / f"{iteration:012d}.ckpt", payload + hashlib.sha256(payload).digest())
    for old in entries(folder, "*.ckpt")[:-KEPT]:
        remove(old.path)


def load_newest(folder: Place, say: Callable[[str], None] = log.warning) -> dict[str, Any] | None:
    """The newest checkpoint whose digest holds, or None. A damaged one is set aside (`.damaged`), saying so."""
    for path, *_ in reversed(entries(folder, "*.ckpt")):
        data = read(path)
        payload, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() == digest:
            state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
            return state
        say(f"{path} is damaged: set aside as .damaged, falling back to the checkpoint before it")
        set_aside(path)
    return None


def newest(folder: Place) -> str | None:
    """The name of the newest checkpoint, sound or not; None where there is none."""
    return max((entry.path.name for entry in entries(folder, "*.ckpt")), default=None)


def set_aside(path: Place) -> None:
    """Rename a file so that nothing reads it again, and people can look at it."""
    rename(path, f"{path.stem}.damaged")


def save_weights(path: Place, weights: dict[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, atomically, with their digest in the metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write(path, safetensors.torch.save(tensors, metadata={"sha256": _digest(tensors)}))


def load_weights(path: Place) -> dict[str, torch.Tensor]:
    """The tensors that `save_weights` wrote.

    Raises:
        DamagedError: the file is not what was written, or is gone.
    """
    try:
        data = read(path)
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except (FileNotFoundError, safetensors.SafetensorError) as error:
        raise DamagedError(f"{path}: {error}") from None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # that of the format
    if _digest(tensors) != header.get("__metadata__", {}).get("sha256"):
        raise DamagedError(f"{path}: its content does not match its checksum")
    return tensors


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
