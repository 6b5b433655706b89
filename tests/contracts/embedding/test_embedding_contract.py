"""What every embedding method promises, under every option that changes how it stores or finds numbers."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.contracts.embedding.embeddings import (
    CARDINALITIES,
    CASES,
    DIM,
    HASHED,
    LOW,
    enlarge,
    ids_for,
    make,
    train,
    trained_digests,
)

from counted import build_ready
from sizewise.embedding import METHODS, build, smallest_budget
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.storage.table import shipped
from sizewise_core.errors import InputError


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


@pytest.mark.parametrize("case", CASES)
def test_seeds_decide(case):
    ids = ids_for(case)
    assert torch.equal(enlarge(make(case, seed=5))(ids), enlarge(make(case, seed=5))(ids))
    assert not torch.equal(enlarge(make(case, seed=5))(ids), enlarge(make(case, seed=6))(ids))


@pytest.mark.slow
def test_equal_seeds_give_equal_training_in_another_process():
    """With one thread and with two."""
    code = (
        "import json, torch\n"
        "from tests.contracts.embedding.embeddings import CASES, trained_digests\n"
        "for threads in (1, 2):\n"
        "    torch.set_num_threads(threads)\n"
        "    print(json.dumps(trained_digests(CASES)))\n"
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


@pytest.mark.parametrize("case", HASHED)
def test_any_token_will_do(case):
    embedding = make(case).eval()
    extremes = torch.tensor([[0, 2**32 - 1, 0, 2**32 - 1], [2**32 - 1, 0, 2**31, 2**31 - 1]])
    assert embedding(extremes).isfinite().all()
    # 1.6 million numbers are read, and few cases store as many as 100,000: each of theirs is, many times.
    drawn = torch.randint(0, 2**32, (25_000, 4), generator=torch.Generator().manual_seed(3))
    assert embedding(drawn).isfinite().all()


@pytest.mark.parametrize("case", HASHED)
def test_ids_never_trained_still_have_vectors(case):
    embedding = make(case)
    train(embedding, ids_for(case, seed=1), steps=8)
    assert embedding.eval()(ids_for(case, seed=2)).isfinite().all()


@pytest.mark.parametrize("case", HASHED)
def test_cardinalities_up_to_2_to_the_32(case):
    method, options = CASES[case]
    if method == "cce":
        with pytest.raises(InputError, match="at least"):
            build(method, [1, 2**32], DIM, 10**6, 1, chunks=4)
        return
    embedding = build_ready(method, [1, 2**32], DIM, 50_000, 1, **options)
    assert embedding(torch.tensor([[0, 2**32 - 1]])).isfinite().all()


DIMS = (1, 2, 7, 128, 512)


# Three of the dims for each case: the cases of a method, and those of a storage, have all of them.
@pytest.mark.parametrize(
    ("case", "dim"), [(case, DIMS[(place + by) % 5]) for place, case in enumerate(CASES) for by in (0, 1, 3)]
)
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
@pytest.mark.parametrize("dim", [1, 2, 3, 6, 100, 511, 512])
def test_what_is_left_out_suits_any_dim(method, dim):
    budget = max(10_000, smallest_budget(method, CARDINALITIES, dim))
    vectors = build_ready(method, CARDINALITIES, dim, budget, 1)(ids_for("full"))
    assert vectors.shape == (64, len(CARDINALITIES), dim)


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
