"""Where an embedding keeps its numbers: a parameter stored as float32, bfloat16 or int8.

    table = Table((1000, 16), seed=1, storage="int8")
    table()             # float32 (1000, 16), holding only values that int8 times the scale can hold
    table.stored_bytes  # 16004: one byte a number, four for the scale
    table.state_dict()  # int8 numbers and their scale: what files and deployed models carry

Training keeps a float32 working copy for gradients and optimizer, so that any optimizer works: storage makes
the model smaller, not its training.  After every change the copy is rounded to what the storage can hold.
Rounding is stochastic, up or down with odds that keep the mean, because rounding to nearest would lose every
step smaller than half the spacing (Gupta et al., "Deep Learning with Limited Numerical Precision", 2015).
Changes are noticed by the tensor's version, which PyTorch's fused optimizers (``fused=True``) leave as it was: after
their steps it is counted on here.  Kernels round what they have stepped.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from sizewise.embedding.hashing import MASK32, lowbias32

if TYPE_CHECKING:
    from sizewise.embedding.in_backward import InBackward

FLOAT_BYTES = 4

Storage = Literal["float32", "bfloat16", "int8"]

# Small beside the 1/sqrt(dim) of dense layers: a value that training rarely sees then adds almost nothing to
# the interaction, instead of noise.  Measured in benchmarks/RESULTS.md.
INIT_BOUND = 0.01

_rounded_weights: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # those whose versions are looked at


@lru_cache(maxsize=1)
def _count_fused_steps() -> None:
    """Have fused optimizers count on the version of low-precision tables that they step."""

    def count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"] if group.get("fused") else ():
                if parameter in _rounded_weights:
                    torch.autograd.graph.increment_version(parameter)

    register_optimizer_step_post_hook(count)


def storage_overhead(storage: Storage) -> int:
    """Bytes that a table takes beyond its numbers: the scale of int8."""
    return 4 if storage == "int8" else 0


def element_bytes(storage: Storage) -> int:
    """Bytes of one number."""
    return {"float32": FLOAT_BYTES, "bfloat16": 2, "int8": 1}[storage]


class Table(nn.Module):
    """A float32 parameter of values drawn from center + U(-bound, bound), and its stored form.

    Uniform, not normal: it needs no transcendental function, so equal seeds give equal bits on every machine.
    """

    roundings: Tensor
    scale: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        seed: int,
        storage: Storage = "float32",
        bound: float = INIT_BOUND,
        center: float = 0.0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        values = torch.empty(*shape).uniform_(-bound, bound, generator=generator) + center
        self.weight = nn.Parameter(values)
        self.storage: Storage = storage
        self.seed = seed
        # What steps this table in backward passes; None: its gradient is an ordinary one, in `weight.grad`.
        self.stepper: InBackward | None = None
        self.stepped_by_kernels = False  # which round what they step
        self._sums: Tensor | None = None
        if storage != "float32":
            # Rounding number n draws the same noise on every device, on every worker and after a resume.
            self.register_buffer("roundings", torch.zeros((), dtype=torch.int64))
            self._rounded_version = -1
            self._trained_on = False  # since it was last put into evaluation
        if storage == "int8":
            self.register_buffer("scale", torch.zeros(()))

    @property
    def host_decides(self) -> str:
        """Why steps on this table cannot be recorded as a CUDA graph, if they cannot."""
        if self.storage == "float32" or self.stepped_by_kernels:
            return ""
        return f"storage {self.storage} is rounded where the host finds that it was stepped"

    def sums(self) -> Tensor:
        """A buffer like the table for kernels to sum gradients in; whoever steps by them leaves zeros."""
        if self._sums is None or self._sums.device != self.weight.device:
            self._sums = torch.zeros_like(self.weight, requires_grad=False)
        return self._sums

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored form."""
        return self.weight.numel() * element_bytes(self.storage) + storage_overhead(self.storage)

    def forward(self) -> Tensor:
        """The values, rounded to the storage if an optimizer may have moved them since.

        Raises:
            RuntimeError: traced code would read values that are not rounded; or see `InBackward.lookup_begins`.
        """
        if torch.compiler.is_compiling():
            if self.storage != "float32" and (self._trained_on or self._rounded_version < 0):
                raise RuntimeError(
                    f"traced code cannot round to storage {self.storage}: call eval() before torch.export, and have "
                    "torch.compile work on the rest of the model"
                )
            return self.weight
        if self.stepper is not None:
            self.stepper.lookup_begins()
        if self.storage != "float32" and self.training and torch.is_grad_enabled():
            self._trained_on = True
        return self._rounded()

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; for evaluation the values are rounded at once, so that they can be traced."""
        super().train(mode)
        if not mode and self.storage != "float32" and self.weight.device.type != "meta":
            self._rounded()
            self._trained_on = False
        return self

    def was_stepped(self) -> None:
        """Note that kernels have changed the values, and rounded them.

        Whoever keeps the values for a backward pass learns of the change by their version.
        """
        torch.autograd.graph.increment_version(self.weight)
        self._note_rounded()

    def _rounded(self) -> Tensor:
        if self.storage != "float32" and self.weight._version != self._rounded_version:
            self._round()
        return self.weight

    def _note_rounded(self) -> None:
        if self.storage != "float32":
            self._rounded_version = self.weight._version
            _rounded_weights[self.weight] = None
            _count_fused_steps()

    @torch.no_grad()
    def _round(self) -> None:
        flat = self.weight.view(-1)
        if self.storage == "bfloat16":
            # bfloat16 is the upper half of a float32: adding noise to the lower half and cutting that off
            # rounds up with the odds that the lower half says.
            bits = flat.view(torch.int32)
            moved = (
                (bits & 0xFFFF).nonzero().squeeze(1)
            )  # the rest is storable as it is: most of a large pool
            bits[moved] = (bits[moved] + (self._noise(moved) & 0xFFFF).to(torch.int32)) & -0x10000
        else:
            # A power of two that only ever grows: grids nest, so values at rest are hardly ever rounded anew.
            top = max(abs(float(bound)) for bound in torch.aminmax(flat))
            needed = 2.0 ** math.ceil(math.log2(top / 127)) if 0 < top < math.inf else 0.0
            self.scale.clamp_(min=max(needed, 2.0**-126))
            steps = flat / self.scale
            moved = (steps != steps.floor()).nonzero().squeeze(1)
            up = self._noise(moved).double() / 2.0**32
            flat[moved] = ((steps[moved] + up).floor() * self.scale).to(flat.dtype)
        self.roundings += 1
        self._note_rounded()

    def next_stream(self) -> int | Tensor:
        """What the next rounding draws its noise from, for one that is carried out elsewhere; counts it.

        An int64 tensor on a GPU, because a number would have to wait for the device.
        """
        if self.roundings.device.type == "cpu":
            stream: int | Tensor = self._stream()
        else:
            stream = (self.roundings * 0x9E3779B9 + self.seed * 0x85EBCA6B % 2**32) & MASK32
        self.roundings += 1
        return stream

    def _stream(self) -> int:
        return (self.seed * 0x85EBCA6B + int(self.roundings) * 0x9E3779B9) & MASK32

    def _noise(self, positions: Tensor) -> Tensor:
        """32 random bits for each position, new ones at every rounding."""
        return lowbias32((positions + self._stream()) & MASK32)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        weight = self._rounded()
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.storage == "bfloat16":
            destination[prefix + "weight"] = weight.detach().to(torch.bfloat16)
        elif self.storage == "int8":
            destination[prefix + "weight"] = (weight.detach() / self.scale).to(torch.int8)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        key = prefix + "weight"
        if self.storage == "int8" and key in state_dict and state_dict[key].dtype == torch.int8:
            state_dict = {**state_dict, key: state_dict[key].float() * state_dict[prefix + "scale"]}
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._note_rounded()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self.storage != "float32":  # a copy's tensor counts from the start
            state["_rounded_version"] = 0 if self._rounded_version == self.weight._version else -1
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.storage != "float32" and self._rounded_version == 0:
            self._note_rounded()

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self.stepper is not None:  # what lies in the place of a gradient need not go anywhere
            self.stepper.drop_marks()
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        return self
