"""A trained model rounded to fewer bits, for a while or for good; what it was stays as it was."""

import copy

import pytest
import torch

from sizewise.embedding import build, smallest_budget
from sizewise.embedding.storage.quantization import rounded
from sizewise.embedding.storage.rounding import Packed, learn_steps, round_tables, rounds, stored_as
from sizewise.embedding.storage.table import Table

CARDINALITIES = [5, 30, 200]
METHODS = ["full", "hash", "robe", "qr", "tt", "cce"]


def made(method: str, **options: object) -> torch.nn.Module:
    budget = max(20_000, smallest_budget(method, CARDINALITIES, 8, **options))
    return build(method, CARDINALITIES, 8, budget, 1, **options)


@pytest.mark.parametrize("storage", ["bfloat16", "int8", "int4", "int2"])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_rounded_for_a_while_or_for_good(method: str, storage: str) -> None:
    embedding = made(method)
    optimizer = torch.optim.Adagrad(embedding.parameters(), lr=0.05)
    ids = torch.tensor([[1, 2, 3], [4, 20, 100]])
    (embedding(ids) - 1).square().sum().backward()
    optimizer.step()
    trained = embedding(ids).detach()
    before, size = copy.deepcopy(embedding.state_dict()), embedding.embedding_bytes
    tables = [module for module in embedding.modules() if isinstance(module, Table)]
    values = []
    for table in tables:
        center = table.center if storage in ("int4", "int2") else 0.0
        values.append(rounded(table.weight - center, storage) + center)
    with stored_as(embedding, storage), torch.no_grad():
        assert [module.storage for module in embedding.modules() if isinstance(module, Table)] == [
            storage
        ] * len(tables)
        found = [module() for module in embedding.modules() if isinstance(module, Table)]
        assert all(torch.equal(one, other) for one, other in zip(found, values, strict=True))
        vectors, smaller = embedding(ids), embedding.embedding_bytes
    assert smaller < size
    assert not torch.equal(vectors, trained)
    assert [module for module in embedding.modules() if isinstance(module, Table)] == tables
    assert all(torch.equal(value, before[name]) for name, value in embedding.state_dict().items())
    optimizer.step()  # goes on with the tables that it knows
    assert not torch.equal(embedding(ids), trained)
    embedding.load_state_dict(before)
    round_tables(embedding, storage)
    assert not rounds(embedding)
    with torch.no_grad():
        assert torch.equal(embedding(ids), vectors)


def test_tables_that_are_stored_in_fewer_bits_already_are_left_alone() -> None:
    embedding = made("robe", storage="int8")
    assert not rounds(embedding)
    table = embedding.pool
    with stored_as(embedding, "int4"):
        assert embedding.pool is table


def test_a_failure_while_it_is_rounded_leaves_the_model_as_it_was() -> None:
    embedding = made("robe")
    table = embedding.pool

    def fail() -> None:
        with stored_as(embedding, "int4"):
            assert embedding.pool is not table
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert embedding.pool is table


@pytest.mark.parametrize("storage", ["int4", "int2"])
def test_a_trained_float32_table_goes_on_in_few_bits_from_its_own_numbers(storage: Packed) -> None:
    embedding = build("hash", [500] * 3, 16, 16_000, seed=1)
    ids = torch.randint(0, 500, (64, 3), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        embedding.table.weight.mul_(40)
        before, numbers = embedding(ids), embedding.table.weight.clone()
    with stored_as(embedding, storage):
        rounded_bytes, rounded_values = embedding.embedding_bytes, embedding(ids).detach()
    learn_steps(embedding, storage)
    assert torch.equal(embedding.table.weight, numbers)  # nothing of the numbers is lost to the rounding
    assert torch.equal(embedding(ids).detach(), rounded_values)
    assert not torch.equal(rounded_values, before)
    assert embedding.embedding_bytes == rounded_bytes
    optimizer = torch.optim.Adagrad(embedding.parameters(), lr=0.02)
    step = embedding.table.log_steps.detach().clone()
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        (loss := (embedding(ids) - before - 0.2).square().mean()).backward()
        optimizer.step()
        losses.append(loss.item())
    assert not torch.equal(embedding.table.log_steps, step)
    assert losses[-1] < losses[0]
