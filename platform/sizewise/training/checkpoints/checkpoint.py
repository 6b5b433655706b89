"""Checkpoints that survive a crash at any instant: atomic writes, a digest inside, the newest valid one wins.

A checkpoint file is `torch.save` bytes followed by their SHA-256. Loading uses `weights_only=True`, so a
checkpoint can carry tensors and plain Python values but never code. Weights alone are safetensors, with the
digest of the tensors in the file's metadata.

In a folder one process at a time trains a trial, because it locks it. Nothing in an object store can be locked:
there each process claims a number and works in a folder of that number, which starts as a copy of the one before
(`take_over`). Whatever a worker that was left behind still writes or removes, it is in a folder that nobody reads.
"""

import contextlib
import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import safetensors
import safetensors.torch
import torch

from sizewise.config.trial import TrialConfig
from sizewise.metrics.evaluation import Row, best, from_rows
from sizewise.store.study_folder import TrialFolder, damaged, weights_iteration
from sizewise_core.files.local_files import OddFileError, open_file
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.claims import Claim
from sizewise_core.stores.storage import (
    Entry,
    Place,
    copy,
    entries,
    open_to_read,
    read,
    read_end,
    remove,
    remove_folder,
    rename,
    write,
)

log = logging.getLogger(__name__)
KEPT = 2  # the newest, and one to fall back on
EARLIER_BYTES = 64 << 20
"""Of the weights of a trial's earlier evaluations that may stand on the front; larger models have their best only."""
DIGEST_BYTES = 32
_COPIED = ("front-*.safetensors", "best-*.safetensors", "stable-*.state", "*.ckpt")
MOST_HEADER = 100 << 20  # bytes that safetensors allows


def make(folder: Place) -> None:
    """Make a trial's folder, and `checkpoints` in which it lies; but no study, which may have been moved away."""
    if isinstance(folder, Path):
        for made in (folder.parent, folder):
            made.mkdir(exist_ok=True)


class State(TypedDict):
    """What a checkpoint holds: tensors and plain values, for whoever loads it runs no code."""

    config: str  # its digest
    of: NotRequired[str]  # the curve's identity; older versions kept none
    iteration: int
    samples: int
    train_seconds: float
    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    random: torch.Tensor
    evaluations: list[Row]
    weights_of: NotRequired[str]  # of a state that other trials go on from: the identity in its best weights


def save(folder: Place, iteration: int, state: State) -> None:
    """Write a checkpoint and drop all but the newest `KEPT`.

    Args:
        folder: the trial's.
        iteration: at which it was taken.
        state: what the checkpoint holds.
    """
    make(folder)
    write_sealed(TrialFolder(folder).checkpoint(iteration), state)
    for old in entries(folder, "*.ckpt")[:-KEPT]:
        remove(old.path)


def write_sealed(path: Place, state: State) -> None:
    """Write a state with its digest, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write(path, payload + hashlib.sha256(payload).digest())


def adopt(source: Place, folder: Place) -> None:
    """Copy the checkpoints of another trial from `source` to `folder`, unless it has some of its own."""
    if entries(folder, "*.ckpt"):
        return
    # Weights first: a checkpoint counts on the weights of its best evaluation.
    for path, *_ in _all_weights(source) + entries(source, "*.ckpt"):
        write(folder / path.name, read(path))


def _all_weights(folder: Place) -> list[Entry]:
    return entries(folder, "front-*.safetensors") + entries(folder, "best-*.safetensors")


def load_newest(folder: Place, say: Callable[[str], None] = log.warning, of: str = "") -> State | None:
    """The newest checkpoint whose digest holds, or None. A damaged one is set aside (`.damaged`), saying so.

    Args:
        folder: where they are.
        say: called with a sentence for each damaged file.
        of: the curve that it must be of (`identity`); checkpoints of older versions name none.
    """
    for path, *_ in reversed(entries(folder, "*.ckpt")):
        data = read(path)
        payload, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        why = "is damaged"
        if hashlib.sha256(payload).digest() == digest:
            state = _state(payload)
            if state is not None and (not of or state.get("of", of) == of):
                return state
            why = "holds no checkpoint" if state is None else "is another trial's"
        say(f"{path} {why}: set aside as .damaged, falling back to the checkpoint before it")
        set_aside(path)
    return None


def load(path: Place, of: str) -> State:
    """What one checkpoint holds; `of` as for `load_newest`.

    Raises:
        DamagedError: it is gone, damaged or of another trial.
    """
    try:
        data = read(path)
    except (FileNotFoundError, OddFileError) as error:
        raise DamagedError(f"{path}: {error.strerror}") from None
    payload, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    state = _state(payload) if hashlib.sha256(payload).digest() == digest else None
    if state is None:
        raise DamagedError(f"{path}: is damaged")
    if state.get("of", of) != of:
        raise DamagedError(f"{path}: is another trial's")
    return state


def digest_of(path: Place) -> str:
    """The digest of the tensors in a file of weights, or of a checkpoint, as it says itself; without reading them.

    Raises:
        DamagedError: the file is gone, or none of these.
    """
    try:
        if path.suffix == ".ckpt":
            return read_end(path, DIGEST_BYTES).hex()
        with open_file(path) if isinstance(path, Path) else open_to_read(path) as stream:
            header = json.loads(stream.read(min(int.from_bytes(stream.read(8), "little"), MOST_HEADER)))
        return str(header["__metadata__"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or "is damaged"
        raise DamagedError(f"{path}: {why}") from None


def _state(payload: bytes) -> State | None:
    """What a checkpoint holds; None where Sizewise did not write it: anyone can make a file with a correct digest."""
    try:
        # To the host, whatever it was saved from: the worker that goes on may have another device, or none.
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError where it holds code, and many others
        log.debug("no checkpoint", exc_info=error)
        return None
    fine = isinstance(state, dict) and isinstance(state.get("evaluations", []), list)
    return cast(State, state) if fine else None


def newest_usable(folder: Place, of: str) -> tuple[State | None, list[str]]:
    """The newest intact checkpoint whose best weights are intact as well, and what was found damaged on the way to it.

    Args:
        folder: where they are.
        of: the curve that they must be of.
    """
    damage: list[str] = []
    state = load_newest(folder, damage.append, of)
    if state is not None and state["evaluations"]:
        iteration = best(from_rows(state["evaluations"])).iteration
        try:
            load_weights(TrialFolder(folder).weights(iteration), of)
        except DamagedError as error:
            # No later checkpoint brings these weights back: only training does, which gives the same ones.
            damage.append(f"{error}: the trial starts anew")
            for path, *_ in entries(folder, "*.ckpt"):
                set_aside(path)
            return None, damage
    return state, damage


def drop_weights(folder: Place, before: int, kept: int | None) -> None:
    """Set weights of earlier evaluations apart, the newest `EARLIER_BYTES` of them, and remove the others.

    Each was the best of its trial until more iterations made a better one, so that it may stand on the front. Those of
    states that are kept for other trials stay where they are.

    Args:
        folder: the trial's.
        before: the iteration before which they are set apart.
        kept: the iteration whose weights stay where they are; None for none.
    """
    trial = TrialFolder(folder)
    keep = set() if kept is None else {trial.weights(kept)}
    states = [entry.path.stem.rpartition("-")[2] for entry in entries(folder, "stable-*.state")]
    keep |= {trial.weights(int(weights)) for weights in states if weights.isdecimal()}
    old = [
        entry
        for entry in entries(folder, "best-*.safetensors")
        if entry.path not in keep and weights_iteration(entry.path) < before
    ]
    for entry in old:
        if entry.size > EARLIER_BYTES:
            remove(entry.path)
        else:
            rename(entry.path, trial.earlier_weights(weights_iteration(entry.path)).name)
    if old:
        room = EARLIER_BYTES
        for entry in reversed(entries(folder, "front-*.safetensors")):
            room -= entry.size
            if room < 0:
                remove(entry.path)


def identity(config: TrialConfig) -> str:
    """The identity of checkpoints and weights: that of their learning curve, which several trials may share.

    Wherever the data lies: it may be moved while a study is interrupted.
    """
    return hashlib.sha256(config.model_copy(update={"data": ""}).curve().encode()).hexdigest()[:16]


def newest(folder: Place) -> str | None:
    """The path of a trial's newest checkpoint, intact or not; None where there is none."""
    return max((str(entry.path) for entry in entries(current(folder), "*.ckpt")), default=None)


def current(folder: Place) -> Place:
    """Where a trial's newest checkpoints lie: in its folder, or in an object store in one of its own folders."""
    if isinstance(folder, Path):
        return folder
    trial = TrialFolder(folder)
    return _newest_own(trial, Claim.newest(trial.claims).number)


def take_over(folder: Place) -> tuple[Place, Claim]:
    """Claim a trial in an object store: a folder for this process alone, with copies of its checkpoints."""
    trial = TrialFolder(folder)
    mine = Claim.take(trial.claims)
    own = trial.of_claim(mine.number).path
    while not _copied(_newest_own(trial, mine.number - 1), own):
        pass  # a worker left behind is still busy there: look again
    for entry in entries(folder):
        if entry.is_folder and entry.path.name.isdigit() and int(entry.path.name) < mine.number:
            with contextlib.suppress(FileNotFoundError):
                remove_folder(entry.path)
    return own, mine


def _newest_own(trial: TrialFolder, number: int) -> Place:
    """The folder of the newest claim up to `number` under which a checkpoint was saved; else that of `number`."""
    for older in range(number, 0, -1):
        if entries(trial.of_claim(older).path, "*.ckpt"):
            return trial.of_claim(older).path
    return trial.of_claim(number).path


def _copied(before: Place, own: Place) -> bool:
    """Copy weights, then states that need them, oldest first; False where one was removed meanwhile."""
    files = [f for kind in _COPIED for f in entries(before, kind)]
    try:
        for entry in files:
            copy(entry.path, own / entry.path.name)
    except FileNotFoundError:
        return False
    return True


def set_aside(path: Place) -> None:
    """Rename a file so that nothing reads it again, and people can look at it."""
    rename(path, damaged(path))


def save_weights(path: Place, weights: dict[str, torch.Tensor], of: str = "") -> None:
    """Write tensors as safetensors, atomically, with their digest.

    Args:
        path: the file.
        weights: tensors of any shape, type and device, by name.
        of: what they are of, kept in the metadata: the curve's identity; "" for none.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write(path, safetensors.torch.save(tensors, metadata={"sha256": _digest(tensors), "of": of}))


def load_weights(path: Place, of: str = "") -> dict[str, torch.Tensor]:
    """The tensors that `save_weights` wrote; `of` as there, where it is known.

    Raises:
        DamagedError: the file is not what was written, or is another trial's, or is gone.
    """
    try:
        data = read(path)
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except (FileNotFoundError, OddFileError) as error:
        raise DamagedError(f"{path}: {error.strerror}") from None
    except safetensors.SafetensorError as error:
        raise DamagedError(f"{path}: {error}") from None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # that of the format
    written = header.get("__metadata__", {})
    if _digest(tensors) != written.get("sha256"):
        raise DamagedError(f"{path}: its content does not match its checksum")
    if of and (written.get("of") or of) != of:
        raise DamagedError(f"{path}: holds the weights of another trial")
    return tensors


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
