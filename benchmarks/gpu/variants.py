"""What is compared: ours, and opponents as strong as we can make them. A variant is a function without arguments.

Whole steps are those of a study: `DLRM`, `build_optimizer`, `Step`. Only the reference path is not ours: 26
torch.nn.EmbeddingBag with sparse gradients, PyTorch's interaction, torch.optim.SGD, launched step by step.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import torch
from benchmarks.gpu.sizes import RATE, Sizes
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, pad

from sizewise.embedding import Embedding, build
from sizewise.embedding.ids.keys import ContiguousKeys
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.kernels.gpu import DeviceBlocks, Launch
from sizewise.embedding.methods.full import Full
from sizewise.embedding.storage.table import Table
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batches import Batch
from sizewise.training.steps.optimizers import build_optimizer
from sizewise.training.steps.step import WARM_UP, Step, cuda_graph, on_recording_stream

Variant = Callable[[], object]
BATCHES = 4  # that a step takes turns with: of one batch of 2,048 rows the full tables' vectors stay in the L2 cache


@contextmanager
def tf32() -> Iterator[None]:
    """PyTorch's float32 products in tf32, too, as our kernels' are; what was recorded so stays so."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def recorded(work: Callable[[], object], device: torch.device) -> Variant:
    """The same work as a CUDA graph, as studies run it; without a GPU as it is."""
    if device.type != "cuda":
        return work
    with on_recording_stream(device):
        for _ in range(WARM_UP):
            work()
    replay = cuda_graph(lambda: void(work()), device)
    # `work` is kept with the graph: it may hold the only references to memory that the graph reads and writes.
    return partial(_replayed, replay, work)


def _replayed(replay: Callable[[], object], _: Callable[[], object]) -> None:
    replay()


def void(_: object) -> None:
    """Drops what a kernel returned."""


def draw_ids(sizes: Sizes, rows: int, batch: int, device: torch.device) -> Tensor:
    """Log-uniform ids below `rows`, int64 (batch, features): a few values come often, most hardly ever."""
    draws = torch.rand(batch, sizes.features, device=device, dtype=torch.float64)
    return (float(rows) ** draws).long().clamp_(max=rows - 1)


def draw_batch(sizes: Sizes, rows: int, batch: int, device: torch.device) -> Batch:
    label = (torch.rand(batch, device=device) < 0.25).float()
    return Batch(torch.randn(batch, sizes.dense, device=device), draw_ids(sizes, rows, batch, device), label)


def pool_embedding(sizes: Sizes, **more: Any) -> Embedding:
    options = {"block_len": sizes.block_len, "align": sizes.block_len, **more}
    return build("robe", [2**32] * sizes.features, sizes.dim, sizes.pool_bytes, 1, **options)


class DeviceTables(Full):
    """`full`, drawn on the device: 96 GB would take hours to draw on the host, and more memory than it has."""

    def __init__(self, sizes: Sizes, rows: int, device: torch.device, values: Tensor | None = None) -> None:
        Embedding.__init__(self, [rows] * sizes.features, sizes.dim, 1)
        self.keys = ContiguousKeys("full", self.cardinalities)
        self.table = Table((1, sizes.dim), 1)
        if values is None:
            values = torch.empty(sizes.features * rows, sizes.dim, device=device).uniform_(-0.01, 0.01)
        self.table.weight = nn.Parameter(values)
        self.blocks = Blocks(sizes.features, sizes.dim, sizes.dim, sizes.dim, None, self.keys.offsets)
        self.to(device)


def shared(tables: DeviceTables) -> Embedding:
    """The same tables in the same memory, for another model, whose gradients wait in a table of its own."""
    other = copy.copy(tables)
    other._modules = dict(tables._modules)
    other.table = Table((1, tables.dim), 1)
    other.table.weight = nn.Parameter(tables.table.weight.detach())
    return other


def plain_interaction(bottom: Tensor, vectors: Tensor, pairs: Tensor) -> Tensor:
    """PyTorch's: (batch, dim + pairs)."""
    x = torch.cat([bottom.unsqueeze(1), vectors], dim=1)
    return torch.cat([bottom, torch.bmm(x, x.transpose(1, 2)).flatten(1).index_select(1, pairs)], dim=1)


def pair_positions(features: int, device: torch.device) -> Tensor:
    rows, columns = torch.tril_indices(features + 1, features + 1, offset=-1)
    return (rows * (features + 1) + columns).to(device)


class Embeddings:
    """Forward, backward and SGD of embeddings alone, or with the interaction, in float32 (dot products in tf32)."""

    def __init__(
        self, sizes: Sizes, embedding: Embedding, rows: int, batch: int, device: torch.device
    ) -> None:
        table, blocks = embedding.pooled()  # type: ignore[misc]
        self.sizes, self.device = sizes, device
        self.weight = table.weight.detach().to(device)
        self.kernels = DeviceBlocks(blocks, device, Launch(precision="tf32"))
        self.ids = draw_ids(sizes, rows, batch, device)
        self.gradient = torch.randn(batch, sizes.features, sizes.dim, device=device)
        self.bottom = torch.randn(batch, sizes.dim, device=device, requires_grad=True)
        self.above = torch.randn(batch, sizes.width, device=device)
        self.pairs = pair_positions(sizes.features, device)

    def alone(self) -> None:
        """A gather, and the update from a gradient that is there."""
        self.kernels.lookup(self.weight, self.ids)
        self.kernels.scatter(self.weight, self.ids, self.gradient, -RATE)

    def then_plain(self) -> None:
        """A gather, PyTorch's interaction forward and backward, the update."""
        vectors = self.kernels.lookup(self.weight, self.ids).requires_grad_()
        with tf32():
            out = plain_interaction(self.bottom, vectors, self.pairs)
            _, gradient = torch.autograd.grad(out, [self.bottom, vectors], self.above[:, : out.shape[1]])
        self.kernels.scatter(self.weight, self.ids, gradient, -RATE)

    def summed(self, adagrad: bool = False, rounding: bool = False) -> Callable[[], None]:
        """Through the interaction's kernels, gradients summed over the pool; `rounding` to bfloat16."""
        sums = torch.zeros_like(self.weight)
        squares = torch.ones_like(self.weight) if adagrad else None
        stream = torch.zeros((), dtype=torch.int64, device=self.device) if rounding else None

        def run() -> None:
            bottom = self.bottom.detach()
            self.kernels.interact(bottom, self.weight, self.ids)
            self.kernels.interact_backward(bottom, self.weight, self.ids, self.above, sums)
            self.kernels.dense_step(self.weight, sums, RATE, squares, stream=stream)

        return run

    def adagrad(self, sums: Tensor, squares: Tensor) -> None:
        """A gather, and Adagrad's step of what was read, for which gradients of one number are summed first."""
        self.kernels.lookup(self.weight, self.ids)
        self.kernels.scatter(sums, self.ids, self.gradient)
        self.kernels.adagrad(self.weight, sums, squares, self.ids, RATE)

    def whole_adagrad(self) -> Callable[[], None]:
        """The same, Adagrad's step that of the whole pool, as studies take it."""
        sums, squares = torch.zeros_like(self.weight), torch.ones_like(self.weight)

        def run() -> None:
            self.kernels.lookup(self.weight, self.ids)
            self.kernels.scatter(sums, self.ids, self.gradient)
            self.kernels.dense_step(self.weight, sums, RATE, squares)

        return run

    def carried(self) -> None:
        """Through the interaction's kernels, gradients as vectors: what large tables take."""
        bottom = self.bottom.detach()
        self.kernels.interact(bottom, self.weight, self.ids)
        _, gradient = self.kernels.interact_backward(bottom, self.weight, self.ids, self.above)
        assert gradient is not None
        self.kernels.scatter(self.weight, self.ids, gradient, -RATE)


class Bags(nn.Module):
    """The reference DLRM's embeddings: one EmbeddingBag a feature, sparse gradients."""

    def __init__(self, tables: Tensor, features: int, dim: int) -> None:
        super().__init__()
        parts = tables.view(features, -1, dim)
        self.bags = nn.ModuleList(
            nn.EmbeddingBag.from_pretrained(part, freeze=False, mode="sum", sparse=True) for part in parts
        )

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, features) -> (batch, features, dim)."""
        offsets = torch.arange(len(ids), device=ids.device)
        columns = zip(self.bags, ids.T.contiguous(), strict=True)
        return torch.stack([bag(column, offsets) for bag, column in columns], dim=1)


def bags_alone(
    sizes: Sizes, tables: Tensor, rows: int, batch: int, device: torch.device, dots: bool = False
) -> Variant:
    """The reference path's embeddings, launched one by one; `dots`: and its interaction."""
    bags = Bags(tables, sizes.features, sizes.dim)
    optimizer = torch.optim.SGD(bags.parameters(), lr=RATE)
    ids = draw_ids(sizes, rows, batch, device)
    pairs = pair_positions(sizes.features, device)
    bottom = torch.randn(batch, sizes.dim, device=device, requires_grad=True)
    columns = (sizes.dim + sizes.pairs,) if dots else (sizes.features, sizes.dim)
    gradient = torch.randn(batch, *columns, device=device)

    def run() -> None:
        optimizer.zero_grad()
        bottom.grad = None
        out = bags(ids)
        (plain_interaction(bottom, out, pairs) if dots else out).backward(gradient)
        optimizer.step()

    return run


def reference_step(sizes: Sizes, tables: Tensor, rows: int, batch: int, device: torch.device) -> Variant:
    """The reference DLRM: float32, eager, torch.optim.SGD over sparse and dense gradients."""
    bags = Bags(tables, sizes.features, sizes.dim)
    around = _dlrm(sizes, pool_embedding(sizes), "float32").to(device)
    optimizer = torch.optim.SGD(
        [*bags.parameters(), *around.bottom.parameters(), *around.top.parameters()], lr=RATE
    )
    batches = cycle([draw_batch(sizes, rows, batch, device) for _ in range(BATCHES)])

    def run() -> None:
        data = next(batches)
        bottom = around.bottom(data.dense)
        logits = around.top(plain_interaction(bottom, bags(data.ids), around.pairs))
        loss = binary_cross_entropy_with_logits(logits.squeeze(1), data.label)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


class RoundedInteraction(DLRM):
    """PyTorch's interaction in bfloat16, its columns rounded up for the first layer: half of the bytes."""

    def _interaction(self, bottom: Tensor, ids: Tensor, bags: object = None) -> Tensor:
        x = torch.cat([bottom.unsqueeze(1), self.embedding(ids).to(bottom.dtype)], dim=1)
        dots = torch.bmm(x, x.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        zeros = dots.new_zeros(len(dots), -(bottom.shape[1] + dots.shape[1]) % 16)
        return torch.cat([bottom, dots, zeros], dim=1)


class MlpsAlone(DLRM):
    """The floor: both MLPs, their gradients and updates, around an interaction that costs nothing but a copy."""

    def _interaction(self, bottom: Tensor, ids: Tensor, bags: object = None) -> Tensor:
        if not hasattr(self, "still"):
            width = -(-self.top[0].in_features // 16) * 16 - bottom.shape[1]  # type: ignore[operator]
            self.still = torch.randn(len(bottom), width, device=bottom.device, dtype=bottom.dtype)
        return torch.cat([bottom, self.still], dim=1)


class PaddedMlps(MlpsAlone):
    """The floor where dense values come in 16 columns, as bfloat16's matrix multiplications want them."""

    def _interaction(self, bottom: Tensor, ids: Tensor, bags: object = None) -> Tensor:
        if not isinstance(self.bottom, _Padded):
            self.bottom = _Padded(self.bottom)
        return super()._interaction(bottom, ids)


class _Padded(nn.Module):
    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, dense: Tensor) -> Tensor:
        first, rest = self.layers[0], self.layers[1:]
        assert isinstance(first, nn.Linear)
        assert isinstance(rest, nn.Sequential)
        extra = -dense.shape[1] % 16
        hidden: Tensor = rest(linear(pad(dense, (0, extra)), pad(first.weight, (0, extra)), first.bias))
        return hidden


def _dlrm(sizes: Sizes, embedding: Embedding, precision: Any, kind: type[DLRM] = DLRM) -> DLRM:
    return kind(embedding, sizes.dense, list(sizes.bottom), list(sizes.top), precision=precision)


def step(
    sizes: Sizes,
    embedding: Embedding,
    rows: int,
    batch: int,
    device: torch.device,
    *,
    interaction: bool = True,
    kind: type[DLRM] = DLRM,
    optimizer: str = "sgd",
    graph: bool = True,
) -> Variant:
    """A study's step, MLPs in bfloat16, recorded as a CUDA graph.

    Args:
        interaction: False leaves the interaction to PyTorch; lookup and update stay fused.
        kind: of model.
        optimizer: of all parameters.
        graph: False launches it step by step, for a profiler to see its kernels.
    """
    model = _dlrm(sizes, embedding, "bfloat16", kind).to(device)
    if not interaction:
        object.__setattr__(embedding, "pooled", lambda: None)
    stepper = Step(model, build_optimizer(optimizer, model, RATE, in_backward=True), batch, device)
    if not graph:
        stepper.recorder = None
    batches = cycle([draw_batch(sizes, rows, batch, device) for _ in range(BATCHES)])
    run: Variant = lambda: stepper(next(batches), batch)  # noqa: E731
    with tf32():  # for PyTorch's interaction, which is float32
        for _ in range(WARM_UP + 1 if device.type == "cuda" else 0):  # until it is recorded
            run()
    if device.type == "cuda" and graph and stepper.recorder is None:
        raise RuntimeError("the step could not be recorded as a CUDA graph: see the log")
    return run
