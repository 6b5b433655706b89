"""Where an embedding keeps its numbers: a parameter stored as float32, bfloat16, int8, int4 or int2.

    table = Table((1000, 16), seed=1, storage="int8")
    table()             # float32 (1000, 16), holding only values that int8 times the scale can hold
    table.stored_bytes  # 16004: one byte a number, four for the scale
    table.state_dict()  # int8 numbers and their scale: what files and deployed models carry

Training keeps a float32 working copy for gradients and optimizer, so that any optimizer works: storage makes
the model smaller, not its training.

`int4` and `int2` leave the working copy as it is, and look up the levels that its numbers are nearest to; the step
between levels is learnt (`learned_step`). Their packed form is what files and deployed models carry. To train on, a
state holds the working copy and the steps' logarithms as well, which `shipped` leaves out.

For `bfloat16` and `int8`, after every change the working copy is rounded to what the storage can hold.
Rounding is stochastic, up or down with odds that keep the mean, because rounding to nearest would lose every
step smaller than half the spacing (Gupta et al., "Deep Learning with Limited Numerical Precision", 2015).
Changes are noticed by the tensor's version, which PyTorch's fused optimizers (``fused=True``) leave as it was: after
their steps it is counted on here.  Kernels round what they have stepped.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from sizewise.embedding.ids.hashing import MASK32
from sizewise.embedding.in_backward import InBackward, is_gradient
from sizewise.embedding.kernels.blocks.passes import Adagrad
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.storage import learned_step, stochastic
from sizewise.embedding.storage.quantization import (
    PACKED,
    Grid,
    Quantized,
    Storage,
    group_count,
    stored_bytes,
)

StateDict = dict[str, Any]
"""Of `torch.nn.Module`: names to tensors, and what else a module keeps."""
FLOAT_BYTES = 4

ROUNDED: tuple[Storage, ...] = ("bfloat16", "int8")
"""Storages whose working copy is rounded after every change."""
TO_TRAIN_ON = ("master", "log_steps")
"""What a packed table's state holds beyond its stored form: its working copy, and the steps' logarithms."""

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
                # Without a gradient it was not stepped: kernels did that, and rounded it.
                if parameter in _rounded_weights and is_gradient(parameter.grad):
                    torch.autograd.graph.increment_version(parameter)

    register_optimizer_step_post_hook(count)


class Table(nn.Module):
    """A float32 parameter of values drawn from center + U(-bound, bound), and its stored form.

    Uniform, not normal: it needs no transcendental function, so equal seeds give equal bits on every machine.

    Args:
        shape: of the values.
        seed: of their draw.
        storage: what they are stored as.
        bound, center: of the distribution that they are drawn from.
        group: consecutive numbers that share a scale, for `int4` and `int2`; None: all of them.

    Raises:
        InputError: the group does not divide the numbers.
    """

    roundings: Tensor
    scale: Tensor
    log_steps: nn.Parameter

    def __init__(
        self,
        shape: Sequence[int],
        seed: int,
        storage: Storage = "float32",
        bound: float = INIT_BOUND,
        center: float = 0.0,
        group: int | None = None,
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
        self.group = group if storage in PACKED else None
        self.center = center
        self.in_float32 = False  # a packed table: trained as such as yet, and rounded for evaluations
        if storage in PACKED:
            self.grid = Grid.of(PACKED[storage])
            steps = torch.full((group_count(values.numel(), group),), learned_step.STARTING_STEP[storage])
            self.log_steps = nn.Parameter(steps.log())
            self._read: tuple[Any, ...] = ()  # what was made of which versions of weight and steps
        if storage in ROUNDED:
            # Rounding number n draws the same noise on every device, on every worker and after a resume.
            self.register_buffer("roundings", torch.zeros((), dtype=torch.int64))
            self._rounded_version = -1
            self._within = False  # no number is known to exceed what int8 reaches with the scale
            self._trained_on = False  # since it was last put into evaluation
        if storage == "int8":
            self.register_buffer("scale", torch.zeros(()))

    @property
    def host_decides(self) -> str:
        """Why steps on this table cannot be recorded as a CUDA graph, if they cannot."""
        if self.in_float32:
            return f"storage {self.storage} is trained in float32 until the host says otherwise"
        if self.storage not in ROUNDED or self.stepped_by_kernels:
            return ""
        return f"storage {self.storage} is rounded where the host finds that it was stepped"

    @property
    def steps_in_kernels(self) -> bool:
        """Whether fused kernels can step this table by gradients of vectors."""
        if self.storage == "int8":
            return self.weight.device.type == "cpu" and stochastic.kernels_step_as_torch()
        return self.storage not in PACKED or len(self.log_steps) == 1

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored form."""
        return stored_bytes(self.weight.numel(), self.storage, self.group)

    def sums(self) -> Tensor:
        """A buffer like the table for kernels to sum gradients in; whoever steps by them leaves zeros."""
        if self._sums is None or self._sums.device != self.weight.device:
            self._sums = torch.zeros_like(self.weight, requires_grad=False)
        return self._sums

    def forward(self) -> Tensor:
        """The values, rounded to the storage if an optimizer may have moved them since.

        Raises:
            RuntimeError: traced code would read values that are not rounded; or see `InBackward.lookup_begins`.
        """
        if torch.compiler.is_compiling():
            return self._traced()
        if self.stepper is not None:
            self.stepper.lookup_begins()
        if self.storage in PACKED:
            return self._levels()
        if self.storage in ROUNDED and self.training and torch.is_grad_enabled():
            self._trained_on = True
        return self._rounded()

    @property
    def shape(self) -> torch.Size:
        """Of the values."""
        return self.weight.shape

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows of the values.

        Args:
            numbers: int64, of any shape.
        """
        return embedding(numbers, self())

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; for evaluation the values are rounded at once, so that they can be traced."""
        super().train(mode)
        if self.storage in PACKED:
            self._read = ()
            if not mode and self.in_float32:
                learned_step.fit_steps(self.weight, self.log_steps, self.storage, self.center)
        elif not mode and self.storage in ROUNDED and self.weight.device.type != "meta":
            self._rounded()
            self._trained_on = False
        return self

    def working_copy(self) -> Tensor:
        """The numbers of a packed table as they are trained, to be rounded by `levels_of`; raises as `forward`."""
        if self.stepper is not None:
            self.stepper.lookup_begins()
        return self.weight

    def levels_of(self, looked_up: Tensor) -> Tensor:
        """Numbers of the working copy as they are stored, where all of the table have one step."""
        if self.in_float32 and self.training:
            return learned_step.unrounded(looked_up, self.log_steps)
        return learned_step.trained_levels(
            looked_up, self.log_steps, self.grid, self.center, self.weight.numel()
        )

    def packed(self) -> Quantized | None:
        """The packed form of `int4` and `int2`, for look-ups that need no gradient; None of other storages.

        It is made once for values that stay as they are.
        """
        if self.storage not in PACKED:
            return None
        codes: Quantized = self._made_once("codes", learned_step.coded)
        return codes

    def _levels(self) -> Tensor:
        if torch.is_grad_enabled() and (self.weight.requires_grad or self.log_steps.requires_grad):
            return self.levels_of(self.weight)
        values: Tensor = self._made_once("values", learned_step.levels)
        return values

    @torch.no_grad()
    def _made_once(self, what: str, make: Callable[..., Any]) -> Any:
        """What is made of the weight and its steps, unless they have been the same since the last call."""
        tensors = self.weight, self.log_steps
        versions = tuple(tensor._version for tensor in tensors)
        if not self._read or self._read[0] != what or self._read[2] != versions:
            same = False
        else:
            same = all(one is other for one, other in zip(self._read[1], tensors, strict=True))
        if not same:
            self._read = what, tensors, versions, make(*tensors, self.grid, self.center)
            for tensor in tensors:
                _rounded_weights[tensor] = None
            _count_fused_steps()
        return self._read[3]

    def _traced(self) -> Tensor:
        unfit = self.storage in ROUNDED and (self._trained_on or self._rounded_version < 0)
        if unfit or (self.storage in PACKED and self.training):
            raise RuntimeError(
                f"traced code cannot round to storage {self.storage}: call eval() before torch.export, and have "
                "torch.compile work on the rest of the model"
            )
        if self.storage not in PACKED:
            return self.weight
        steps = learned_step.steps_of(self.log_steps).unsqueeze(1)
        codes = self.grid.codes(self.weight.view(len(steps), -1) - self.center, steps)
        return (self.grid.values(codes, steps) + self.center).view(self.weight.shape)

    def was_stepped(self) -> None:
        """Note that kernels have changed the values, and rounded them.

        Whoever keeps the values for a backward pass learns of the change by their version.
        """
        torch.autograd.graph.increment_version(self.weight)
        self._note_rounded()

    def step_int8(self, blocks: Blocks, ids: Any, rate: float, adagrad: Adagrad | None) -> None:
        """A step by `sums`, and the rounding, where ids read; the bits are those of steps of the whole table.

        Args:
            blocks: where vectors lie in the table.
            ids: those whose gradients were summed.
            rate: learning rate.
            adagrad: what that keeps; None for a step of SGD.
        """
        scale, numbers = float(self.scale), self.weight.numel()
        read = blocks.runs_of(numbers, ids)
        at_rest = self._within and self.weight._version == self._rounded_version
        if read.step_as_torch(self.weight, self.sums(), rate, 127 * scale, adagrad) and at_rest:
            read.round_int8(self.weight, self._stream(), scale)
            self.roundings += 1
            self.was_stepped()
        else:  # the scale may have to grow, which all numbers have a say in: when they are read
            torch.autograd.graph.increment_version(self.weight)

    def _rounded(self) -> Tensor:
        if self.storage in ROUNDED and self.weight._version != self._rounded_version:
            self._round()
        return self.weight

    def _note_rounded(self) -> None:
        if self.storage in ROUNDED:
            self._rounded_version = self.weight._version
            _rounded_weights[self.weight] = None
            _count_fused_steps()

    @torch.no_grad()
    def _round(self) -> None:
        flat = self.weight.view(-1)
        if self.storage == "bfloat16":
            stochastic.round_bfloat16(flat, self._stream())
        else:
            # A power of two that only ever grows: grids nest, so values at rest are hardly ever rounded anew.
            self.scale.clamp_(min=max(stochastic.needed_scale(flat), 2.0**-126))
            stochastic.round_int8(flat, self._stream(), self.scale)
            self._within = True
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

    def _save_to_state_dict(self, destination: StateDict, prefix: str, keep_vars: bool) -> None:
        weight = self._rounded()
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.storage == "bfloat16":
            destination[prefix + "weight"] = weight.detach().to(torch.bfloat16)
        elif self.storage == "int8":
            destination[prefix + "weight"] = (weight.detach() / self.scale).to(torch.int8)
        elif self.storage in PACKED:
            destination[prefix + "master"] = destination[prefix + "weight"]
            codes, scales = learned_step.coded(
                weight.detach(), self.log_steps.detach(), self.grid, self.center
            )
            destination[prefix + "weight"], destination[prefix + "scale"] = codes, scales

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        key = prefix + "weight"
        if self.storage == "int8" and key in state_dict and state_dict[key].dtype == torch.int8:
            state_dict = {**state_dict, key: state_dict[key].float() * state_dict[prefix + "scale"]}
        elif self.storage in PACKED and key in state_dict:
            state_dict = self._unpacked(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._within = False  # int8 has one level more below zero than above
        self._note_rounded()

    def _unpacked(self, state: StateDict, prefix: str) -> StateDict:
        """A state with the working copy for its weight: its own, or one that the stored form follows from."""
        weight, log_steps = state[prefix + "weight"], state.get(prefix + "log_steps")
        if weight.dtype != torch.uint8:  # of a table in float32, which is rounded
            if log_steps is None and weight.shape == self.weight.shape:
                weight, log_steps = learned_step.fitted(
                    weight, self.storage, len(self.log_steps), self.center
                )
        elif prefix + "master" in state and log_steps is not None:
            weight = state[prefix + "master"]
        elif len(weight) == -(-self.weight.numel() * self.grid.bits // 8):
            self.in_float32 = False  # the steps are those of the stored form
            stored = Quantized(weight, state[prefix + "scale"])
            weight, log_steps = learned_step.decoded(stored, self.storage, self.weight.shape, self.center)
        others = {k: v for k, v in state.items() if k not in (prefix + "master", prefix + "scale")}
        return {**others, prefix + "weight": weight, prefix + "log_steps": log_steps}

    def __getstate__(self) -> StateDict:
        state = self.__dict__.copy()
        if self.storage in ROUNDED:  # a copy's tensor counts from the start
            state["_rounded_version"] = 0 if self._rounded_version == self.weight._version else -1
        if self.storage in PACKED:
            state["_read"] = ()
        return state

    def __setstate__(self, state: StateDict) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.storage in ROUNDED and self._rounded_version == 0:
            self._note_rounded()

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self.stepper is not None:  # what lies in the place of a gradient need not go anywhere
            self.stepper.drop_marks()
        if self.storage in PACKED:
            self._read = ()
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        return self


def shipped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what only training on needs: as much as a deployed model carries.

    Args:
        state: of any module, whole.
    """
    packed = {name.rpartition(".")[0] for name in state if name.rpartition(".")[2] == "master"}
    return {
        name: tensor
        for name, tensor in state.items()
        if name.rpartition(".")[0] not in packed or name.rpartition(".")[2] not in TO_TRAIN_ON
    }
