"""What every embedding method shares: its options, its shape and its input checks.

A method is a subclass of :class:`Embedding` that names its pydantic options class, says the smallest budget
it can be built in, and looks ids up.  ``sizewise.embedding.build`` is the way to make one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sizewise.embedding.bags import Bags, Pooling, pooled
from sizewise.embedding.ids.counts import FeatureCounts
from sizewise.embedding.ids.keys import ContiguousKeys
from sizewise.embedding.in_backward import step_tables
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.storage.learned_step import fit_steps
from sizewise.embedding.storage.quantization import BITS, PACKED, Storage
from sizewise.embedding.storage.table import FLOAT_BYTES, Table
from sizewise_core.errors import InputError

MAX_ID = 2**32 - 1


class Options(BaseModel):
    """Options of a method; unknown ones are errors, so that a typing slip cannot pass for a setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults_of_0_1: ClassVar[Mapping[str, Any]] = {}
    """Defaults that were others in version 0.1. Studies write today's out, so one without them is of that version."""

    @property
    def depends_on_epochs(self) -> bool:
        """Whether a trial of fewer epochs trains otherwise than the first part of a longer one."""
        return False

    def fitted(self, dim: int) -> Self:
        """These options with the defaults that suit vectors of length ``dim``; what was given stays as it is."""
        return self


class StoredOptions(Options):
    """Options of a method whose numbers can be stored in fewer bits."""

    storage: Storage = "float32"
    """What a number is stored as."""


class GroupedOptions(StoredOptions):
    """The same where numbers are stored in rows or in one pool."""

    group: Annotated[int, Field(ge=1)] | Literal["pool", "row"] = "pool"
    """Numbers that share a scale, for ``int4`` and ``int2``: all of a table, a row (a vector's length), or so many."""

    def numbers_a_scale(self, row: int) -> int | None:
        """The group of a table with rows of that length; None: all of the table."""
        if self.storage not in PACKED or self.group == "pool":
            return None
        return row if self.group == "row" else self.group

    def check_rows(self, row: int) -> None:
        """InputError where rows of that length cannot be cut into groups."""
        group = self.numbers_a_scale(row)
        if group and row % group:
            raise InputError(
                f"embedding.group {group} does not divide a row of {row} numbers: set a divisor, or group: row"
            )


class Embedding(nn.Module, ABC):
    """Looks up one vector per feature and row: (batch, features) ids -> (batch, features, dim) float32.

    The last features may be lists of values instead, given as `Bags`.
    """

    options: ClassVar[type[Options]] = Options

    needs_contiguous_ids: ClassVar[bool] = False
    """Whether every id has to be below its feature's cardinality."""

    needs_counts: ClassVar[bool] = False
    """Whether it is to be given, before training, how often values occur (`assign_rows`)."""

    has_one_size: ClassVar[bool] = False
    """Whether the memory budget is no choice: it is always that of the full tables."""

    fused = True
    """Use the fused kernels where they are valid (some methods, some options); False: always plain PyTorch."""

    pooling: Pooling = "mean"
    """What becomes of the vectors of a list of values."""

    host_decides: ClassVar[str] = ""
    """Why a lookup cannot be recorded as part of a CUDA graph, if it cannot: the host has a say in it."""

    def __init__(self, cardinalities: Sequence[int], dim: int, seed: int) -> None:
        super().__init__()
        self.cardinalities = tuple(int(cardinality) for cardinality in cardinalities)
        self.dim = dim
        self.seed = seed
        # Makes lists of single values (see `ids.multi_hot`); None: single values are looked up as they are.
        self.multi_hot: nn.Module | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        """What `optimize_in_backward` has made, to schedule its learning rate and to save its state."""

    @property
    def features(self) -> int:
        """Number of features: columns of ids, and after them lists of values."""
        return len(self.cardinalities)

    @property
    def embedding_bytes(self) -> int:
        """Bytes of everything stored that training has set: what a deployed model must ship."""
        return sum(module.stored_bytes for module in self.modules() if isinstance(module, Table))

    def set_schedule(self, iterations_per_epoch: int, epochs: int) -> None:
        """Say, before training, how long it will be; for methods whose schedule is written in epochs."""

    def train_in_float32(self) -> None:
        """Have numbers of `int4` and `int2` be trained in float32 until `learn_steps`, and rounded for evaluations."""
        for table in self._packed():
            table.in_float32 = True

    def learn_steps(self, fit: bool = True) -> None:
        """Have the numbers that are trained on be those of `int4` and `int2` from now on, and learn their steps.

        Args:
            fit: begin with the steps of the least squared error; False: with those that are there.
        """
        for table in self._packed():
            table.in_float32 = False
            if fit:
                fit_steps(table.weight, table.log_steps, table.storage, table.center)

    def _packed(self) -> list[Table]:
        return [one for one in self.modules() if isinstance(one, Table) and one.storage in PACKED]

    def pooled(self) -> tuple[Table, Blocks] | None:
        """The table that fused kernels look vectors up in, and where they lie in it; None where no kernel can.

        Narrow vectors lie there as they are stored: `blocks.dim` is their width.
        """
        return None

    def addresses(self, ids: Tensor) -> Tensor:
        """What the blocks of `pooled` take for checked ids."""
        return ids

    def assign_rows(self, counts: Sequence[FeatureCounts]) -> object:
        """Say, before training, how often values occur in the training rows; for methods that need it.

        Args:
            counts: one a feature.
        """
        return None

    def facts(self) -> Mapping[str, float]:
        """What was found before training, by names of metrics: part of every evaluation."""
        return {}

    def prepare_export(self) -> None:
        """Make ready for `torch.export`, once and for good: no kernels, and nothing that only they look up in."""
        self.fused = False

    def optimize_in_backward(
        self, kind: type[torch.optim.Optimizer], **settings: Any
    ) -> torch.optim.Optimizer:
        """Have every backward pass step this embedding, which then leaves no gradients.

        With SGD (without momentum) and Adagrad a step costs what the batch reads, however large the tables, where
        the fused kernels are used. Every pass is a step: nothing is accumulated over several, and clipping, which
        would come too late, raises. Give other optimizers what `remaining_parameters` leaves.

        Args:
            kind: a class of `torch.optim`; the embedding is on its device already.
            settings: of the class, such as lr.

        Returns:
            The optimizer, also in `optimizer`; its `step` has nothing left to do.

        Raises:
            InputError: a class that calls the loss again (LBFGS).
        """
        if issubclass(kind, torch.optim.LBFGS):
            raise InputError(
                "LBFGS calls the loss again, which no backward pass can: choose SGD, Adagrad or Adam"
            )
        self.ordinary_gradients()
        optimizer = kind(self.parameters(), **settings)
        step_tables(optimizer, [module for module in self.modules() if isinstance(module, Table)], owned=True)
        for parameter in self.parameters():
            parameter.grad = None
        self.optimizer = optimizer
        return optimizer

    def ordinary_gradients(self) -> None:
        """Undo `optimize_in_backward`: gradients go to `parameter.grad`, as in any module."""
        for module in self.modules():
            if isinstance(module, Table) and module.stepper is not None:
                module.stepper.detach()
        self.optimizer = None

    def verify(self) -> None:
        """InputError for ids out of range that lookups on a GPU have met; waits for the device."""
        for module in self.modules():
            if isinstance(module, ContiguousKeys):
                module.verify()

    @classmethod
    @abstractmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """Bytes below which the method cannot be built.

        Args:
            cardinalities: distinct values of each feature.
            dim: length of a vector.
            options: of the class that `options` names.

        Raises:
            InputError: options that do not suit dim.
        """

    @classmethod
    def trained_bytes(cls, memory_budget: int, options: Options) -> int:
        """Bytes of the parameters while training: a table stored in fewer bits trains on numbers of 32."""
        storage: Storage = getattr(options, "storage", "float32")
        # int8 holds four numbers to a budget's four bytes. Of packed tables the values that are looked up, and their
        # gradient, are tensors of their own.
        return memory_budget * 32 // BITS[storage] * (2 if storage in PACKED else 1)

    @classmethod
    def floats_per_row(cls, features: int, dim: int, options: Options) -> int:
        """Numbers of 32 bits that a row's lookup keeps for its backward pass, beside its vectors and two indices each.

        Args:
            features: id columns.
            dim: length of a vector.
            options: of the class that `options` names.
        """
        return 0

    @abstractmethod
    def lookup(self, ids: Tensor) -> Tensor:
        """Vectors of checked int64 ids, (batch, features) -> (batch, features, dim)."""

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """Vectors of values of any features, for lists of values; methods override it to look up no more than these.

        Args:
            values: int64 (n,), checked.
            features: int64 (n,), the number of each one's feature.

        Returns:
            (n, dim).
        """
        rows = torch.arange(values.shape[0], device=values.device)
        ids = values.new_zeros(values.shape[0], self.features).index_put((rows, features), values)
        return self.lookup(ids)[rows, features]

    def lookup_bags(self, ids: Tensor, bags: Bags) -> Tensor:
        """Vectors of checked ids and bags together.

        Args:
            ids: (batch, columns) of the first features.
            bags: of all others.

        Returns:
            (batch, features, dim).
        """
        single, several = self.lookup_each(ids, bags)
        lists = self.features - ids.shape[1]
        return torch.cat([single, pooled(several, bags, lists, ids.shape[0], self.pooling)], dim=1)

    def unpooled(self, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Vectors of ids, and of every value of the lists by itself, for models that pool lists in a way of their own.

        Args:
            ids: int64 or uint32 (batch, columns) of the first features.
            bags: the lists of values of all other features.

        Returns:
            (batch, columns, dim), and (n, dim) in the order of `bags.values`.

        Raises:
            InputError: as `forward`.
        """
        self._check_bags(ids, bags)
        return self.lookup_each(self._checked(ids), bags._replace(values=self._checked(bags.values)))

    def lookup_each(self, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """The same of checked ids and bags; methods override it to use the kernels.

        Args: as for `unpooled`.
        """
        (batch, columns), lists = ids.shape, self.features - ids.shape[1]
        numbers = torch.arange(columns, device=ids.device).expand(batch, columns)
        values = ids.to(torch.int64).flatten(), bags.values.to(torch.int64)
        features = numbers.flatten(), bags.numbers(lists, batch) + columns
        if torch.compiler.is_compiling():  # which computes with no sizes
            single, several = (self.lookup_flat(*read) for read in zip(values, features, strict=True))
        else:  # one lookup, for methods that count them
            vectors = self.lookup_flat(torch.cat(values), torch.cat(features))
            single, several = vectors[: batch * columns], vectors[batch * columns :]
        return single.view(batch, columns, self.dim), several

    def takes_uint32(self, ids: Tensor) -> bool:
        """Whether `lookup` takes these ids as shards hold them, too, rather than widened to int64."""
        return False

    def forward(self, ids: Tensor, bags: Bags | None = None) -> Tensor:
        """Vectors of ids, and of lists of values.

        Args:
            ids: int64 or uint32, (batch, features), values in [0, 2^32); with bags the columns of the first features.
            bags: the lists of values of all other features; an empty one gives zeros.

        Returns:
            (batch, features, dim) in the dtype of the parameters.

        Raises:
            InputError: another dtype or shape, or, on the CPU, a value out of range.  On a GPU the range is
                not checked, because every step would have to wait for the answer.
        """
        if bags is None:
            if self.multi_hot is None:
                return self.lookup(self.checked(ids))
            ids, bags = self.multi_hot(self.checked(ids))
        self._check_bags(ids, bags)
        return self.lookup_bags(self._checked(ids), bags._replace(values=self._checked(bags.values)))

    def _check_bags(self, ids: Tensor, bags: Bags) -> None:
        if ids.dim() != 2 or ids.shape[1] >= self.features:
            raise InputError(
                f"ids have shape {tuple(ids.shape)} beside bags, expected (batch, fewer than {self.features}): "
                "every feature is either a column of ids or a list"
            )
        bags.check(self.features - ids.shape[1], ids.shape[0])

    def checked(self, ids: Tensor) -> Tensor:
        """Ids as int64, (batch, features); raises as `forward` does."""
        if ids.dim() != 2 or ids.shape[1] != self.features:
            raise InputError(
                f"ids have shape {tuple(ids.shape)}, expected (batch, {self.features}): one column a feature"
            )
        return self._checked(ids)

    def _checked(self, ids: Tensor) -> Tensor:
        """Ids of any shape as int64, or as they are where `lookup` takes them so."""
        if ids.dtype == torch.uint32:
            return ids if self.takes_uint32(ids) else ids.to(torch.int64)
        if ids.dtype != torch.int64:
            raise InputError(
                f"ids have dtype {ids.dtype}, expected int64 or uint32: convert with ids.to(torch.int64)"
            )
        # Traced code (torch.compile, torch.export) cannot branch on what it reads.
        if ids.device.type == "cpu" and not torch.compiler.is_compiling() and ids.numel():
            low, high = (int(bound) for bound in torch.aminmax(ids))
            if low < 0 or high > MAX_ID:
                raise InputError(
                    f"ids span [{low}, {high}], expected [0, 2^32): mask hashed tokens to 32 bits, "
                    "and give missing values an id of their own"
                )
        return ids


def full_bytes(cardinalities: Sequence[int], dim: int) -> int:
    """Bytes of one float32 row a value: what a compression ratio is measured against."""
    return sum(cardinalities) * dim * FLOAT_BYTES
