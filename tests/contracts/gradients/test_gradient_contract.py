"""An embedding in a training loop of PyTorch's own that knows nothing of Sizewise.

What it learns equals a transcription in float64 (`clicks`). Each loop either does what PyTorch's users expect or
raises an error that says what to do.
"""

import copy
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contracts.gradients.clicks import (
    CASES,
    RATES,
    Clicks,
    Transcription,
    batches,
    halves,
    loss_of,
    low_precision,
)
from tests.contracts.gradients.data_parallel import TRAINED
from torch import Tensor, nn

from pairwise import every_pair
from sizewise.embedding import remaining_parameters
from sizewise.embedding.in_backward import Applied, is_gradient

ROOT = Path(__file__).parents[3]
CLIP = 0.05
KINDS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
}


def moved(model: Clicks, like: Transcription) -> None:
    """The tables have learnt something: the comparison is not of initial values."""
    for name, value in Transcription(model).values.items():
        assert not torch.equal(value, like.values[name]), name


@every_pair(case=CASES, kind=KINDS, loop=["zeroed", "set to none", "clipped", "accumulated"])
def test_a_plain_loop_of_torch_optim_learns_what_the_formulas_say(case: str, kind: str, loop: str) -> None:
    """Every embedding with every optimizer and in every loop, every optimizer in every loop."""
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


@every_pair(case=CASES, kind=KINDS, accumulated=[False, True])
def test_an_embedding_that_steps_in_its_backward_pass_does_so_at_every_one(
    case: str, kind: str, accumulated: bool
) -> None:
    """Every embedding with every optimizer, and both with gradients of one and of two parts of a batch."""
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


# One of each method and of each form of storage; exports of all that can be searched: tests/sizewise/export.
@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    ["full", "hash bfloat16", "robe paper", "robe int8", "qr int4", "tt contiguous", "cce", "hot pool"],
)
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
@pytest.mark.parametrize(
    ("case", "part"),
    [
        *(("robe", "head"), ("robe", "model"), ("robe paper", "model"), ("full", "model")),
        *(("qr product", "model"), ("tt", "model"), ("cce", "model"), ("hash bfloat16", "head")),
    ],
)
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
    command = [sys.executable, "-m", "tests.contracts.gradients.data_parallel", str(tmp_path / "meet")]
    pipes: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        # Named, because other tests may have had processes leave their working folder out of what they import.
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", *sys.path)))},
    }
    processes = [subprocess.Popen([*command, str(rank)], **pipes) for rank in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert all(f"{len(TRAINED)} cases" in output.splitlines() for output in outputs), outputs
