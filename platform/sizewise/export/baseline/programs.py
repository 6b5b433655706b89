"""Programs of others: TorchScript, torch.export and ONNX, called with the rows of shards, a batch at a time.

    program = opened(Path("today.pt2"))
    program.scores(split)         # (rows,) what it gives for the validation rows, in their order

Each is called with what models of Sizewise get: `dense` float32 (rows, dense columns), as models take them, and `ids`
(rows, token columns), as shards have them; then, where the data has lists, their `values` (n,) and `lengths`
(rows, lists), int64. It gives one number a row: log-odds, or probabilities.

Loading one can run any code: nothing here checks what it holds.
"""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sizewise.training.input.batch import Batch
from sizewise.training.input.batches import Split
from sizewise_core.errors import InputError, shown

ENDINGS = (".pt", ".pth", ".pt2", ".ts", ".jit", ".onnx")
_ROWS = 2_048  # scored at a time
_ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
}
Floats = npt.NDArray[np.float64]


class Call(Protocol):
    """What scores a batch."""

    def __call__(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Numbers, one a row, as a tensor or an array.

        Args:
            inputs: dense float32, ids uint32, and of lists values and lengths.
        """


def scores(path: Path, split: Split) -> Floats:
    """What a program gives for the rows of a split, in their order.

    Args:
        path: of the program.
        split: whose rows.

    Returns:
        (rows,) float64, all finite.

    Raises:
        InputError: it is no such program, takes other inputs, or does not give one finite number a row.
    """
    call = _opened(path)
    parts = []
    with torch.inference_mode():
        for batch in split.in_order(_ROWS):
            inputs = _inputs(batch)
            try:
                found = call(inputs)
            except InputError:
                raise
            except Exception as error:  # whatever a program raises, its inputs are what is at fault
                raise InputError(f"{path}: fails on {_shapes(inputs)} ({_why(error)}): {_TAKES}") from None
            parts.append(_numbers(path, found, len(batch.label)))
    every = np.concatenate(parts) if parts else np.empty(0)
    if not np.isfinite(every).all():
        row = int(np.argmin(np.isfinite(every)))
        raise InputError(
            f"{path}: gives {every[row]} for validation row {row + 1:,}: it must be a finite number"
        )
    return every


_TAKES = "it must take exactly these and give one number a row; or name a file of its scores"


def _opened(path: Path) -> Call:
    """A program by what it is, whatever its ending."""
    if path.suffix.lower() == ".onnx":
        return _onnx(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: is no TorchScript and no torch.export program: save it with torch.jit.save or torch.export.save"
        ) from None
    if "constants.pkl" in names:
        return _loaded(path, _torch_script)
    if "models/model.json" in names or "serialized_exported_program.json" in names:
        return _loaded(path, _exported)
    what = "holds weights without a program" if "data.pkl" in names else "is no PyTorch program"
    raise InputError(f"{path}: {what}: save the model with torch.jit.save or torch.export.save")


def _loaded(path: Path, load: Callable[[Path], Call]) -> Call:
    try:
        return load(path)
    except Exception as error:  # PyTorch raises many kinds
        raise InputError(
            f"{path}: PyTorch {torch.__version__} cannot load it ({_why(error)}): save it with that version"
        ) from None


def _torch_script(path: Path) -> Call:
    module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    return lambda inputs: module(inputs[0], *(one.to(torch.int64) for one in inputs[1:]))


def _exported(path: Path) -> Call:
    program = torch.export.load(str(path))
    module = program.module()
    named = set(program.graph_signature.user_inputs)
    examples = [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in named
    ]
    kinds = [one.dtype for one in examples if isinstance(one, torch.Tensor)]

    def call(inputs: Sequence[torch.Tensor]) -> Any:
        wanted = kinds if len(kinds) == len(inputs) else [torch.float32] + [torch.int64] * (len(inputs) - 1)
        return module(*(one.to(kind) for one, kind in zip(inputs, wanted, strict=True)))

    return call


def _onnx(path: Path) -> Call:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise InputError(f"{path}: an ONNX program needs ONNX Runtime: pip install onnxruntime") from None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds
        raise InputError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({_why(error)})"
        ) from None
    takes = [(one.name, _ONNX_TYPES.get(one.type)) for one in session.get_inputs()]

    def call(inputs: Sequence[torch.Tensor]) -> Any:
        if len(takes) != len(inputs):
            raise InputError(f"{path}: takes {len(takes)} inputs, and is given {_shapes(inputs)}: {_TAKES}")
        given = {
            name: one.numpy().astype(kind or np.float32, copy=False)
            for (name, kind), one in zip(takes, inputs, strict=True)
        }
        return session.run(None, given)[0]

    return call


def _inputs(batch: Batch) -> list[torch.Tensor]:
    """What a program is called with: dense values, ids, and of lists their values and lengths."""
    if batch.bags is None:
        return [batch.dense, batch.ids]
    lengths = batch.bags.lengths().view(-1, len(batch.label)).transpose(0, 1)
    return [batch.dense, batch.ids, batch.bags.values, lengths.contiguous()]


def _numbers(path: Path, found: Any, rows: int) -> Floats:
    """(rows,) float64: what a program gave for a batch."""
    if isinstance(found, tuple | list) and len(found) == 1:
        found = found[0]
    if isinstance(found, torch.Tensor):
        found = found.detach().to(torch.float64).numpy()
    if not isinstance(found, np.ndarray) or found.shape not in ((rows,), (rows, 1)):
        shape = list(found.shape) if isinstance(found, np.ndarray) else type(found).__name__
        raise InputError(
            f"{path}: gives {shape} for {rows:,} rows: it must give one number a row, ({rows},) or ({rows}, 1)"
        )
    return found.reshape(-1).astype(np.float64)


def _shapes(inputs: Sequence[torch.Tensor]) -> str:
    """Inputs in words."""
    names = ("dense", "ids", "values", "lengths")
    listed = [f"{name} {tuple(one.shape)}" for name, one in zip(names, inputs, strict=False)]
    return f"{', '.join(listed[:-1])} and {listed[-1]}"


def _why(error: Exception) -> str:
    """What an error of another library says, shortened to its last line of words."""
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalpha, line))]
    return shown(lines[-1] if lines else type(error).__name__)
