"""The Triton kernels against PyTorch, in Triton's interpreter: every kernel equals its plain twin.

The interpreter has no threads: races, alignment and vector widths show only on a GPU (`python -m benchmarks.gpu`
checks the same twins there before it times them).
"""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from sizewise.embedding import Embedding, build
from sizewise.embedding.hashing import FastHash
from sizewise_prep.errors import InputError

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
    """The kernels, for the interpreter (tests/conftest.py asks for it)."""
    pytest.importorskip("triton", reason="Triton is not installed: pip install sizewise[gpu]")
    from sizewise.embedding.kernels import gpu

    return gpu


def make(case: str) -> tuple[Embedding, torch.Tensor]:
    method, dim, options = {**CASES, **RAGGED}[case]
    budget = sum(CARDINALITIES) * dim * 4 if method == "full" else 3_000
    embedding = build(method, CARDINALITIES, dim, budget, 3, **options)
    embedding.fused = False
    generator = torch.Generator().manual_seed(0)
    limits = CARDINALITIES if case == "full" else [2**32] * len(CARDINALITIES)
    ids = torch.stack([torch.randint(0, n, (19,), generator=generator) for n in limits], dim=1)
    return embedding, torch.cat([ids, ids[:5]])  # some come twice


def pool_of(embedding: Embedding) -> torch.nn.Parameter:
    return next(embedding.parameters())


def reference(embedding: Embedding, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors, a gradient of them, and the gradient of the pool."""
    vectors = embedding(ids)
    gradient = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    vectors.backward(gradient)
    dense = pool_of(embedding).grad
    assert dense is not None
    return vectors.detach(), gradient, dense


def test_hashes_are_those_of_fast_hash_to_the_last_bit(gpu: Any) -> None:
    """A pool that holds its own positions gives away every slot; ids cover both ends of 32 bits."""
    embedding = build("robe", CARDINALITIES, 16, 4 * 100_003, 7, block_len=4, align=1)
    device = gpu.DeviceBlocks(embedding, torch.device("cpu"))
    pool = torch.arange(100_003.0)
    ids = torch.randint(0, 2**32, (200, 5), generator=torch.Generator().manual_seed(2))
    ids[:4] = torch.tensor([0, 1, 2**31, 2**32 - 1])[:, None]
    hashes = embedding.hash
    assert isinstance(hashes, FastHash)
    slots, _ = hashes(ids, embedding.slots)
    assert torch.equal(device.lookup(pool, ids)[..., ::4].long(), slots)


@pytest.mark.parametrize("case", [*CASES, *RAGGED])
def test_lookup_and_scatter(gpu: Any, case: str) -> None:
    embedding, ids = make(case)
    vectors, gradient, dense = reference(embedding, ids)
    device = gpu.DeviceBlocks(embedding, torch.device("cpu"))
    pool = pool_of(embedding).detach()
    assert torch.equal(device.lookup(pool, ids), vectors)
    sums = torch.zeros_like(pool)
    device.scatter(sums, ids, gradient)
    torch.testing.assert_close(sums, dense, rtol=1e-5, atol=1e-5)
    stepped = pool.clone()
    device.sgd(stepped, ids, gradient, 0.1)
    torch.testing.assert_close(stepped, pool - 0.1 * dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [*CASES, *RAGGED])
def test_adagrad_is_that_of_torch(gpu: Any, case: str) -> None:
    embedding, ids = make(case)
    device = gpu.DeviceBlocks(embedding, torch.device("cpu"))
    pool = pool_of(embedding).detach().clone()
    sums, squares = torch.zeros_like(pool), torch.zeros_like(pool)
    optimizer = torch.optim.Adagrad(embedding.parameters(), lr=0.1)
    for part in (ids[:12], ids[12:], ids):
        optimizer.zero_grad()
        _, gradient, _ = reference(embedding, part)
        optimizer.step()
        device.scatter(sums, part, gradient)
        device.adagrad(pool, sums, squares, part, 0.1)
        assert not sums.any()
    torch.testing.assert_close(pool, pool_of(embedding).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(squares, optimizer.state[pool_of(embedding)]["sum"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("precision", "bound"), [("ieee", 1e-5), ("bf16", 0.03)])
def test_interaction(gpu: Any, case: str, precision: str, bound: float) -> None:
    """Forward, the gradient of the bottom MLP and that of the pool; bfloat16 keeps eight bits of a factor."""
    embedding, ids = make(case)
    with torch.no_grad():
        pool_of(embedding).mul_(100)  # to values of about one
    dim, vectors = embedding.dim, embedding.features + 1
    generator = torch.Generator().manual_seed(4)
    bottom = torch.randn(len(ids), dim, generator=generator, requires_grad=True)
    x = torch.cat([bottom.unsqueeze(1), embedding(ids)], dim=1)
    rows, columns = torch.tril_indices(vectors, vectors, offset=-1)
    expected = torch.cat([bottom, torch.bmm(x, x.transpose(1, 2))[:, rows, columns]], dim=1)
    device = gpu.DeviceBlocks(embedding, torch.device("cpu"), gpu.Launch(precision=precision))
    gradient = torch.randn(len(ids), device.width, generator=generator)
    expected.backward(gradient[:, : expected.shape[1]])

    pool = pool_of(embedding).detach()
    out = device.interact(bottom.detach(), pool, ids)
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(out[:, : expected.shape[1]], expected.detach(), rtol=0, atol=bound * scale)
    assert not out[:, expected.shape[1] :].any()

    sums = torch.zeros_like(pool)
    ours = device.interact_backward(bottom.detach(), pool, sums, ids, gradient)
    for value, twin in ((ours, bottom.grad), (sums, pool_of(embedding).grad)):
        assert twin is not None
        torch.testing.assert_close(value, twin, rtol=0, atol=bound * float(twin.abs().max()))


@pytest.mark.parametrize("budget", [3_000, 300_000])
def test_sgd_from_sums_takes_the_cheaper_way_to_the_same_values(gpu: Any, budget: int) -> None:
    embedding = build("robe", CARDINALITIES, 16, budget, 3)
    ids = make("robe")[1]
    device = gpu.DeviceBlocks(embedding, torch.device("cpu"))
    pool = pool_of(embedding).detach().clone()
    _, gradient, dense = reference(embedding, ids)
    sums = torch.zeros_like(pool)
    device.scatter(sums, ids, gradient)
    device.sgd_from_sums(pool, sums, ids, 0.1)
    torch.testing.assert_close(pool, pool_of(embedding).detach() - 0.1 * dense, rtol=1e-5, atol=1e-6)
    assert not sums.any()


def test_what_no_kernel_takes_is_refused(gpu: Any) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(InputError, match=r"robe \(hash: fast, wrap: false\)"):
        gpu.DeviceBlocks(build("tt", CARDINALITIES, 16, 100_000, 1), cpu)
    device = gpu.DeviceBlocks(make("robe, ragged")[0], cpu)
    with pytest.raises(InputError, match="powers of two"):
        device.interact(torch.zeros(1, 16), torch.zeros(750), torch.zeros(1, 5, dtype=torch.int64))


COMPILED = """
import json, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sizewise.embedding import build
from sizewise.embedding.kernels import gpu

embedding = build("robe", [100] * 26, 128, 10_000_000, 1, block_len=32, align=32)
device = gpu.DeviceBlocks(embedding, torch.device("cpu"))
lengths = {"B": device.blocks, "L": device.block_len}
tile = {**device.constants, "V": 2048 // device.dim, **lengths}
interaction = {**device._interaction(), "WIDTH": device.width}
code = {}
for kernel, constants in (
    (gpu._lookup, tile),
    (gpu._scatter, tile),
    (gpu._step, {**tile, "ADAGRAD": True}),
    (gpu._interact, interaction),
    (gpu._interact_backward, interaction),
):
    names = kernel.arg_names
    kinds = {"ids_ptr": "*i64", "a_ptr": "*i32", "b_ptr": "*i32", "slots": "i32", "vectors": "i32"}
    signature = {
        name: "constexpr" if name.isupper() else kinds.get(name, "*fp32" if name.endswith("_ptr") else "fp32")
        for name in names
    }
    values = {(names.index(name),): value for name, value in constants.items() if name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.endswith("_ptr")}
    source = ASTSource(kernel, signature, values, aligned)
    code[kernel.__name__] = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
print(json.dumps(code))
"""


def test_they_compile_for_a_hopper_gpu_to_vector_loads_and_vector_atomics(gpu: Any) -> None:
    """Triton compiles without a GPU; what runs at speed there must move 16 bytes an instruction."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    code = json.loads(run.stdout)
    for name in ("_lookup", "_scatter", "_step", "_interact", "_interact_backward"):
        assert "ld.global.v4" in code[name], name
        assert not re.search(r"\b(div|rem)\.[us]", code[name]), f"{name} divides integers"
    for name in ("_scatter", "_interact_backward"):
        assert "add.v4.f32" in code[name], name
    assert "mma" in code["_interact"]
