"""Every kernel against its PyTorch twin in float32 on this device, before anything is timed."""

import copy
import math

import torch
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.variants import (
    DeviceTables,
    draw_batch,
    draw_ids,
    pair_positions,
    plain_interaction,
    pool_embedding,
)
from torch import Tensor

from sizewise.embedding import Embedding
from sizewise.embedding.kernels.gpu import DeviceBlocks, Launch
from sizewise.embedding.storage.quantization import dequantize, quantize
from sizewise.models.dlrm import DLRM
from sizewise.training.steps.optimizers import build_optimizer
from sizewise.training.steps.step import Step

# Greatest error allowed, of the greatest value: sums of 10^5 float32 in any order, and factors of 8, 11 or 24 bits.
SUMS = 1e-4
STEPS = 1e-3
DOTS = {"tf32x3": 1e-4, "tf32": 3e-3, "bf16": 2e-2}


def check(sizes: Sizes, device: torch.device) -> tuple[bool, list[str]]:
    """Whether all are equal, and the table that says so."""
    lines = ["| kernel | greatest error, of the greatest value | allowed | |", "| --- | --- | --- | --- |"]
    good = True
    read = (
        sizes.check_batch
    )  # a feature's rows: of fewer a batch reads most, and gradients are summed over the table
    tables, large = DeviceTables(sizes, read // 4 + 1, device), DeviceTables(sizes, 8 * read, device)
    for name, embedding, rows in (
        ("pool", pool_embedding(sizes).to(device), 2**32),
        ("full", tables, read // 4 + 1),
        ("full, large", large, 8 * read),
    ):
        found = _whole(sizes, embedding, rows, device)
        if embedding is not large:
            found += _pairs(sizes, embedding, rows, device) + _packed(sizes, embedding, rows, device)
        for what, ours, theirs, allowed in found:
            error = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
            fine = error <= allowed
            good &= fine
            lines.append(f"| {name}: {what} | {error:.1e} | {allowed:g} | {'equal' if fine else 'DIFFERS'} |")
    return good, lines


def _whole(
    sizes: Sizes, embedding: Embedding, rows: int, device: torch.device
) -> list[tuple[str, Tensor, Tensor, float]]:
    """Five steps of training, the last two replayed from a CUDA graph where there is a GPU, in float32."""
    batches = [draw_batch(sizes, rows, sizes.check_batch, device) for _ in range(5)]
    models = []
    for fused in (True, False):
        own = copy.deepcopy(embedding)
        own.fused = fused
        model = DLRM(own, sizes.dense, list(sizes.bottom), list(sizes.top)).to(device)
        step = Step(model, build_optimizer("sgd", model, 0.1, in_backward=True), sizes.check_batch, device)
        for batch in batches:
            step(batch, sizes.check_batch)
        models.append(model)
    ours, theirs = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models)
    return [("five training steps", ours, theirs, STEPS)]


def _pairs(
    sizes: Sizes, embedding: Embedding, rows: int, device: torch.device
) -> list[tuple[str, Tensor, Tensor, float]]:
    embedding.fused = False
    table, blocks = embedding.pooled()  # type: ignore[misc]
    weight = table.weight
    with torch.no_grad():
        weight.mul_(50)
    flat = weight.detach()
    ids = draw_ids(sizes, rows, sizes.check_batch, device)
    bottom = torch.randn(len(ids), sizes.dim, device=device, requires_grad=True)
    vectors = embedding(ids)
    vectors.retain_grad()
    expected = plain_interaction(bottom, vectors, pair_positions(sizes.features, device))
    used = expected.shape[1]
    above = torch.randn(len(ids), sizes.width, device=device)
    expected.backward(above[:, :used])
    assert weight.grad is not None
    kernels = DeviceBlocks(blocks, device)
    sums = torch.zeros_like(flat)
    kernels.scatter(sums, ids, vectors.grad)
    stepped, squares = flat.clone(), torch.zeros_like(flat)
    left = sums.clone()
    kernels.adagrad(stepped, left, squares, ids, 0.1)
    whole, cleared = flat.clone(), sums.clone()
    kernels.dense_step(whole, cleared, 0.1, torch.zeros_like(flat))
    twin = flat.clone().requires_grad_()
    twin.grad = sums.clone()  # the same sums: Adagrad's first step divides each by its own size
    torch.optim.Adagrad([twin], lr=0.1).step()
    moved, zero = twin.detach() - flat, torch.zeros(1, device=device)
    _poison(vectors)
    found = [
        ("lookup", kernels.lookup(flat, ids), vectors.detach(), 0.0),
        ("scatter", sums, weight.grad, SUMS),
        ("Adagrad, read elements", stepped - flat, moved, SUMS),
        ("Adagrad, whole", whole - flat, moved, SUMS),
        ("sums left", torch.maximum(left.abs().max(), cleared.abs().max()).view(1), zero, 0.0),
    ]
    for precision, allowed in DOTS.items():
        kernels = DeviceBlocks(blocks, device, Launch(precision=precision))
        _poison(above)
        out = kernels.interact(bottom.detach(), flat, ids)
        into = torch.zeros_like(flat)
        _poison(bottom)
        passed, _ = kernels.interact_backward(bottom.detach(), flat, ids, above, into)
        _poison(vectors)
        _, carried = kernels.interact_backward(bottom.detach(), flat, ids, above)
        found += [
            (f"interaction, {precision}", out[:, :used], expected.detach(), allowed),
            (f"its backward to bottom, {precision}", passed, bottom.grad, allowed),
            (f"its backward to sums, {precision}", into, weight.grad, allowed),
            (f"its backward to vectors, {precision}", carried, vectors.grad, allowed),
        ]
    return found  # type: ignore[return-value]


@torch.no_grad()
def _packed(
    sizes: Sizes, embedding: Embedding, rows: int, device: torch.device
) -> list[tuple[str, Tensor, Tensor, float]]:
    """Lookup in packed numbers; the table holds what they stand for afterwards."""
    table, blocks = embedding.pooled()  # type: ignore[misc]
    weight, kernels = table.weight, DeviceBlocks(blocks, device)
    ids = draw_ids(sizes, rows, sizes.check_batch, device)
    found = []
    before = weight.detach().clone()
    for bits in (8, 4, 2):
        codes, scales = quantize(before, bits)
        weight.copy_(dequantize(codes, scales, bits, before.shape))
        twin = embedding(ids)
        _poison(twin)
        ours = kernels.lookup_packed(codes, scales, ids, bits, before.numel())
        found.append((f"lookup in numbers of {bits} bits", ours, twin, 0.0))
    return found


def _poison(like: Tensor) -> None:
    """Fill memory that the next tensor of this size is likely to get, so that what a kernel leaves out shows."""
    torch.full_like(like.detach(), math.nan)
