"""An embedding in a training loop of PyTorch's own that knows nothing of Sizewise.

What it learns equals a transcription in float64: tables as plain tensors, looked up by index, and the optimizers'
formulas written out. Each loop either does what PyTorch's users expect or raises an error that says what to do.
"""

import copy
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sizewise.embedding import Embedding, build, remaining_parameters, smallest_budget
from sizewise.embedding.in_backward import Applied, is_gradient

CARDINALITIES = [5, 30, 2]
DIM = 8
ROWS = 16
STEPS = 4
CLIP = 0.05
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "full bfloat16": ("full", {"storage": "bfloat16"}),
    "full int8": ("full", {"storage": "int8"}),
    "hash": ("hash", {}),
    "hash bfloat16": ("hash", {"storage": "bfloat16"}),
    "hash int8": ("hash", {"storage": "int8"}),
    "robe": ("robe", {}),
    "robe unaligned": ("robe", {"block_len": 4, "align": 1}),
    "robe ragged": ("robe", {"block_len": 6, "align": 2}),
    "robe sign": ("robe", {"block_len": 4, "sign": True}),
    "robe wrap": ("robe", {"wrap": True}),
    "robe authors": ("robe", {"hash": "authors"}),
    "robe paper": ("robe", {"hash": "paper", "align": 1, "sign": True, "wrap": True}),
    "robe bfloat16": ("robe", {"storage": "bfloat16"}),
    "robe int8": ("robe", {"storage": "int8"}),
    "qr product": ("qr", {}),
    "qr sum": ("qr", {"combine": "sum"}),
    "qr contiguous": ("qr", {"contiguous_ids": True}),
    "tt": ("tt", {"max_rank": 2}),
    "tt contiguous": ("tt", {"contiguous_ids": True, "max_rank": 2}),
    "cce": ("cce", {"clusterings": 0}),
    "cce contiguous": ("cce", {"clusterings": 0, "contiguous_ids": True}),
}
RATES = {"sgd": 0.1, "adagrad": 0.05, "adam": 0.01}
KINDS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
}


class Clicks(nn.Module):
    """Somebody's own model."""

    def __init__(self, case: str) -> None:
        super().__init__()
        method, options = CASES[case]
        budget = smallest_budget(method, CARDINALITIES, DIM, **options)
        budget = budget if method == "full" else max(4_000, budget)
        self.embedding: Embedding = build(method, CARDINALITIES, DIM, budget, 1, **options)
        self.head = nn.Linear(len(CARDINALITIES) * DIM, 1)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(2)
            for parameter in self.head.parameters():
                parameter.normal_(0, 0.5, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(ids).flatten(1)).squeeze(1)
        return out


def batches(case: str, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    method, options = CASES[case]
    contiguous = method == "full" or options.get("contiguous_ids", False)
    limits = CARDINALITIES if contiguous else [2**32] * len(CARDINALITIES)
    out = []
    for _ in range(steps):
        ids = torch.stack([torch.randint(0, n, (ROWS,), generator=generator) for n in limits], dim=1)
        ids[1] = ids[0]  # some come twice in a batch
        out.append((ids, torch.randn(ROWS, generator=generator)))
    return out


class Transcription:
    """The same model in float64, without autograd functions, kernels or optimizers of ours or of PyTorch."""

    def __init__(self, model: Clicks) -> None:
        model.embedding.state_dict()  # rounds values that are stored in fewer bits
        self.embedding = copy.deepcopy(model.embedding).double()
        self.values = {name: p.detach().double().clone() for name, p in model.named_parameters()}
        self.state: dict[str, list[Tensor]] = {
            name: [torch.zeros_like(p) for _ in range(2)] for name, p in self.values.items()
        }
        self.steps = 0
        self.probe = None
        if len(list(self.embedding.parameters())) == 1:
            # A vector is made of numbers of the one table, each perhaps times -1: number them to find where.
            self.probe = copy.deepcopy(self.embedding)
            with torch.no_grad():
                (table,) = self.probe.parameters()
                table.copy_(torch.arange(1.0, table.numel() + 1, dtype=torch.float64).view(table.shape))
                self.probe.fused = False

    def vectors(self, values: dict[str, Tensor], ids: Tensor) -> Tensor:
        tables = [value for name, value in values.items() if name.startswith("embedding.")]
        if self.probe is not None:
            with torch.no_grad():
                (weights,) = self.probe.parameters()
                numbers = probe(self.probe, weights, ids)
            return tables[0].flatten()[numbers.abs().long() - 1] * numbers.sign()
        embedding: Any = self.embedding
        keys = embedding.keys(ids)
        if type(embedding).__name__ == "QuotientRemainder":
            left, right = tables[0][keys % len(tables[0])], tables[1][keys // len(tables[0])]
            return left * right if embedding.combine == "product" else left + right
        if type(embedding).__name__ == "TensorTrain":
            (_, n2, n3), (d1, d2, d3), r = (
                embedding.shape.modes,
                embedding.shape.factors,
                embedding.shape.rank,
            )
            first = tables[0][keys // (n2 * n3)].view(*ids.shape, d1, r)
            middle = tables[1][keys // n3 % n2].view(*ids.shape, r, d2, r)
            last = tables[2][keys % n3].view(*ids.shape, r, d3)
            return torch.einsum("nfar,nfrbs,nfsc->nfabc", first, middle, last).reshape(*ids.shape, DIM)
        rows = embedding.pointers[keys].long() + embedding.starts
        helpers = embedding._slots(embedding.helper_hash, keys) + embedding.starts
        return (tables[0][rows] + tables[1][helpers]).flatten(-2)

    def gradients(self, ids: Tensor, target: Tensor) -> dict[str, Tensor]:
        values = {name: value.clone().requires_grad_() for name, value in self.values.items()}
        hidden = self.vectors(values, ids).flatten(1)
        predicted = hidden @ values["head.weight"].T.squeeze(1) + values["head.bias"]
        ((predicted - target.double()) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        return {name: value.grad for name, value in values.items() if value.grad is not None}

    def step(self, kind: str, gradients: dict[str, Tensor], count: int) -> None:
        rate = RATES[kind]
        for name, g in gradients.items():
            value, (first, second) = self.values[name], self.state[name]
            if kind == "sgd":
                value -= rate * g
            elif kind == "adagrad":
                second += g**2
                value -= rate * g / (second.sqrt() + 1e-10)
            else:
                first += 0.1 * (g - first)
                second += 0.001 * (g**2 - second)
                value -= rate * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)

    def compare(self, model: nn.Module, case: str, kind: str) -> None:
        bits = {"bfloat16": 2**-8, "int8": 2**-6}.get(case.split()[-1], 0.0)
        for name, parameter in model.named_parameters():
            expected = self.values[name.removeprefix("module.").replace("_orig_mod.", "")]
            # Each step's rounding may move a stored number to either neighbour; what it predicts changes with it.
            spacing = bits * float(expected.abs().max()) * (STEPS + 1)
            rounding = (
                0.03 * RATES[kind] if kind == "adam" else 2e-6
            )  # Adam divides small gradients by their size
            torch.testing.assert_close(
                parameter.detach().double(),
                expected,
                rtol=1e-4 if not bits else 0.1,
                atol=rounding + spacing,
                msg=lambda text, n=name: f"{n}: {text}",
            )


def probe(embedding: Embedding, weights: Tensor, ids: Tensor) -> Tensor:
    """Vectors of numbered values, as they are, whatever the storage."""
    table: Any = embedding.pooled() or (getattr(embedding, "pool", None),)
    storage, table[0].storage = table[0].storage, "float32"
    try:
        return embedding(ids)
    finally:
        table[0].storage = storage


def low_precision(case: str) -> bool:
    return CASES[case][1].get("storage", "float32") != "float32"


def loss_of(model: nn.Module, ids: Tensor, target: Tensor) -> Tensor:
    return (model(ids) - target).square().mean()


def halves(ids: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(ids.chunk(2), target.chunk(2), strict=True)


def moved(model: Clicks, like: Transcription) -> None:
    """The tables have learnt something: the comparison is not of initial values."""
    for name, value in Transcription(model).values.items():
        assert not torch.equal(value, like.values[name]), name


@pytest.mark.parametrize("loop", ["zeroed", "set to none", "clipped", "accumulated"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_a_plain_loop_of_torch_optim_learns_what_the_formulas_say(case: str, kind: str, loop: str) -> None:
    model = Clicks(case)
    start, theirs = Transcription(model), Transcription(model)
    optimizer = KINDS[kind](model.parameters(), lr=RATES[kind])  # type: ignore[call-arg]
    for count, (ids, target) in enumerate(batches(case), 1):
        model.zero_grad(set_to_none=loop != "zeroed")
        parts = list(halves(ids, target)) if loop == "accumulated" else [(ids, target)]
        for part in parts:
            (loss_of(model, *part) / len(parts)).backward()  # type: ignore[no-untyped-call]
        gradients = theirs.gradients(ids, target)
        if loop == "clipped":
            norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            expected = torch.cat([g.flatten() for g in gradients.values()]).norm()
            assert float(expected) > CLIP
            torch.testing.assert_close(
                norm.double(), expected, rtol=0.2 if low_precision(case) else 1e-4, atol=0
            )
            gradients = {name: g * CLIP / (expected + 1e-6) for name, g in gradients.items()}
        optimizer.step()
        theirs.step(kind, gradients, count)
    model.eval()
    moved(model, start)
    theirs.compare(model, case, kind)


@pytest.mark.parametrize("accumulated", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_an_embedding_that_steps_in_its_backward_pass_does_so_at_every_one(
    case: str, kind: str, accumulated: bool
) -> None:
    model = Clicks(case)
    start, theirs = Transcription(model), Transcription(model)
    own = model.embedding.optimize_in_backward(KINDS[kind], lr=RATES[kind])
    optimizer = torch.optim.SGD(remaining_parameters(model), lr=RATES["sgd"])
    count = 0
    for ids, target in batches(case):
        model.zero_grad(set_to_none=not accumulated)
        summed: dict[str, Tensor] = {}
        parts = list(halves(ids, target)) if accumulated else [(ids, target)]
        for part in parts:
            gradients = theirs.gradients(*part)
            loss_of(model, *part).backward()  # type: ignore[no-untyped-call]
            count += 1
            theirs.step(kind, {n: g for n, g in gradients.items() if n.startswith("embedding.")}, count)
            for name, gradient in gradients.items():
                if name.startswith("head."):
                    summed[name] = summed.get(name, torch.zeros_like(gradient)) + gradient
        optimizer.step()
        own.step()  # has nothing left to do
        theirs.step("sgd", summed, count)
    assert not any(is_gradient(parameter.grad) for parameter in model.embedding.parameters())
    model.eval()
    moved(model, start)
    theirs.compare(model, case, kind)


@pytest.mark.parametrize("case", ["robe", "hash bfloat16", "qr product", "robe int8"])
@pytest.mark.parametrize("misuse", ["clip", "clip values", "another optimizer", "norm"])
def test_what_would_come_after_the_step_raises_and_says_what_to_do(case: str, misuse: str) -> None:
    model = Clicks(case)
    model.embedding.optimize_in_backward(torch.optim.SGD, lr=0.1)
    everything = torch.optim.SGD(model.parameters(), lr=0.1)
    (ids, target), *_ = batches(case)
    loss_of(model, ids, target).backward()  # type: ignore[no-untyped-call]
    acts: dict[str, Callable[[], object]] = {
        "clip": lambda: nn.utils.clip_grad_norm_(model.parameters(), CLIP),
        "clip values": lambda: nn.utils.clip_grad_value_(model.parameters(), CLIP),
        "another optimizer": everything.step,
        "norm": lambda: [p.grad.norm() for p in model.parameters() if p.grad is not None],
    }
    with pytest.raises(RuntimeError, match=r"remaining_parameters\(model\)"):
        acts[misuse]()
    nn.utils.clip_grad_norm_(remaining_parameters(model), CLIP)
    model.embedding.ordinary_gradients()
    model.zero_grad()
    loss_of(model, ids, target).backward()  # type: ignore[no-untyped-call]
    acts[misuse]()


@pytest.mark.parametrize("case", ["robe", "full bfloat16", "hash int8", "qr sum"])
def test_gradients_that_are_asked_for_are_returned_and_change_nothing(case: str) -> None:
    model, plain = Clicks(case), Clicks(case)
    model.embedding.optimize_in_backward(torch.optim.SGD, lr=0.1)
    (ids, target), *_ = batches(case)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = [torch.autograd.grad(loss_of(m, ids, target), list(m.parameters())) for m in (model, plain)]
    lent = [
        {name: p.detach().clone().requires_grad_() for name, p in m.named_parameters()}
        for m in (model, plain)
    ]
    for m, values in zip((model, plain), lent, strict=True):
        (torch.func.functional_call(m, values, (ids,)) - target).square().mean().backward()
    for ours, theirs in (asked, [[value.grad for value in values.values()] for values in lent]):
        for gradient, expected in zip(ours, theirs, strict=True):
            assert torch.equal(gradient, expected)
    for name, value in model.state_dict().items():  # lent values are rounded, too, which is counted
        assert torch.equal(value, before[name]) or name.endswith("roundings"), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["robe", "full", "qr sum"])
def test_lookups_and_penalties_of_one_loss_are_one_step_by_their_sum(case: str, kind: str) -> None:
    """Two lookups, one of them through plain PyTorch's gradient of the table."""
    results = []
    for in_backward in (True, False):
        model = Clicks(case)
        if in_backward:
            model.embedding.optimize_in_backward(KINDS[kind], lr=RATES[kind])
        else:
            optimizer = KINDS[kind](model.embedding.parameters(), lr=RATES[kind])  # type: ignore[call-arg]
        for (ids, target), (others, _) in zip(batches(case), batches(case)[::-1], strict=True):
            model.zero_grad()
            weights = sum(p.square().sum() for p in model.embedding.parameters())
            loss = loss_of(model, ids, target) + loss_of(model, others, target) + 0.1 * weights
            loss.backward()
            if not in_backward:
                optimizer.step()
        results.append([p.detach() for p in model.embedding.parameters()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=2e-6 if kind != "adam" else 3e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["hash bfloat16", "robe int8", "full int8"])
def test_storage_is_rounded_after_fused_steps_too(case: str, kind: str) -> None:
    """PyTorch's fused optimizers do not count on a tensor's version."""
    results = []
    for fused in (True, False):
        model = Clicks(case)
        optimizer = KINDS[kind](model.parameters(), lr=RATES[kind], fused=fused)  # type: ignore[call-arg]
        for ids, target in batches(case):
            optimizer.zero_grad()
            loss_of(model, ids, target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        vectors = model.embedding(batches(case)[0][0]).detach()
        stored = Clicks(case)
        stored.load_state_dict(model.state_dict())
        assert torch.equal(stored.embedding(batches(case)[0][0]), vectors)
        results.append(vectors)
    torch.testing.assert_close(*results, rtol=0.1, atol=0.1 * float(results[1].abs().max()))


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_deep_copy_trains_by_itself_and_like_the_original(case: str, in_backward: bool) -> None:
    model = Clicks(case)
    if in_backward:
        model.embedding.optimize_in_backward(torch.optim.Adagrad, lr=0.05)
    run(model, batches(case))
    twin = copy.deepcopy(model)
    assert (twin.embedding.optimizer is not None) == in_backward
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(twin, batches(case))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    run(model, batches(case))
    for name, value in model.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value), name
    assert not torch.equal(model.head.weight, before["head.weight"])


def run(model: Clicks, rows: list[tuple[Tensor, Tensor]]) -> None:
    """Some steps of SGD, of everything that the embedding does not step by itself."""
    optimizer = torch.optim.SGD(remaining_parameters(model), lr=0.1)
    for ids, target in rows:
        model.zero_grad()
        loss_of(model, ids, target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_from_state_dicts_to_the_same_bits(case: str, kind: str) -> None:
    model = Clicks(case)
    own = model.embedding.optimize_in_backward(KINDS[kind], lr=RATES[kind])
    run(model, batches(case))
    other = Clicks(case)
    optimizer = other.embedding.optimize_in_backward(KINDS[kind], lr=RATES[kind])
    other.load_state_dict(model.state_dict())
    optimizer.load_state_dict(copy.deepcopy(own.state_dict()))  # which would be shared
    for trained in (model, other):
        run(trained, batches(case))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    # What plain torch.optim saves has the same form, and takes it.
    plain = KINDS[kind](Clicks(case).embedding.parameters(), lr=RATES[kind])  # type: ignore[call-arg]
    plain.load_state_dict(own.state_dict())


def test_learning_rates_are_scheduled_as_ever() -> None:
    model = Clicks("robe")
    optimizer = model.embedding.optimize_in_backward(torch.optim.SGD, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    before = next(model.embedding.parameters()).detach().clone()
    run(model, batches("robe")[:1])
    after = next(model.embedding.parameters()).detach().clone()
    assert not torch.equal(before, after)
    schedule.step()
    run(model, batches("robe"))
    assert torch.equal(next(model.embedding.parameters()), after)


@pytest.mark.parametrize("case", ["robe", "robe int8", "qr sum"])
def test_a_model_that_nobody_has_is_gone_at_once(case: str) -> None:
    """With its tables, which may be large, and without waiting for Python to look for cycles."""
    model = Clicks(case)
    model.embedding.optimize_in_backward(torch.optim.Adagrad, lr=0.1)
    run(model, batches(case))
    left = [weakref.ref(p) for p in model.parameters()] + [weakref.ref(m) for m in model.modules()]
    gc.disable()
    try:
        del model
        assert [reference() for reference in left if reference() is not None] == []
    finally:
        gc.enable()


def test_a_model_that_moves_leaves_no_marks_behind() -> None:
    model = Clicks("robe")
    model.embedding.optimize_in_backward(torch.optim.SGD, lr=1.0)
    run(model, batches("robe")[:1])
    assert isinstance(next(model.embedding.parameters()).grad, Applied)
    model.double().float()
    run(model, batches("robe")[:1])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_exported_programs_take_int64_ids_of_any_number(case: str) -> None:
    model = Clicks(case)
    run(model, batches(case))
    if low_precision(case):
        with pytest.raises(RuntimeError, match=r"call eval\(\) before torch.export"):
            torch.export.export(model, (batches(case)[0][0],))
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(model.eval(), (batches(case)[0][0],), dynamic_shapes={"ids": {0: rows}})
    ids = torch.cat([ids for ids, _ in batches(case)])
    with torch.no_grad():
        torch.testing.assert_close(program.module()(ids), model(ids), rtol=1e-5, atol=1e-6)
    if CASES[case][0] == "full":  # the check is outside of traced code, and still there
        with pytest.raises(ValueError, match="its cardinality is"):
            model(ids + 1000)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["head", "model"])
@pytest.mark.parametrize("case", ["robe", "robe paper", "full", "qr product", "tt", "cce", "hash bfloat16"])
def test_compiled_parts_learn_what_the_formulas_say(case: str, part: str) -> None:
    torch.compiler.reset()
    model = Clicks(case)
    theirs = Transcription(model)
    compiled: Any = model
    if part == "head":
        model.head = torch.compile(model.head, backend="aot_eager")  # type: ignore[assignment]
    else:
        compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=RATES["sgd"])
    for count, (ids, target) in enumerate(batches(case), 1):
        model.zero_grad()
        loss_of(compiled, ids, target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        theirs.step("sgd", theirs.gradients(ids, target), count)
    model.eval()
    theirs.compare(model, case, "sgd")


@pytest.mark.slow
def test_two_data_parallel_processes_learn_what_one_does(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path / "meet")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(rank)], **pipes) for rank in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert outputs[0].splitlines()[-1] == f"{len(CASES)} cases"


def data_parallel(meeting: str, rank: int) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    for case in CASES:
        model = Clicks(case)
        theirs = Transcription(model)
        parallel = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.Adagrad(parallel.parameters(), lr=RATES["adagrad"])
        for count, (ids, target) in enumerate(batches(case), 1):
            parallel.zero_grad()
            loss_of(parallel, *list(halves(ids, target))[rank]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            theirs.step("adagrad", theirs.gradients(ids, target), count)
        parallel.eval()
        theirs.compare(parallel, case, "adagrad")
    model.embedding.optimize_in_backward(torch.optim.SGD, lr=0.1)
    with pytest.raises(RuntimeError, match=r"several processes: call its ordinary_gradients\(\)"):
        parallel(ids)
    print(f"{len(CASES)} cases")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    data_parallel(sys.argv[1], int(sys.argv[2]))
