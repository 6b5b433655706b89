"""What the Triton kernels compile to for a Hopper GPU, which can be seen without one.

The interpreter of the other tests has no registers, no shared memory and no 16-byte instructions. Here Triton and
NVIDIA's assembler, which comes with it, make the code that a GPU would run, and cuobjdump says what it takes.
"""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

SHARED_BYTES = 227 * 1024  # the most that one program may have on sm_90
REGISTERS = 65_536  # of a multiprocessor

COMPILER = r"""
import json, os, re, subprocess, sys, tempfile
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sizewise.embedding import build
from sizewise.embedding.kernels import gpu
from sizewise.embedding.kernels.gpu import bags, interaction, packed, vectors

CPU = torch.device("cpu")
DUMP = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
KINDS = {"ids_ptr": "*i64", "stream_ptr": "*i64"}

def blocks(method="robe", features=26, dim=128, **options):
    budget = features * 100 * dim * 4 if method == "full" else 10_000_000
    return build(method, [100] * features, dim, budget, 1, **options).blocks

def compiled(kernel, constants, kinds, **options):
    names = kernel.arg_names
    # Of blocks that are hashed; else the 64-bit row offsets of tables with a row a value.
    hashes = ("*i32", "*i32" if "LAYOUT" not in constants or constants["LAYOUT"].hashed else "*i64")
    kinds = {**KINDS, "hashes": hashes, "slots": "i32", "vectors": "i32", "size": "i32", **kinds}
    signature = {
        name: "constexpr" if name.isupper() else kinds.get(name, "*fp32" if name.endswith("_ptr") else "fp32")
        for name in names
    }
    values = {(names.index(name),): value for name, value in constants.items() if name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.endswith("_ptr") or name == "size"
    }
    if "hashes" in names:
        aligned |= {(names.index("hashes"), i): [["tt.divisibility", 16]] for i in (0, 1)}
    source = ASTSource(kernel, signature, values, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.run([DUMP, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    registers, stack = (int(re.search(name + r":(\d+)", usage)[1]) for name in ("REG", "STACK"))
    return {
        "ptx": made.asm["ptx"], "registers": registers, "stack": stack, "shared": made.metadata.shared,
        "warps": made.metadata.num_warps,
    }

def of_vectors(where):
    device = gpu.DeviceBlocks(where, CPU)
    tile = {"LAYOUT": device.layout, "V": device.vectors_a_program}
    flags = {"ADAGRAD": True, "ROUND": True, "N": 1024}
    return {
        kernel.__name__: compiled(kernel, {**tile, **flags}, {}, num_warps=4)
        for kernel in (vectors.lookup, vectors.scatter, vectors.adagrad, vectors.dense_step, vectors.round_bfloat16)
    }

def of_bags(where):
    device = gpu.DeviceBlocks(where, CPU)
    tile = {"LAYOUT": device.layout, "V": device.vectors_a_program, "MEAN": True}
    kinds = {"lists": ("*u32", "*u32", "*i64", "i32", "i32", "i32")}
    return {
        kernel.__name__: compiled(kernel, tile, kinds, num_warps=4)
        for kernel in (bags.lookup, bags.scatter, bags.adagrad, bags.round_bfloat16)
    }

def of_packed(where):
    device = gpu.DeviceBlocks(where, CPU)
    kinds = {"codes_ptr": "*u8", "scale_ptr": "*bf16"}
    tile = {"LAYOUT": device.layout, "V": device.vectors_a_program}
    return {
        f"{bits} bits": compiled(packed.lookup, {**tile, "BITS": bits}, kinds, num_warps=4) for bits in (8, 4, 2)
    }

def of_interaction(where, precision, made=("interact", "interact_backward")):
    device = gpu.DeviceBlocks(where, CPU, gpu.Launch(precision=precision))
    arguments = device.interaction_constants()
    arguments["TILE"] = arguments["TILE"]._replace(interpreted=False)
    warps = arguments.pop("num_warps")
    small = "*bf16" if precision == "bf16" else "*fp32"
    kinds = {name: small for name in ("bottom_ptr", "out_ptr", "gradient_ptr", "bottom_gradient_ptr")}
    return {
        name: compiled(getattr(interaction, name), {**arguments, "SUM": True}, kinds, num_warps=warps) for name in made
    }

aligned = {"block_len": 32, "align": 32}
json.dump({
    "vectors": of_vectors(blocks(**aligned)),
    "vectors of 16": of_vectors(blocks(dim=16, block_len=16, align=4)),
    "vectors of full": of_vectors(blocks("full")),
    "unaligned": of_vectors(blocks(block_len=32, align=1)),
    "bags": of_bags(blocks(**aligned)),
    "bags of full": of_bags(blocks("full")),
    "packed": of_packed(blocks(**aligned)),
    "packed, full": of_packed(blocks("full")),
    "packed, unaligned": of_packed(blocks(block_len=32, align=1)),
    "float32": of_interaction(blocks(**aligned), "tf32x3"),
    "bfloat16": of_interaction(blocks(**aligned), "bf16"),
    "dim 16": of_interaction(blocks(dim=16, block_len=16, align=4), "bf16"),
    "dim 256": of_interaction(blocks(dim=256, **aligned), "tf32x3"),
    "60 features": of_interaction(blocks(features=60, **aligned), "tf32x3"),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def code() -> Any:
    pytest.importorskip("triton", reason="Triton is not installed: pip install sizewise[gpu]")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILER], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "case", ["vectors", "vectors of 16", "vectors of full", "float32", "bfloat16", "dim 16"]
)
def test_aligned_blocks_are_read_and_added_16_bytes_an_instruction(code: Any, case: str) -> None:
    for name, made in code[case].items():
        assert "ld.global.v4" in made["ptx"], name
        assert not re.search(r"\b(div|rem)\.[us]", made["ptx"]), f"{name} divides integers"
    for name in {"scatter", "interact_backward"} & code[case].keys():
        assert re.search(r"(red|atom)\.global\S*\.add\S*\.v4\.f32", code[case][name]["ptx"]), name
        assert not re.search(r"(red|atom)\.global\S*\.add\S*\.f32 (?!.*\{)", code[case][name]["ptx"]), name
    if "lookup" in code[case]:
        assert "st.global.v4" in code[case]["lookup"]["ptx"]


@pytest.mark.parametrize("case", ["packed", "packed, full"])
def test_packed_numbers_are_read_several_a_load_and_written_16_bytes_an_instruction(
    code: Any, case: str
) -> None:
    """A thread that writes four numbers reads their 4, 2 or 1 bytes, or those of more vectors, at once."""
    for bits in (8, 4, 2):
        ptx = code[case][f"{bits} bits"]["ptx"]
        assert "st.global.v4" in ptx, bits
        loads, stores = (len(re.findall(rf"{kind}\.global\S*\.[bu]8\b", ptx)) for kind in ("ld", "st"))
        assert loads <= 16 // (8 // bits), (bits, loads)  # of the 16 numbers that a thread has
        assert not stores
        assert not re.search(r"\b(div|rem)\.[us]", ptx), bits


@pytest.mark.parametrize("case", ["bags", "bags of full"])
def test_lists_of_values_are_pooled_16_bytes_an_instruction(code: Any, case: str) -> None:
    assert "ld.global.v4" in code[case]["lookup"]["ptx"]
    assert "st.global.v4" in code[case]["lookup"]["ptx"]
    assert re.search(r"(red|atom)\.global\S*\.add\S*\.v4\.f32", code[case]["scatter"]["ptx"])


def test_unaligned_blocks_are_not(code: Any) -> None:
    """Four atomic additions for one: what `align` is for. Hash terms some versions of Triton read wide all the same."""
    assert ".v4.f32" not in code["unaligned"]["scatter"]["ptx"]
    wide = {case: code[case]["lookup"]["ptx"].count("ld.global.v4") for case in ("unaligned", "vectors")}
    assert wide["unaligned"] <= wide["vectors"] - 4


def test_positions_in_96_gb_of_tables_are_64_bits_wide(code: Any) -> None:
    """Row times dim, and the row itself, are multiplied and added as 64-bit integers."""
    for name in ("lookup", "scatter", "adagrad"):
        ptx = code["vectors of full"][name]["ptx"]
        assert "ld.global.b64" in ptx or "ld.global.v2.b64" in ptx, name  # ids and offsets as they are
        assert re.search(r"shl\.b64|mul\.lo\.s64|mad\.lo\.s64", ptx), name


@pytest.mark.parametrize("case", ["float32", "bfloat16", "dim 16"])
def test_the_interaction_multiplies_on_tensor_cores(code: Any, case: str) -> None:
    kind = "tf32" if case == "float32" else "bf16"
    for name, made in code[case].items():
        assert re.search(rf"mma\.sync\S*\.{kind}", made["ptx"]), name


def test_every_kernel_fits(code: Any) -> None:
    """No program asks for more shared memory or registers than there are, and the fast ones spill nothing."""
    for case, kernels in code.items():
        for name, made in kernels.items():
            where = f"{case}: {name}"
            assert made["shared"] <= SHARED_BYTES, where
            assert made["registers"] * 32 * made["warps"] <= REGISTERS, where
            if case.startswith(("packed", "vectors")) or case in ("bfloat16", "dim 16"):
                assert made["stack"] <= 16, where


def test_enough_samples_are_in_flight_to_hide_each_others_loads(code: Any) -> None:
    """Of MLPerf's model in bfloat16, six or more on each multiprocessor, 24 warps: by registers and by memory."""
    for name, made in code["bfloat16"].items():
        by_registers = REGISTERS // (made["registers"] * 32 * made["warps"])
        by_memory = SHARED_BYTES // (made["shared"] + 1024)
        assert min(by_registers, by_memory) >= 6, (name, made["registers"], made["shared"])
