"""Models trained through the Triton kernels, as on a GPU: in the interpreter, beside the same models without them.

`fused.TRITON_ON` decides which tensors go to these kernels; with `cpu` in it everything runs here but the hardware.
"""

from typing import Any

import numpy as np
import pytest
import torch

from sizewise.embedding import Embedding, build, fused
from sizewise.embedding.ids.counts import FeatureCounts
from sizewise.embedding.in_backward import InBackward, is_gradient
from sizewise.embedding.methods.hot import Hot
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batches import Batch
from sizewise.training.loop import predict
from sizewise.training.steps.optimizers import build_optimizer
from sizewise.training.steps.step import Step
from sizewise_core.errors import InputError

pytest.importorskip("triton", reason="Triton is not installed: pip install sizewise[gpu]")

CPU = torch.device("cpu")
CARDINALITIES = [1, 7, 300, 2]
ROWS = 8
SMALL, LARGE = 1_200, 40_000  # bytes: less and more than the 8 x 4 x 16 numbers that a batch reads

CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "robe, small pool": ("robe", 16, SMALL, {}),
    "robe, large pool": ("robe", 16, LARGE, {}),
    "robe, sign, several blocks": ("robe", 16, LARGE, {"block_len": 4, "sign": True}),
    "robe, unaligned, shared": ("robe", 10, SMALL, {"block_len": 5, "align": 1, "feature_term": False}),
    "robe, dim of 7": ("robe", 7, LARGE, {"block_len": 2}),
    "hash": ("hash", 16, SMALL, {}),
    "full": ("full", 16, 4 * 16 * sum(CARDINALITIES), {}),
    "hash, narrow": ("hash", 16, SMALL, {"width": 2}),
    "hot": ("hot", 16, LARGE // 4, {"width": 16}),
    "hot, narrow": ("hot", 16, SMALL // 2, {"width": 1}),
}
# What no GPU kernel covers goes the plain way, or half of it.
FALLBACKS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "robe, wrap": ("robe", 8, SMALL, {"wrap": True}),
    "robe, authors' hash": ("robe", 8, SMALL, {"hash": "authors"}),
    "robe, int8": ("robe", 8, SMALL, {"storage": "int8"}),
    "qr": ("qr", 8, 4_000, {}),
    "tt": ("tt", 8, 4_000, {}),
}


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "TRITON_ON", {"cuda", "cpu"})


def make(case: str, use: bool, **options: Any) -> Embedding:
    method, dim, budget, given = {**CASES, **FALLBACKS}[case]
    embedding = build(method, CARDINALITIES, dim, budget, 3, **{**given, **options})
    embedding.fused = use
    if isinstance(embedding, Hot):
        values = [np.arange(0, n, 2, dtype=np.uint32) for n in CARDINALITIES]
        embedding.assign_rows([FeatureCounts(ids, ids.astype(np.int64) + 1) for ids in values])
    return embedding


def batch(case: str, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    limits = CARDINALITIES if case.startswith(("full", "hot")) else [2**32] * len(CARDINALITIES)
    ids = torch.stack([torch.randint(0, n, (ROWS,), generator=generator) for n in limits], dim=1)
    ids[1] = ids[0]  # some come twice
    label = (torch.rand(ROWS, generator=generator) < 0.4).float()
    return Batch(torch.randn(ROWS, 3, generator=generator), ids, label)


def trained(
    case: str, optimizer: str, use: bool, precision: Any = "float32", **options: Any
) -> tuple[DLRM, torch.optim.Optimizer]:
    model = DLRM(make(case, use, **options), 3, [8], [8], precision=precision)
    with torch.no_grad():
        next(model.embedding.parameters()).mul_(30)  # so that the interaction matters
    stepper = build_optimizer(optimizer, model, 0.05, in_backward=True)
    step = Step(model, stepper, ROWS, CPU)
    for number in range(3):
        step(batch(case, number), ROWS)
    return model, stepper


def assert_same(ours: DLRM, theirs: DLRM, tolerance: float = 2e-5) -> None:
    for (name, value), twin in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        scale = float(twin.detach().abs().max())
        torch.testing.assert_close(
            value.detach(),
            twin.detach(),
            rtol=0,
            atol=tolerance * scale,
            msg=lambda text, n=name: f"{n}: {text}",
        )


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(
    ("case", "optimizer"),
    [*((c, o) for c in CASES for o in ("sgd", "adagrad")), ("robe, large pool", "adam")],
)
def test_models_train_to_the_same_parameters(case: str, optimizer: str) -> None:
    """As those that look up and interact in PyTorch, within 2e-5 of the greatest value; the state as well."""
    ours, our_steps = trained(case, optimizer, True)
    theirs, their_steps = trained(case, optimizer, False)
    tolerance = 2e-3 if optimizer == "adam" else 2e-5  # Adam divides small gradients by their own size
    assert_same(ours, theirs, tolerance)
    state, twin = our_steps.state_dict()["state"], their_steps.state_dict()["state"]
    assert state.keys() == twin.keys()
    for key, values in twin.items():
        for name, value in values.items():
            torch.testing.assert_close(state[key][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("case", FALLBACKS)
def test_what_no_kernel_covers_trains_the_plain_way(case: str) -> None:
    ours, _ = trained(case, "adagrad", True)
    theirs, _ = trained(case, "adagrad", False)
    assert_same(
        ours, theirs, 0.02 if case == "robe, int8" else 2e-5
    )  # a step of int8 may round the other way


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("case", ["robe, small pool", "robe, large pool"])
def test_bfloat16_storage_is_rounded_on_the_device(case: str, optimizer: str) -> None:
    ours, _ = trained(case, optimizer, True, storage="bfloat16")
    pool = next(ours.embedding.parameters()).detach()
    assert torch.equal(pool, pool.to(torch.bfloat16).float())
    theirs, _ = trained(case, optimizer, False, storage="bfloat16")
    theirs(*batch(case, 9).tensors()[:2])  # the plain way rounds when a table is read
    assert_same(ours, theirs, 2**-7)
    assert int(ours.embedding.pool.roundings) == int(theirs.embedding.pool.roundings)


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("case", ["robe, small pool", "robe, large pool", "full"])
def test_bfloat16_mlps_around_the_kernels(case: str) -> None:
    """Within 3 %: bfloat16 keeps eight bits of every factor."""
    ours, _ = trained(case, "sgd", True, precision="bfloat16")
    theirs, _ = trained(case, "sgd", False)
    assert_same(ours, theirs, 0.03)


def test_vectors_are_in_memory_only_where_a_batch_reads_less_than_the_pool(
    monkeypatch: pytest.MonkeyPatch, triton: None
) -> None:
    """A small pool is stepped by sums of its own size; a large one by gradients of vectors. Neither has a gradient."""
    for case, summed in (("robe, small pool", True), ("robe, large pool", False)):
        embedding = make(case, True)
        model = DLRM(embedding, 3, [8], [8])
        build_optimizer("sgd", model, 0.1, in_backward=True)
        called: list[str] = []
        put_off: list[torch.Tensor | None] = []
        finish = InBackward.put_off

        def note(self: Any, table: Any, pending: Any, o: Any = put_off, f: Any = finish) -> None:
            o.append(pending.gradient)
            f(self, table, pending)

        monkeypatch.setattr(InBackward, "put_off", note)
        monkeypatch.setattr(Embedding, "forward", lambda *_, c=called: c.append("looked up"))
        rows = batch(case, 0)
        model(rows.dense, rows.ids).sum().backward()
        monkeypatch.undo()
        monkeypatch.setattr(fused, "TRITON_ON", {"cuda", "cpu"})
        assert called == []
        table, _ = embedding.pooled()  # type: ignore[misc]
        assert not is_gradient(table.weight.grad)
        (gradient,) = put_off
        assert (gradient is None) == summed
        if gradient is not None:
            assert gradient.shape == (ROWS, 4, 16)
        assert not table.sums().any()


@pytest.mark.usefixtures("triton")
def test_gradients_of_a_pass_add_up_and_those_of_one_that_failed_are_forgotten() -> None:
    pools = []
    for fails in (False, True):
        embedding = make("robe, small pool", True)
        build_optimizer("adagrad", embedding, 0.1, in_backward=True)
        rows = batch("robe, small pool", 0)
        if fails:
            start = torch.zeros(ROWS, 1, 1, requires_grad=True)
            start.register_hook(lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                (embedding(rows.ids) + start.expand(-1, 4, 16)).sum().backward()
        sum(embedding(part).square().sum() for part in rows.ids.chunk(2 if fails else 1)).backward()
        pools.append(next(embedding.parameters()).detach())
    torch.testing.assert_close(*pools, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("triton")
def test_workers_that_average_gradients_get_them() -> None:
    gradients = []
    for use in (True, False):
        model = DLRM(make("robe, small pool", use), 3, [8], [8])
        build_optimizer("sgd", model, 0.1)
        rows = batch("robe, small pool", 0)
        model(rows.dense, rows.ids).sum().backward()
        gradients.append(next(model.embedding.parameters()).grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("triton")
def test_scores_are_those_of_the_plain_model_and_so_are_its_weights() -> None:
    """A checkpoint knows nothing of kernels: what they trained, anything loads."""
    ours, _ = trained("robe, large pool", "sgd", True)
    theirs = DLRM(make("robe, large pool", False), 3, [8], [8])
    theirs.load_state_dict(ours.state_dict())
    rows = [batch("robe, large pool", seed) for seed in (20, 21)]
    for value, twin in zip(predict(ours, rows, CPU), predict(theirs, rows, CPU), strict=True):
        torch.testing.assert_close(torch.from_numpy(value), torch.from_numpy(twin), rtol=1e-5, atol=1e-5)


def test_ids_beyond_full_tables_are_told_of_when_somebody_waits_for_the_device() -> None:
    """On a GPU no step waits to check them: the greatest are kept, and looked at with the next evaluation."""
    embedding = make("full", True)
    ids = batch("full", 0).ids
    embedding.keys.note(ids)  # what `check` does there
    embedding.verify()
    ids[3, 2] = 300
    embedding.keys.note(ids)
    with pytest.raises(InputError, match="feature 2 has id 300, but its cardinality is 300"):
        embedding.verify()


def test_a_forward_asks_the_device_nothing() -> None:
    """With fake tensors that claim to be on a GPU, whatever waits for a value raises."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    model = DLRM(make("full", False), 3, [8], [8])
    gpu = torch.device("cuda")
    with FakeTensorMode():
        for module in model.modules():
            for kept in (module._parameters, module._buffers):
                for name, value in kept.items():
                    if value is not None:
                        fake = torch.empty(value.shape, dtype=value.dtype, device=gpu)
                        kept[name] = torch.nn.Parameter(fake) if kept is module._parameters else fake
        rows = batch("full", 0)
        columns = rows.changed(lambda value: torch.empty(value.shape, dtype=value.dtype, device=gpu))
        with torch.no_grad():
            logits = model(columns.dense, columns.ids)
        assert logits.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):  # the check can fail
            bool((logits > 0).any())
