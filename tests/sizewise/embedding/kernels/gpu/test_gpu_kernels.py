"""The Triton kernels against PyTorch: every kernel equals its plain twin, in Triton's interpreter or on a GPU.

The interpreter has no threads: races, alignment and vector widths show only on a GPU, where

    TRITON_INTERPRET=0 pytest tests/sizewise/embedding/kernels/gpu/test_gpu_kernels.py

runs all of this (and `python -m benchmarks.gpu` checks the twins at its own sizes before it times them).
"""

import os
from typing import Any

import pytest
import torch

from sizewise.embedding import Embedding, build
from sizewise.embedding.ids.hashing import FastHash
from sizewise.embedding.storage.quantization import dequantize, quantize
from sizewise_core.errors import InputError

COMPILED = os.environ["TRITON_INTERPRET"] == "0"  # tests/conftest.py asks for the interpreter
DEVICE = torch.device("cuda" if COMPILED else "cpu")
pytestmark = pytest.mark.skipif(COMPILED and not torch.cuda.is_available(), reason="no CUDA device")
CARDINALITIES = [1, 7, 300, 2, 40]
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "robe": ("robe", 16, {}),
    "robe, several blocks": ("robe", 32, {"block_len": 8, "align": 8}),
    "robe, unaligned": ("robe", 16, {"block_len": 4, "align": 1}),
    "robe, sign": ("robe", 32, {"block_len": 8, "sign": True}),
    "robe, shared": ("robe", 16, {"feature_term": False}),
    "hash": ("hash", 16, {}),
    "full": ("full", 16, {}),
}
RAGGED = {
    "robe, ragged": ("robe", 16, {"block_len": 6, "align": 2}),
    "robe, odd dim, sign": ("robe", 7, {"block_len": 2, "align": 1, "sign": True}),
}


@pytest.fixture(scope="module")
def gpu() -> Any:
    """The kernels."""
    pytest.importorskip("triton", reason="Triton is not installed: pip install sizewise[gpu]")
    from sizewise.embedding.kernels import gpu

    return gpu


def make(case: str) -> tuple[Embedding, torch.Tensor]:
    method, dim, options = {**CASES, **RAGGED}[case]
    budget = sum(CARDINALITIES) * dim * 4 if method == "full" else 3_000
    embedding = build(method, CARDINALITIES, dim, budget, 3, **options).to(DEVICE)
    embedding.fused = False
    generator = torch.Generator().manual_seed(0)
    limits = CARDINALITIES if case == "full" else [2**32] * len(CARDINALITIES)
    ids = torch.stack([torch.randint(0, n, (8,), generator=generator) for n in limits], dim=1)
    return embedding, torch.cat([ids, ids[:4]]).to(DEVICE)  # some come twice


def pool_of(embedding: Embedding) -> torch.nn.Parameter:
    return next(embedding.parameters())


def reference(embedding: Embedding, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors, a gradient of them, and the gradient of the pool."""
    vectors = embedding(ids)
    gradient = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    vectors.backward(gradient)
    dense = pool_of(embedding).grad
    assert dense is not None
    return vectors.detach(), gradient, dense


def test_hashes_are_those_of_fast_hash_to_the_last_bit(gpu: Any) -> None:
    """A pool that holds its own positions gives away every slot; ids cover both ends of 32 bits."""
    embedding = build("robe", CARDINALITIES, 16, 4 * 100_003, 7, block_len=4, align=1).to(DEVICE)
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    pool = torch.arange(100_003.0, device=DEVICE)
    ids = torch.randint(0, 2**32, (200, 5), generator=torch.Generator().manual_seed(2))
    ids[:4] = torch.tensor([0, 1, 2**31, 2**32 - 1])[:, None]
    ids = ids.to(DEVICE)
    hashes = embedding.hash
    assert isinstance(hashes, FastHash)
    slots, _ = hashes(ids, embedding.slots)
    assert torch.equal(device.lookup(pool, ids)[..., ::4].long(), slots)


@pytest.mark.parametrize("case", [*CASES, *RAGGED])
def test_lookup_and_scatter(gpu: Any, case: str) -> None:
    embedding, ids = make(case)
    vectors, gradient, dense = reference(embedding, ids)
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    pool = pool_of(embedding).detach()
    assert torch.equal(device.lookup(pool, ids), vectors)
    sums = torch.zeros_like(pool)
    device.scatter(sums, ids, gradient)
    torch.testing.assert_close(sums, dense, rtol=1e-5, atol=1e-5)
    stepped = pool.clone()
    device.scatter(stepped, ids, gradient, -0.1)
    torch.testing.assert_close(stepped, pool - 0.1 * dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [*CASES, *RAGGED])
def test_adagrad_is_that_of_torch(gpu: Any, case: str) -> None:
    embedding, ids = make(case)
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    pool = pool_of(embedding).detach().clone()
    sums, squares = torch.zeros_like(pool), torch.zeros_like(pool)
    optimizer = torch.optim.Adagrad(embedding.parameters(), lr=0.1)
    for part in (ids[:7], ids[7:], ids):
        optimizer.zero_grad()
        _, gradient, _ = reference(embedding, part)
        optimizer.step()
        device.scatter(sums, part, gradient)
        device.adagrad(pool, sums, squares, part, 0.1)
        assert not sums.any()
    torch.testing.assert_close(pool, pool_of(embedding).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(squares, optimizer.state[pool_of(embedding)]["sum"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("case", [*CASES, *RAGGED])
@pytest.mark.parametrize(("precision", "bound"), [("tf32x3", 1e-5), ("bf16", 0.03)])
def test_interaction(gpu: Any, case: str, precision: str, bound: float) -> None:
    """Forward, the gradient of the bottom MLP and those of pool and vectors; bfloat16 keeps eight bits of a factor.

    The interpreter multiplies in float32 whatever kind of float32 is asked for: tf32x3 is checked on a GPU.
    """
    embedding, ids = make(case)
    with torch.no_grad():
        pool_of(embedding).mul_(100)  # to values of about one
    dim, rows = embedding.dim, embedding.features + 1
    generator = torch.Generator().manual_seed(4)
    bottom = torch.randn(len(ids), dim, generator=generator).to(DEVICE).requires_grad_()
    vectors = embedding(ids)
    vectors.retain_grad()
    x = torch.cat([bottom.unsqueeze(1), vectors], dim=1)
    high, low = torch.tril_indices(rows, rows, offset=-1)
    expected = torch.cat([bottom, torch.bmm(x, x.transpose(1, 2))[:, high, low]], dim=1)
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE, gpu.Launch(precision=precision))
    gradient = torch.randn(len(ids), device.width, generator=generator).to(DEVICE)
    expected.backward(gradient[:, : expected.shape[1]])

    pool = pool_of(embedding).detach()
    out = device.interact(bottom.detach(), pool, ids)
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(out[:, : expected.shape[1]], expected.detach(), rtol=0, atol=bound * scale)
    assert not out[:, expected.shape[1] :].any()

    sums = torch.zeros_like(pool)
    ours, nothing = device.interact_backward(bottom.detach(), pool, ids, gradient, sums)
    assert nothing is None
    again, of_vectors = device.interact_backward(bottom.detach(), pool, ids, gradient)
    torch.testing.assert_close(ours, again, rtol=0, atol=1e-6 * float(ours.abs().max()))
    for value, twin in ((ours, bottom.grad), (sums, pool_of(embedding).grad), (of_vectors, vectors.grad)):
        assert twin is not None
        torch.testing.assert_close(value, twin, rtol=0, atol=bound * float(twin.abs().max()))


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_a_step_of_the_whole_pool(gpu: Any, optimizer: str, storage: str) -> None:
    """Equal to torch's, then rounded with the noise of the table; sums are zero afterwards."""
    embedding = build("robe", CARDINALITIES, 16, 3_000, 3, storage=storage).to(DEVICE)
    embedding.fused = False
    ids = make("robe")[1]
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    _, _, dense = reference(embedding, ids)
    weight = pool_of(embedding)
    pool, sums = weight.detach().clone(), dense.clone()
    squares = torch.zeros_like(pool) if optimizer == "adagrad" else None
    stream = torch.as_tensor(embedding.pool.next_stream()) if storage == "bfloat16" else None
    if stream is not None:
        embedding.pool.roundings -= 1  # for the table to draw the same
    twin = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}[optimizer]([weight], lr=0.1)
    twin.step()
    embedding(ids)  # a table in fewer bits is rounded when it is read
    device.dense_step(pool, sums, 0.1, squares, stream=stream)
    assert not sums.any()
    # Where the last bit of a step differs, a number may be rounded to the other neighbour.
    close = torch.isclose(pool, weight.detach(), rtol=1e-5, atol=1e-6)
    assert close.float().mean() >= (1.0 if stream is None else 0.99)


def test_rounding_is_that_of_the_table_to_the_last_bit(gpu: Any) -> None:
    embedding, ids = make("robe, several blocks")
    blocks = embedding.blocks
    device = gpu.DeviceBlocks(blocks, DEVICE)
    moved = pool_of(embedding).detach().cpu().bfloat16().float()  # as a table is before it is stepped
    blocks.scatter(moved, ids.cpu(), torch.full((*ids.shape, blocks.dim), 1e-5))
    ours, theirs = moved.to(DEVICE, copy=True), moved.clone()
    device.round_bfloat16(ours, ids, 2**32 - 7)
    blocks.round_bfloat16(theirs, ids.cpu(), 2**32 - 7)
    assert torch.equal(ours.cpu(), theirs)
    assert not torch.equal(theirs, moved)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("case", [*CASES, *RAGGED])
def test_lookup_in_packed_numbers(gpu: Any, case: str, bits: int) -> None:
    """Of pools of an odd number of numbers too, whose blocks begin in the middle of a byte."""
    embedding, ids = make(case)
    pool = pool_of(embedding).detach()
    codes, scales = quantize(pool, bits)
    read = dequantize(codes, scales, bits, pool.shape)
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    ours = device.lookup_packed(codes, scales, ids, bits, pool.numel())
    with torch.no_grad():
        pool_of(embedding).copy_(read)
        assert torch.equal(ours, embedding(ids))
    if case == "full":
        bad = ids.clone()
        bad[0, 0], bad[1, 4] = 1, 2**32 - 1
        assert not device.lookup_packed(codes, scales, bad, bits, pool.numel())[[0, 1], [0, 4]].any()


def test_ids_that_full_tables_have_no_row_for_reach_no_memory(gpu: Any) -> None:
    """They read zeros and write nothing, between features as well as beyond the last one."""
    embedding, ids = make("full")
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    pool = pool_of(embedding).detach()
    bad = ids.clone()
    bad[0, 0], bad[1, 4], bad[2, 2] = 1, 2**32 - 1, -1
    expected = device.lookup(pool, ids)
    for row, column in ((0, 0), (1, 4), (2, 2)):
        expected[row, column] = 0
    assert torch.equal(device.lookup(pool, bad), expected)
    sums, allowed = torch.zeros_like(pool), torch.zeros_like(pool)
    gradient = torch.ones(*ids.shape, 16, device=DEVICE)
    device.scatter(sums, bad, gradient)
    for row, column in ((0, 0), (1, 4), (2, 2)):
        gradient[row, column] = 0
    device.scatter(allowed, ids, gradient)
    assert torch.equal(sums, allowed)


@pytest.mark.parametrize("case", ["robe, several blocks", "full"])
@pytest.mark.parametrize("kind", [torch.uint32, torch.int32])
def test_ids_of_32_bits(gpu: Any, case: str, kind: torch.dtype) -> None:
    """Signed ones are read by their bits where they are hashed, so that 2^31 and more fit too."""
    embedding, ids = make(case)
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    pool = pool_of(embedding).detach()
    bits = ids.cpu().numpy().astype("uint32").view("int32" if kind == torch.int32 else "uint32")
    narrow = torch.from_numpy(bits).to(DEVICE)
    assert narrow.dtype == kind
    assert torch.equal(device.lookup(pool, narrow), device.lookup(pool, ids))


@pytest.mark.parametrize("rows", [0, 1, 127, 129])
def test_edges_of_a_batch(gpu: Any, rows: int) -> None:
    """Tiles hold 128 vectors here: the last one is full, nearly empty, or there is none."""
    embedding = build("robe", [100], 16, 3_000, 3).to(DEVICE)
    embedding.fused = False
    ids = torch.randint(0, 2**32, (rows, 1), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
    pool = pool_of(embedding).detach()
    with torch.no_grad():
        assert torch.equal(device.lookup(pool, ids), embedding(ids))
    sums = torch.zeros_like(pool)
    device.scatter(sums, ids, torch.ones(rows, 1, 16, device=DEVICE))
    assert float(sums.sum()) == rows * 16


def test_more_features_than_a_multiprocessor_holds_are_refused(gpu: Any) -> None:
    for features, dim, taken in ((26, 256, True), (60, 128, True), (26, 512, False), (200, 16, False)):
        embedding = build("robe", [10] * features, dim, 30_000, 1)
        device = gpu.DeviceBlocks(embedding.blocks, DEVICE)
        assert device.interacts == taken
    with pytest.raises(InputError, match="look vectors up first"):
        device.interact(torch.zeros(1, 16), pool_of(embedding), torch.zeros(1, 200, dtype=torch.int64))
