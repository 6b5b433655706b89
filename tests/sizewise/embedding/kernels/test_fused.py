"""The fused kernels are twins of the plain path; the optimizers that use them are twins of torch.optim's."""

from typing import Any

import numpy as np
import pytest
import torch

from pairwise import every_pair
from sizewise.embedding import Embedding, build
from sizewise.embedding.in_backward import is_gradient
from sizewise.embedding.kernels import cpu
from sizewise.embedding.kernels.blocks import common
from sizewise.embedding.kernels.threads import share_out
from sizewise.embedding.storage.quantization import dequantize, quantize
from sizewise.training.steps.optimizers import build_optimizer

CARDINALITIES = [1, 7, 300, 2, 40]
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "robe": ("robe", 16, {}),
    "robe, several blocks": ("robe", 64, {"block_len": 16}),
    "robe, ragged, whole cache lines": ("robe", 48, {"block_len": 32}),
    "robe, unaligned": ("robe", 16, {"block_len": 8, "align": 1}),
    "robe, ragged": ("robe", 16, {"block_len": 6, "align": 2}),
    "robe, elements": ("robe", 7, {"block_len": 1, "align": 1}),
    "robe, sign": ("robe", 32, {"block_len": 8, "sign": True}),
    "robe, ragged, sign": ("robe", 10, {"block_len": 4, "sign": True}),
    "robe, shared": ("robe", 16, {"feature_term": False}),
    "hash": ("hash", 16, {}),
    "hash, odd dim": ("hash", 5, {}),
    "full": ("full", 16, {}),
}
BATCH = 3_000


@pytest.fixture(autouse=True)
def little_work_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "BLOCKS_PER_THREAD", 1_000)


def make(case: str, fused: bool, storage: str = "float32") -> Embedding:
    method, dim, options = CASES[case]
    budget = sum(CARDINALITIES) * dim * 4 if method == "full" else 20_000
    embedding = build(method, CARDINALITIES, dim, budget, 3, **options, storage=storage)
    embedding.fused = fused
    return embedding


def ids_for(case: str, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    limits = CARDINALITIES if case == "full" else [2**32] * len(CARDINALITIES)
    return torch.stack([torch.randint(0, n, (BATCH,), generator=generator) for n in limits], dim=1)


def threads(count: int) -> Any:
    class Threads:
        def __enter__(self) -> None:
            self.before = torch.get_num_threads()
            torch.set_num_threads(count)

        def __exit__(self, *_: object) -> None:
            torch.set_num_threads(self.before)

    return Threads()


@every_pair(case=CASES, count=[1, 2, 5], streamed=[False, True])
def test_vectors_are_the_same_bits_and_gradients_equal(
    case: str, count: int, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every embedding with every number of threads, and both with results that are streamed and that are not."""
    monkeypatch.setattr(common, "STREAMED_BYTES", 0 if streamed else 2**40)
    ids = ids_for(case)
    fused, plain = make(case, True), make(case, False)
    with threads(count):
        vectors = fused(ids)
        weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
        vectors.backward(weights)
    expected = plain(ids)
    expected.backward(weights)
    assert torch.equal(vectors, expected)
    ours, theirs = (next(e.parameters()).grad for e in (fused, plain))
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def trained(
    case: str, optimizer: str, *, fused: bool, count: int = 1, storage: str = "float32", steps: int = 4
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The table, and the optimizer's state, after some steps that each read other ids, some of them often."""
    embedding = make(case, fused, storage)
    stepper: torch.optim.Optimizer
    if fused:
        stepper = build_optimizer(optimizer, embedding, 0.1, in_backward=True)
    else:
        kind = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}[optimizer]
        stepper = kind(embedding.parameters(), lr=0.1)  # type: ignore[operator]
    with threads(count):
        for step in range(steps):
            stepper.zero_grad()
            vectors = embedding(ids_for(case, seed=step))
            target = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(step))
            (vectors - target).square().mean().backward()  # type: ignore[no-untyped-call]
            stepper.step()
    embedding(ids_for(case))  # tables in fewer bits are rounded when they are read
    return next(embedding.parameters()).detach(), stepper.state_dict()


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("case", CASES)
def test_steps_equal_those_of_torch(case: str, optimizer: str) -> None:
    ours, our_state = trained(case, optimizer, fused=True)
    theirs, their_state = trained(case, optimizer, fused=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)
    assert our_state["state"].keys() == their_state["state"].keys()
    for key, values in their_state["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(our_state["state"][key][name], value, rtol=1e-4, atol=1e-8)


@pytest.mark.slow
@every_pair(
    case=["robe, several blocks", "robe, unaligned", "robe, sign", "hash"],
    optimizer=["sgd", "adagrad"],
    storage=["float32", "bfloat16", "int8"],
)
def test_any_number_of_threads_steps_to_the_same_bits(case: str, optimizer: str, storage: str) -> None:
    """Every embedding with every storage, and both with either optimizer."""
    one, _ = trained(case, optimizer, fused=True, storage=storage)
    for count in (2, 3):
        assert torch.equal(trained(case, optimizer, fused=True, count=count, storage=storage)[0], one)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_bfloat16_is_rounded_with_the_noise_of_the_plain_path(optimizer: str) -> None:
    ours, _ = trained("robe", optimizer, fused=True, storage="bfloat16")
    theirs, _ = trained("robe", optimizer, fused=False, storage="bfloat16")
    assert torch.equal(ours, ours.to(torch.bfloat16).float())
    # The same noise: where the sums' last bits differ, a few values may still fall to the other neighbour.
    assert (ours != theirs).float().mean() < 0.01
    torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer_name", ["sgd", "adagrad"])
@pytest.mark.parametrize("case", ["robe", "robe, ragged, sign", "hash, odd dim"])
def test_int8_is_stepped_where_it_was_read_to_the_bits_of_steps_of_the_table(
    case: str, optimizer_name: str
) -> None:
    """While its scale grows and while it does not, with few and with many ids, and with two lookups a step."""
    states, scales = [], []
    for in_backward in (False, True):
        embedding = make(case, True, "int8")
        rate = {"sgd": 3.0, "adagrad": 0.05}[optimizer_name]
        optimizer = build_optimizer(optimizer_name, embedding, rate, in_backward=in_backward)
        weight, scales = next(embedding.parameters()), []
        for step, parts in enumerate((1, 1, 2, 1, 1)):
            optimizer.zero_grad()
            ids = ids_for(case, seed=step)[: 4 if step % 2 else BATCH]
            vectors = torch.cat([embedding(part) for part in ids.chunk(parts)])
            target = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(step))
            (vectors - target).square().mean().backward()  # type: ignore[no-untyped-call]
            assert is_gradient(weight.grad) != (in_backward and parts == 1)
            optimizer.step()
            scales.append(float(next(v for k, v in embedding.state_dict().items() if k.endswith("scale"))))
        kept = optimizer.state_dict()["state"].get(0, {})
        states.append({**embedding.state_dict(), "squares": kept.get("sum"), "steps": kept.get("step")})
    assert scales[0] < scales[-1]
    assert len(set(scales)) < len(scales)
    for name, value in states[0].items():
        assert value is states[1][name] is None or torch.equal(value, states[1][name]), name


@pytest.mark.parametrize("storage", ["float32", "int4"])
def test_a_step_touches_nothing_that_was_not_read(storage: str) -> None:
    """And makes no gradient of the table, so its cost does not depend on the table's size."""
    embedding = build("robe", CARDINALITIES, 16, 4_000_000, 1, storage=storage)
    optimizer = build_optimizer("adagrad", embedding, 0.1, in_backward=True)
    pool = next(embedding.parameters())
    before = pool.detach().clone()
    ids = ids_for("robe")[:8]
    (embedding(ids) - 1).square().sum().backward()
    assert not is_gradient(pool.grad)
    optimizer.step()  # has nothing left to do
    read = np.zeros(len(pool), dtype=bool)
    slots, _ = embedding.hash(ids, embedding.slots)
    for slot in slots.flatten().tolist():
        read[slot * 4 : slot * 4 + 16] = True
    changed = (pool.detach() != before).numpy()
    assert changed.sum() > 0.9 * read.sum()
    assert not changed[~read].any()


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_several_lookups_of_a_backward_pass_are_one_step_by_their_sum(optimizer: str) -> None:
    pools = []
    for parts in (1, 2):
        embedding = make("robe", True)
        build_optimizer(optimizer, embedding, 0.1, in_backward=True)
        ids = ids_for("robe")
        sum(embedding(part).square().sum() for part in ids.chunk(parts)).backward()
        pools.append(next(embedding.parameters()).detach())
    torch.testing.assert_close(*pools, rtol=1e-5, atol=1e-7)


def test_a_pass_that_fails_leaves_nothing_for_the_next() -> None:
    pools = []
    for fails in (False, True):
        embedding = make("robe", True)
        build_optimizer("sgd", embedding, 0.1, in_backward=True)
        ids = ids_for("robe")
        if fails:
            start = torch.zeros(len(ids), 1, 1, requires_grad=True)
            start.register_hook(lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                (embedding(ids) + start.expand(-1, 5, 16)).sum().backward()
        embedding(ids).square().sum().backward()
        pools.append(next(embedding.parameters()).detach())
    assert torch.equal(*pools)


def test_workers_that_average_gradients_get_them() -> None:
    embedding = make("robe", True)
    build_optimizer("sgd", embedding, 0.1)
    embedding(ids_for("robe")).sum().backward()
    assert next(embedding.parameters()).grad is not None


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("team", ["PyTorch's", "own"])
def test_every_part_is_worked_on_once(parts: int, team: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if team == "own":  # where PyTorch's OpenMP is not GNU's
        monkeypatch.setattr("sizewise.embedding.kernels.threads._openmp", lambda: None)
    seen: list[tuple[int, int]] = []
    share_out(10, parts, lambda low, high: seen.append((low, high)))
    assert len(seen) == parts
    assert sorted(n for low, high in seen for n in range(low, high)) == list(range(10))


def test_what_fails_on_a_thread_is_raised() -> None:
    def fail(low: int, high: int) -> None:
        if low:
            raise ValueError(f"{low} to {high}")

    with pytest.raises(ValueError, match="5 to 10"):
        share_out(10, 2, fail)


@pytest.mark.parametrize("case", ["robe", "robe, several blocks", "hash"])
def test_ids_as_shards_hold_them_are_looked_up_as_they_are(case: str) -> None:
    ids = ids_for(case)
    narrow, wide = make(case, True), make(case, True)
    assert narrow.takes_uint32(ids)
    vectors, expected = narrow(ids.to(torch.uint32)), wide(ids)
    assert torch.equal(vectors, expected)
    for looked_up in (vectors, expected):
        looked_up.square().sum().backward()
    ours, theirs = (next(e.parameters()).grad for e in (narrow, wide))
    assert ours is not None
    assert theirs is not None
    assert torch.equal(ours, theirs)


@every_pair(case=CASES, storage=["int4", "int2"], streamed=[False, True])
def test_packed_numbers_are_read_as_the_values_that_they_stand_for(
    case: str, storage: str, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "STREAMED_BYTES", 0 if streamed else 2**40)
    (kind, _, _), ids = CASES[case], ids_for(case)
    bits = {"int4": 4, "int2": 2}[storage]
    embedding = make(case, True)
    pooled = embedding.pooled()
    assert pooled
    table, blocks = pooled
    numbers = table.weight.numel()
    groups = [None, *(group for group in (1, 6, 16, 40) if numbers % group == 0)]
    for group in groups[:1] if kind == "full" else groups:
        codes, scales = quantize(table.weight, bits, group)
        values = dequantize(codes, scales, bits, table.shape, group)
        expected = blocks.lookup(values, ids)
        for count in (1, 3):
            with threads(count):
                assert torch.equal(blocks.lookup_packed(codes, scales, ids, bits, numbers), expected)


@pytest.mark.parametrize("group", ["pool", 40])
def test_scoring_reads_packed_numbers_and_training_goes_on(
    group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = build("robe", CARDINALITIES, 16, 20_000, 3, storage="int4", group=group)
    optimizer = torch.optim.Adagrad(embedding.parameters(), lr=0.1, fused=True)
    read: list[int] = []
    lookup_packed = cpu.Blocks.lookup_packed
    monkeypatch.setattr(
        cpu.Blocks, "lookup_packed", lambda *given: (read.append(1), lookup_packed(*given))[1]
    )
    for count in range(3):
        (embedding(ids_for("robe")) - 1).square().mean().backward()
        optimizer.step()  # which PyTorch's fused steps do not count as a version
        embedding.eval()
        values = embedding(ids_for("robe")).detach()
        with torch.no_grad():
            assert torch.equal(embedding(ids_for("robe")), values)
        assert len(read) == count + 1
        embedding.train()
