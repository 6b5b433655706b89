"""`python -m benchmarks.opponents`: what opponents are made of, how many bytes they ship, how validation chooses."""

import pytest
import torch
from benchmarks.opponents import __main__ as program
from benchmarks.opponents.alpt import Alpt
from benchmarks.opponents.arms import OPPONENTS, made, spec_of
from benchmarks.opponents.cafe import SLOTS, Cafe
from benchmarks.quality.rows import load
from benchmarks.scale.runs import Training
from benchmarks.scale.table import Record, Result

from sizewise.embedding import full_bytes

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("opponent", list(OPPONENTS))
def test_every_opponent_takes_its_bytes_and_learns(opponent: str) -> None:
    data, _ = load("planted", 6000, 1, CPU)
    budget = full_bytes(data.values.cardinalities, 16) // 100
    for setting in OPPONENTS[opponent]:
        method = made(spec_of(opponent, setting, 100), data.values, 1, CPU)
        assert 0.9 * budget < method.shipped_bytes <= budget
        before = [piece.clone() for piece in method.pieces()]
        model = method.model()
        optimizer = torch.optim.Adagrad(model.parameters(), lr=0.02)
        model(data.train.dense[:64].float(), method.ids(data.train.ids[:64])).sum().backward()
        optimizer.step()
        pairs = zip(before, method.pieces(), strict=True)
        assert any(not torch.equal(one, other) for one, other in pairs)
        with torch.no_grad():
            assert method.embedding(method.ids(data.test.ids[:3])).shape == (3, 26, 16)


@pytest.mark.slow
def test_what_cafe_sees_often_gets_a_row_of_its_own() -> None:
    embedding = Cafe([1000, 1000], 4, buckets=2, shared=8, seed=1)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.0)
    for step in range(30):
        ids = torch.tensor([[7, 7], [7, 100 + step], [7, 300 + step]])
        embedding(ids).sum().backward()
        # Only what a step has touched is stepped: SGD keeps no state, so the sketch is told directly.
        embedding.take(optimizer)
    assert 7 in embedding.keys  # of feature 0, in every row
    row = int(torch.tensor(embedding.keys.ravel() == 7).nonzero())
    with torch.no_grad():
        vector = embedding(torch.tensor([[7, 7]]))[0, 0]
    assert torch.equal(vector, embedding.own[row])
    assert len(embedding.own) == 2 * SLOTS


def test_numbers_of_alpt_are_always_codes_times_steps() -> None:
    embedding = Alpt([50], 4, rows=10, bits=4, seed=1)
    optimizer = torch.optim.Adagrad(embedding.parameters(), lr=0.05)
    for _ in range(5):
        embedding(torch.arange(20).unsqueeze(1)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    codes = embedding.values / embedding.log_steps.exp().bfloat16().float()
    assert torch.allclose(codes, codes.round(), atol=1e-3)
    assert -8 <= float(codes.min()) <= float(codes.max()) <= 7


def test_the_first_seeds_validation_chooses_the_setting() -> None:
    record = Record(None)
    for setting, validation, test in (("sum", 0.75, 0.70), ("product", 0.74, 0.80)):
        spec = spec_of("qr", setting, 100)
        key = Training(spec, epochs=2, seed=1).key
        record.add(
            Result(key, spec.name, 100, 1, 0, 0.02, False, 512, 10, 2, 100, 1.0, validation, test, 0.5, test)
        )
    found = program.chosen(record, program.specs_of("qr", 100), seeds=1)
    assert found is not None
    assert found.test == [0.70]
    assert "| qr |" in program.table(record, seeds=1)
