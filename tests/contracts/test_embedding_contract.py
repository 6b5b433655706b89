"""What every embedding method promises, under every option that changes how it stores or finds numbers."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from counted import build_ready, ready
from sizewise.embedding import METHODS, build, smallest_budget
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.storage.table import Table, shipped
from sizewise.embedding.width import STRENGTH
from sizewise_core.errors import InputError

CARDINALITIES = [1, 7, 300, 2]
DIM = 16
CASES = {
    "full": ("full", {}),
    "full int8": ("full", {"storage": "int8"}),
    "hash": ("hash", {}),
    "hash shared": ("hash", {"feature_term": False}),
    "hash bfloat16": ("hash", {"storage": "bfloat16"}),
    "hash narrow": ("hash", {"width": 2}),
    "robe": ("robe", {}),
    "robe row": ("robe", {"block_len": 16, "align": 16}),
    "robe elements": ("robe", {"block_len": 1, "align": 1}),
    "robe unaligned": ("robe", {"block_len": 8, "align": 1}),
    "robe ragged": ("robe", {"block_len": 6, "align": 2}),
    "robe wrap": ("robe", {"block_len": 8, "align": 4, "wrap": True}),
    "robe sign": ("robe", {"sign": True}),
    "robe shared": ("robe", {"feature_term": False}),
    "robe authors": ("robe", {"hash": "authors", "align": 1}),
    "robe paper": ("robe", {"hash": "paper", "align": 1, "sign": True, "wrap": True}),
    "robe bfloat16": ("robe", {"storage": "bfloat16"}),
    "robe int8": ("robe", {"storage": "int8"}),
    "robe narrow": ("robe", {"width": 4, "storage": "bfloat16"}),
    "robe narrow paper": (
        "robe",
        {"width": 4, "block_len": 3, "hash": "paper", "align": 1, "sign": True, "wrap": True},
    ),
    "qr product": ("qr", {}),
    "qr sum": ("qr", {"combine": "sum"}),
    "qr contiguous": ("qr", {"contiguous_ids": True}),
    "tt": ("tt", {}),
    "tt contiguous": ("tt", {"contiguous_ids": True, "max_rank": 4}),
    "cce": ("cce", {"cluster_every": 3}),
    "cce paper's bytes": ("cce", {"cluster_every": 3, "count_pointers": False}),
    "cce contiguous": ("cce", {"cluster_every": 3, "contiguous_ids": True}),
    "hot": ("hot", {}),
    "hot number": ("hot", {"width": 1, "fingerprint_bits": 5}),
    "hot dim": ("hot", {"width": DIM, "by": "chi2"}),
    "hot int8": ("hot", {"width": 8, "storage": "int8"}),
    "hot pool": ("hot", {"hashed_share": 0.3, "storage": "bfloat16"}),
    "hot int4": ("hot", {"storage": "int4", "hashed_share": 0.2}),
    "hot int2": ("hot", {"storage": "int2", "width": 8, "group": "row"}),
    "full int4": ("full", {"storage": "int4"}),
    "full int2 row": ("full", {"storage": "int2", "group": "row"}),
    "hash int4": ("hash", {"storage": "int4", "group": 24}),
    "hash int2": ("hash", {"storage": "int2"}),
    "robe int4": ("robe", {"storage": "int4"}),
    "robe int4 elements": ("robe", {"storage": "int4", "block_len": 1, "align": 1, "group": 10}),
    "robe int4 wrap": ("robe", {"storage": "int4", "block_len": 8, "align": 4, "wrap": True, "sign": True}),
    "robe int2": ("robe", {"storage": "int2", "block_len": 6, "align": 2, "sign": True, "group": 12}),
    "qr bfloat16": ("qr", {"storage": "bfloat16"}),
    "qr int8": ("qr", {"storage": "int8", "combine": "sum"}),
    "qr int4": ("qr", {"storage": "int4"}),
    "qr int2": ("qr", {"storage": "int2", "combine": "sum", "group": "row"}),
    "tt int8": ("tt", {"storage": "int8"}),
    "tt int4": ("tt", {"storage": "int4"}),
    "cce int8": ("cce", {"storage": "int8", "cluster_every": 3}),
    "cce int4": ("cce", {"storage": "int4", "cluster_every": 3, "group": "row"}),
}
LOW = ("bfloat16", "int8", "int4", "int2")
CONTIGUOUS = [case for case, (method, o) in CASES.items() if method == "full" or o.get("contiguous_ids")]
HASHED = [case for case in CASES if case not in CONTIGUOUS]
# The smallest step in bytes by which a method can grow, where that is coarser than 1 % of the budget.
GRANULARITY = {
    "hash": DIM * 4,
    "robe": 16 * 4,
    "qr": DIM * 4,
    "tt": 4 * 16 * 4,
    "cce": 2 * DIM * 4,
    "hot": DIM * 4 + 3,
}
MANY = [10**6] * len(CARDINALITIES)


def make(case, budget=None, seed=1, **kwargs):
    method, options = CASES[case]
    budget = budget or max(30_000, smallest_budget(method, CARDINALITIES, DIM, **options))
    embedding = build(method, CARDINALITIES, DIM, budget, seed, **{**options, **kwargs})
    with torch.device("cpu"):
        return ready(embedding, *(ids_for(case, rows) for rows in (64, 32, 3)))


def enlarge(embedding):
    """Move packed numbers so far from zero that some are nearest to another level."""
    with torch.no_grad():
        for module in embedding.modules():
            if isinstance(module, Table) and module.storage in PACKED:
                module.weight.sub_(module.center).mul_(20).add_(module.center)
    return embedding


def ids_for(case, rows=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    limits = CARDINALITIES if case in CONTIGUOUS else [2**32] * len(CARDINALITIES)
    return torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in limits], dim=1)


def train(embedding, ids, steps, optimizer=torch.optim.Adagrad, rate=0.1):
    """Fit a random target vector for every value of every feature; the losses before each step."""
    generator = torch.Generator().manual_seed(9)
    values = [column.unique(return_inverse=True)[1] for column in ids.T]
    tiles = getattr(embedding, "tiles", None)
    width = tiles.width if tiles else DIM  # narrow vectors can only be fitted to such
    rate = rate if width == DIM else rate / STRENGTH
    target = torch.stack([torch.randn(len(ids), width, generator=generator)[v] for v in values], dim=1)
    target = target.repeat(1, 1, DIM // width)
    optimizer = optimizer(embedding.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (embedding(ids) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def trained_digests(cases):
    """For each case the digest of what it returns after five steps of training."""
    out = {}
    for case in cases:
        embedding, ids = make(case), ids_for(case)
        train(embedding, ids, steps=5)
        out[case] = digest(embedding(ids))
    return out


def test_every_method_is_covered():
    assert {method for method, _ in CASES.values()} == set(METHODS.own)


@pytest.mark.parametrize("case", CASES)
def test_shape_and_dtype(case):
    embedding, ids = make(case), ids_for(case)
    vectors = embedding(ids)
    assert vectors.shape == (64, len(CARDINALITIES), DIM)
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, embedding(ids.to(torch.uint32)))
    assert embedding(ids[:0]).shape == (0, len(CARDINALITIES), DIM)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("full")])
@pytest.mark.parametrize("factor", [1, 1.5, 4, 50, 1000])
def test_bytes_fill_the_budget(case, factor):
    method, options = CASES[case]
    # Nobody wants more rows than there are values.
    cardinalities = MANY if method == "hot" else CARDINALITIES
    budget = int(factor * smallest_budget(method, cardinalities, DIM, **options))
    size = build(method, cardinalities, DIM, budget, 1, **options).embedding_bytes
    step = GRANULARITY[method]
    if method == "cce" and options.get("count_pointers", True):
        step += (
            sum(CARDINALITIES) * 4
        )  # where one-byte pointers no longer reach, and two-byte ones do not fit yet
    assert size <= budget
    assert size >= budget - max(0.01 * budget, step)


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_known_without_making_the_model(case):
    with torch.device("meta"):  # tensors without memory
        sketched = make(case)
    assert sketched.embedding_bytes == make(case).embedding_bytes
    assert all(table.device.type == "meta" for table in sketched.parameters())


def test_bytes_of_full_are_the_tables():
    assert make("full").embedding_bytes == sum(CARDINALITIES) * DIM * 4
    assert make("full int8").embedding_bytes == sum(CARDINALITIES) * DIM + 4
    assert make("full int4").embedding_bytes == sum(CARDINALITIES) * DIM / 2 + 2
    assert make("full int2 row").embedding_bytes == sum(CARDINALITIES) * (DIM / 4 + 2)


@pytest.mark.parametrize("case", CASES)
def test_smallest_budget_is_the_smallest(case):
    method, options = CASES[case]
    smallest = smallest_budget(method, CARDINALITIES, DIM, **options)
    embedding = make(case, smallest)
    assert embedding.embedding_bytes <= smallest
    embedding(ids_for(case)).sum().backward()
    with pytest.raises(InputError, match=f"memory_budget .* {method} .* at least {smallest} bytes"):
        make(case, smallest - 1)


@pytest.mark.parametrize("case", CASES)
def test_seeds_decide(case):
    ids = ids_for(case)
    assert torch.equal(enlarge(make(case, seed=5))(ids), enlarge(make(case, seed=5))(ids))
    assert not torch.equal(enlarge(make(case, seed=5))(ids), enlarge(make(case, seed=6))(ids))


@pytest.mark.slow
def test_equal_seeds_give_equal_training_in_another_process():
    """With one thread and with two."""
    code = (
        "import importlib.util, json, torch\n"
        f"spec = importlib.util.spec_from_file_location('contract', {str(Path(__file__))!r})\n"
        "contract = importlib.util.module_from_spec(spec); spec.loader.exec_module(contract)\n"
        "for threads in (1, 2):\n"
        "    torch.set_num_threads(threads)\n"
        "    print(json.dumps(contract.trained_digests(contract.CASES)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert [json.loads(line) for line in other.stdout.splitlines()] == [trained_digests(CASES)] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_devices_agree(case):
    """To the last bit, but for `tt`, whose products of matrices a device may sum in an order of its own."""
    ids = ids_for(case)
    here, there = make(case)(ids), make(case).cuda()(ids.cuda()).cpu()
    torch.testing.assert_close(there, here, rtol=0, atol=1e-8 if CASES[case][0] == "tt" else 0)


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_goes_where_its_module_goes(case):
    """One that stayed behind would be copied at every lookup, for which a GPU waits, and no CUDA graph can."""
    modules = list(make(case).modules())
    assert not [name for module in modules for name, value in vars(module).items() if torch.is_tensor(value)]


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_finite_differences(case):
    if any(storage in case for storage in LOW):
        pytest.skip("rounded values have no derivative; float32 of the same method is checked")
    method, options = CASES[case]
    smallest = smallest_budget(method, CARDINALITIES, DIM, **options)
    embedding = make(case, 2 * smallest if method != "full" else smallest).double().eval()
    ids = ids_for(case, rows=3)
    parameters = dict(embedding.named_parameters())
    names, values = list(parameters), list(parameters.values())

    def call(*arguments):
        return torch.func.functional_call(embedding, dict(zip(names, arguments, strict=True)), (ids,))

    assert torch.autograd.gradcheck(call, values, fast_mode=True, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_training_fits_random_targets(case):
    """With room for every value the loss falls by half in 60 steps, whatever the storage."""
    method, _ = CASES[case]
    losses = train(make(case, 300_000 if method != "full" else None), ids_for(case, rows=32), steps=60)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adagrad, torch.optim.Adam])
@pytest.mark.parametrize("case", ["full", "hash", "robe", "robe int8", "qr product", "tt", "cce"])
def test_optimizers_lower_the_loss(case, optimizer):
    rate = 1.0 if optimizer is torch.optim.SGD else 0.01
    losses = train(make(case), ids_for("full", rows=32), 20, optimizer, rate)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("case", CASES)
def test_state_survives_safetensors(case, tmp_path):
    embedding, ids = make(case), ids_for(case)
    train(embedding, ids, steps=8)
    save_file(embedding.state_dict(), tmp_path / "model.safetensors")
    copy = make(case)
    assert not torch.equal(copy(ids), embedding(ids))
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(copy(ids), embedding(ids))
    # Training goes on as if nothing had happened: schedule, rounding noise and values are all in the state.
    assert train(copy, ids, steps=5) == train(embedding, ids, steps=5)
    assert torch.equal(copy(ids), embedding(ids))


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][1].get("storage") in PACKED])
def test_what_is_shipped_of_a_packed_table_gives_the_same_vectors(case):
    """In a model of its own, which reads packed numbers, or values made of them."""
    embedding, ids = make(case), ids_for(case)
    train(embedding, ids, steps=8)
    vectors = embedding(ids)
    served = make(case)
    served.load_state_dict(shipped(embedding.state_dict()))
    assert torch.equal(served(ids), vectors)
    for model in (embedding, served):
        model.eval()
        with torch.no_grad():
            assert torch.equal(model(ids), vectors)
            model.fused = False
            assert torch.equal(model(ids), vectors)


@pytest.mark.parametrize("case", CASES)
def test_the_file_weighs_what_is_reported(case, tmp_path):
    embedding = make(case)
    state = embedding.state_dict()
    counters = {"lookups", "roundings"}  # eight bytes each, needed only to train on
    stored = sum(t.nbytes for name, t in shipped(state).items() if name.split(".")[-1] not in counters)
    if not CASES[case][1].get("count_pointers", True):
        stored -= embedding.pointer_bytes
    assert stored == embedding.embedding_bytes


@pytest.mark.parametrize("case", HASHED)
def test_any_token_will_do(case):
    embedding = make(case).eval()
    extremes = torch.tensor([[0, 2**32 - 1, 0, 2**32 - 1], [2**32 - 1, 0, 2**31, 2**31 - 1]])
    assert embedding(extremes).isfinite().all()
    million = torch.randint(0, 2**32, (250_000, 4), generator=torch.Generator().manual_seed(3))
    assert embedding(million).isfinite().all()


@pytest.mark.parametrize("case", HASHED)
def test_ids_never_trained_still_have_vectors(case):
    embedding = make(case)
    train(embedding, ids_for(case, seed=1), steps=8)
    assert embedding.eval()(ids_for(case, seed=2)).isfinite().all()


@pytest.mark.parametrize("case", CONTIGUOUS)
def test_ids_above_the_vocabulary_are_refused(case):
    with pytest.raises(InputError, match=r"feature 2 has id 300, but its cardinality is 300; .*contiguous"):
        make(case)(torch.tensor([[0, 0, 300, 0]]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bad", ["dtype", "columns", "rank", "negative", "too large"])
def test_bad_ids_are_refused(case, bad):
    ids = ids_for(case)
    broken = {
        "dtype": ids.int(),
        "columns": ids[:, :2],
        "rank": ids[0],
        "negative": -1 - ids,
        "too large": ids + 2**32,
    }[bad]
    with pytest.raises(InputError, match=r"ids (have|span)"):
        make(case)(broken)


@pytest.mark.parametrize("case", HASHED)
def test_cardinalities_up_to_2_to_the_32(case):
    method, options = CASES[case]
    if method == "cce":
        with pytest.raises(InputError, match="at least"):
            build(method, [1, 2**32], DIM, 10**6, 1, chunks=4)
        return
    embedding = build_ready(method, [1, 2**32], DIM, 50_000, 1, **options)
    assert embedding(torch.tensor([[0, 2**32 - 1]])).isfinite().all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dim", [1, 2, 7, 128, 512])
def test_any_dim(case, dim):
    method, options = CASES[case]
    if "block_len" in options or method == "robe":
        block_len = min(dim, options.get("block_len", 16))
        options = {**options, "block_len": block_len, "align": 1}
    if method == "cce":
        options = {**options, "chunks": 1 if dim % 2 else 2}
    if "width" in options:
        options = {**options, "width": math.gcd(dim, options["width"])}
        options["block_len"] = min(options["width"], options.get("block_len", 1))
        options = {name: value for name, value in options.items() if name != "block_len" or method == "robe"}
    budget = max(100_000, smallest_budget(method, CARDINALITIES, dim, **options))
    vectors = enlarge(build_ready(method, CARDINALITIES, dim, budget, 1, **options))(ids_for(case))
    assert vectors.shape == (64, len(CARDINALITIES), dim)
    assert vectors.std() > 0


@pytest.mark.parametrize("method", METHODS.own)
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 6, 7, 8, 16, 100, 511, 512])
def test_what_is_left_out_suits_any_dim(method, dim):
    budget = max(10_000, smallest_budget(method, CARDINALITIES, dim))
    vectors = build_ready(method, CARDINALITIES, dim, budget, 1)(ids_for("full"))
    assert vectors.shape == (64, len(CARDINALITIES), dim)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("rope", {}, "embedding.method 'rope' is unknown: choose one of full, hash"),
        ("robe", {"block_length": 8}, "embedding.block_length"),
        ("robe", {"block_len": 0}, "embedding.block_len"),
        ("robe", {"block_len": 32}, "block_len 32 exceeds dim 16: set block_len: 16 or less"),
        ("robe", {"block_len": 8, "align": 3}, "align 3 does not divide block_len 8"),
        ("robe", {"hash": "authors", "align": 4}, "set sign: false, wrap: false, align: 1"),
        ("robe", {"hash": "md5"}, "embedding.hash"),
        ("robe", {"storage": "int3"}, "embedding.storage"),
        ("robe", {"storage": "int4", "group": 0}, "embedding.group"),
        ("full", {"storage": "int4", "group": 24}, "group 24 does not divide a row of 16 numbers"),
        ("qr", {"storage": "int2", "group": 3}, "group 3 does not divide a row of 16 numbers"),
        ("tt", {"storage": "int4", "group": "row"}, "embedding.group"),
        ("hash", {"sign": True}, "embedding.sign"),
        ("full", {"block_len": 8}, "embedding.block_len"),
        ("qr", {"combine": "concat"}, "embedding.combine"),
        ("tt", {"max_rank": 0}, "embedding.max_rank"),
        ("cce", {"chunks": 3}, "chunks 3 does not divide dim 16: set chunks: 2"),
        ("hash", {"width": 3}, "width 3 does not divide dim 16: set width: 2"),
        ("hot", {"width": 32}, "width 32 does not divide dim 16: set width: 16"),
        ("robe", {"width": 4, "block_len": 8}, "block_len 8 exceeds width 4: set block_len: 4 or less"),
        ("hot", {"fingerprint_bits": 3}, "embedding.fingerprint_bits"),
        ("hot", {"by": "clicks"}, "embedding.by"),
        ("hot", {"hashed_share": 1.0}, "embedding.hashed_share"),
    ],
)
def test_bad_options_name_the_field_and_the_fix(method, options, message):
    with pytest.raises(InputError, match=message) as refused:
        build(method, CARDINALITIES, DIM, 10**6, 1, **options)
    assert "Value error" not in str(refused.value)


@pytest.mark.parametrize(
    ("cardinalities", "dim", "message"),
    [([], 4, "cardinalities"), ([0], 4, "cardinalities"), ([5], 0, "dim")],
)
def test_impossible_data_is_refused(cardinalities, dim, message):
    with pytest.raises(InputError, match=message):
        build("robe", cardinalities, dim, 10**6, 1, block_len=4)


def test_a_pool_beyond_32_bits_of_starts_says_which_alignment_will_do():
    with pytest.raises(InputError, match="set align: 8 or more"):
        build("robe", CARDINALITIES, DIM, 2**35, 1, block_len=16, align=1)


def test_a_table_beyond_32_bits_of_rows_is_refused():
    with pytest.raises(InputError, match="set a smaller memory_budget"):
        build("hash", CARDINALITIES, 1, 2**34, 1)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.startswith(("cce", "robe int8", "full int8"))]
)
def test_diverged_values_are_passed_on(case):
    """A trial must end by its loss, not by an error of the embedding's own bookkeeping."""
    embedding, ids = make(case), ids_for(case)
    with torch.no_grad():
        next(embedding.parameters()).fill_(float("nan"))
    for _ in range(4):  # past the first clustering
        vectors = embedding(ids)
    assert vectors.isnan().any()
