"""The search: what it asks for, and that an interrupted one goes on as if it had not been."""

from pathlib import Path
from typing import Any

import pytest

from sizewise import config as study_file
from sizewise.config import StudySpec
from sizewise.embedding import full_bytes
from sizewise.search.suggest import Search
from sizewise.store.trials.ledger import Ledger, Record
from sizewise_prep.shards.manifest import Manifest


def make_spec(shards: Path, **changes: Any) -> StudySpec:
    raw = {
        "name": "search",
        "data": str(shards),
        "search": {"memory_budget": {"low": "1000x", "high": "1x"}, "epochs": {"low": 1, "high": 4}},
        "trials": 24,
        "seed": 7,
        **changes,
    }
    return study_file.resolve(StudySpec.model_validate(raw), Manifest.load(shards), "test")


def search_in(folder: Path, spec: StudySpec, shards: Path) -> Search:
    tables = full_bytes(Manifest.load(shards).cardinalities, spec.model.largest_dim)
    return Search(spec, Ledger(folder), tables)


def evaluations(record: Record) -> list[dict[str, Any]]:
    """A made-up but lawful outcome: larger models and more epochs score higher."""
    size, epochs = record.config["memory_budget"], record.config["epochs"]
    auc = 0.6 + 0.01 * size**0.1 + 0.01 * epochs - 0.1 * abs(record.config["learning_rate"] - 0.02)
    return [{"iteration": 100 * epochs, "auc": auc, "embedding_bytes": size, "model_bytes": size + 1}]


def run_to_end(search: Search) -> list[dict[str, Any]]:
    while search.remaining:
        record = search.ask()
        search.finish(record.trial_id, evaluations(record))
    return [search.records[number].params for number in sorted(search.records)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("killed_after", [0, 1, 13])
def test_an_interrupted_search_asks_what_the_calm_one_asks(
    shards: Path, tmp_path: Path, sampler: str, killed_after: int
) -> None:
    spec = make_spec(shards, sampler=sampler)
    calm = run_to_end(search_in(tmp_path / "calm", spec, shards))
    interrupted = search_in(tmp_path / "killed", spec, shards)
    for _ in range(killed_after):
        record = interrupted.ask()
        interrupted.finish(record.trial_id, evaluations(record))
    interrupted.ask()  # opened, never closed: the driver dies here
    resumed = search_in(tmp_path / "killed", spec, shards)
    assert resumed.remaining == 24 - killed_after
    assert run_to_end(resumed) == calm
    assert len(calm) == 24


def test_tpe_learns_from_what_the_ledger_holds(shards: Path, tmp_path: Path) -> None:
    """A search that was told otherwise before it stopped suggests otherwise after."""
    spec = make_spec(shards)
    suggestions = []
    for name, sign in (("good", 1), ("bad", -1)):
        search = search_in(tmp_path / name, spec, shards)
        for _ in range(20):
            record = search.ask()
            rows = evaluations(record)
            rows[0]["auc"] *= sign
            search.finish(record.trial_id, rows)
        suggestions.append(search_in(tmp_path / name, spec, shards).ask().params)
    assert suggestions[0] != suggestions[1]


def test_first_trials_come_first_and_what_they_leave_open_is_sampled(shards: Path, tmp_path: Path) -> None:
    spec = make_spec(
        shards, first_trials=[{"memory_budget": "10x", "epochs": 3}, {"learning_rate": 0.05}], trials=3
    )
    search = search_in(tmp_path, spec, shards)
    first, second, third = (search.ask() for _ in range(3))
    assert (first.params["memory_budget"], first.params["epochs"]) == (search.full_bytes // 10, 3)
    assert second.params["learning_rate"] == 0.05
    assert len({record.params["learning_rate"] for record in (first, second, third)}) == 3


def test_options_of_another_method_are_not_asked_for(shards: Path, tmp_path: Path) -> None:
    spec = make_spec(
        shards,
        embedding={
            "method": {"choices": ["robe", "hash"]},
            "block_len": {"choices": [4, 16]},
        },
        sampler="random",
    )
    search = search_in(tmp_path, spec, shards)
    records = [search.ask() for _ in range(20)]
    assert {record.config["method"] for record in records} == {"robe", "hash"}
    for record in records:
        assert ("block_len" in record.params) == (record.config["method"] == "robe")
    run_to_end(search_in(tmp_path, spec, shards))


def test_a_failed_trial_counts_and_teaches_nothing(shards: Path, tmp_path: Path) -> None:
    spec = make_spec(shards, trials=2)
    search = search_in(tmp_path, spec, shards)
    record = search.fail(search.ask().trial_id, "out of memory")
    assert (record.state, record.error, record.values) == ("failed", "out of memory", None)
    undefined = search.ask()
    rows = [{**evaluations(undefined)[0], "auc": float("nan")}]
    closed = search.finish(undefined.trial_id, rows)
    assert (closed.state, closed.error) == ("failed", "auc undefined in every evaluation")
    assert search.remaining == 0
    assert search_in(tmp_path, spec, shards).remaining == 0


def test_a_trial_is_worth_its_best_evaluation(shards: Path, tmp_path: Path) -> None:
    search = search_in(tmp_path, make_spec(shards), shards)
    record = search.ask()
    row = evaluations(record)[0]
    rows = [{**row, "iteration": n, "auc": auc} for n, auc in ((10, 0.6), (20, 0.7), (30, 0.65))]
    values = search.finish(record.trial_id, rows).values
    assert values is not None
    assert (values["auc"], values["iterations"]) == (0.7, 20)


def test_a_damaged_record_is_asked_for_again(shards: Path, tmp_path: Path) -> None:
    spec = make_spec(shards, trials=6)
    calm = run_to_end(search_in(tmp_path, spec, shards))
    (tmp_path / "trials" / "0002.json").write_text("")
    search = search_in(tmp_path, spec, shards)
    assert search.remaining == 1
    assert search.ask().trial_id == 2
    assert len(calm) == 6
