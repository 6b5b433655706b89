"""What every sampler promises, driven through the real engine on simulated learning curves."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sizewise.config import StudySpec
from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.simulated import Generated, simulate, simulated_engine

CURVES = Generated(iterations_per_epoch=20)
SAMPLERS = ["tpe", "nsgaii", "nsgaiii", "gp", "random", "qmc", "grid"]
# GP's own model begins after 10 trials, and a suggestion of its takes a second; NSGA's second generation after 50.
TRIALS = {"gp": 12, "nsgaii": 56, "nsgaiii": 56, "tpe": 24}
SEARCH = {
    "memory_budget": {"low": 2_000, "high": 20_000_000},
    "learning_rate": {"low": 0.003, "high": 0.3, "log": True},
    "epochs": {"low": 1, "high": 3},
}
FINITE = {
    "memory_budget": {"choices": [2_000, 20_000, 200_000]},
    "learning_rate": {"choices": [0.01, 0.05]},
    "epochs": {"low": 1, "high": 3},
}
CONDITIONAL = {"method": {"choices": ["hash", "robe"]}, "block_len": {"choices": [8, 16]}}


def make_spec(sampler: str, **changes: Any) -> StudySpec:
    raw = {
        "name": "contract",
        "data": "none",
        "embedding": {"method": "robe"},
        "search": FINITE if sampler == "grid" else SEARCH,
        "sampler": sampler,
        "trials": TRIALS.get(sampler, 16),
        "seed": 3,
        **changes,
    }
    return StudySpec.model_validate(raw)


def suggestions(engine: Engine) -> list[dict[str, Any]]:
    return [record.params for _, record in sorted(engine.search.records.items())]


def values(engine: Engine) -> list[Any]:
    return [(r.state, r.values, r.reason) for _, r in sorted(engine.search.records.items())]


def study(spec: StudySpec, folder: Path | None = None, **search: Any) -> Engine:
    """A whole study, one trial at a time."""
    engine = simulated_engine(spec, CURVES, folder, **search)
    simulate(engine, CURVES)
    assert engine.remaining == 0
    return engine


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_decides_every_suggestion(sampler: str) -> None:
    one, same = study(make_spec(sampler)), study(make_spec(sampler))
    assert suggestions(one) == suggestions(same)
    # Another seed, over as few trials as show it: the first suggestions.
    other = study(make_spec(sampler, seed=4, trials=4))
    assert suggestions(other) != suggestions(one)[:4]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_resumed_search_goes_on_as_if_nothing_had_happened(sampler: str, tmp_path: Path) -> None:
    spec = make_spec(sampler, embedding=CONDITIONAL, pruning={"grace": 0.5})
    calm = study(spec)
    # Killed in the middle of three different trials, one of them in the sampler's later phase.
    for killed_after in (1, spec.trials // 3, spec.trials - 2):
        engine = simulated_engine(spec, CURVES, tmp_path)
        closed = sum(r.state != "running" for r in engine.search.records.values())
        simulate(engine, CURVES, trials=max(killed_after - closed, 1))
        engine.next_trial()  # opened, never closed
    resumed = study(spec, tmp_path)
    assert suggestions(resumed) == suggestions(calm)
    assert values(resumed) == values(calm)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_window_is_resumed_as_exactly(sampler: str, tmp_path: Path) -> None:
    spec = make_spec(sampler)
    calm = study(spec, window=5)
    simulate(simulated_engine(spec, CURVES, tmp_path, window=5), CURVES, trials=11)
    resumed = study(spec, tmp_path, window=5)
    assert suggestions(resumed) == suggestions(calm)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_option_is_asked_for_only_where_its_method_was_chosen(sampler: str) -> None:
    engine = study(make_spec(sampler, embedding=CONDITIONAL))
    records = engine.search.records.values()
    assert {record.config["method"] for record in records} == {"hash", "robe"}
    for record in records:
        assert ("block_len" in record.config) == (record.config["method"] == "robe")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_first_trials_come_first(sampler: str) -> None:
    first = [{"memory_budget": 20_000, "learning_rate": 0.05, "epochs": 2}, {"epochs": 3}]
    engine = study(make_spec(sampler, first_trials=first))
    params = suggestions(engine)
    assert params[0] == first[0]
    assert params[1]["epochs"] == 3
    assert len(params[1]) == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "objectives",
    [{"auc": "maximize"}, {"auc": "maximize", "embedding_bytes": "minimize"}],
    ids=["one", "two"],
)
def test_one_objective_or_several(sampler: str, objectives: dict[str, str]) -> None:
    engine = study(make_spec(sampler, objectives=objectives))
    assert len(engine.search.records) == min(engine.spec.trials, 18 if sampler == "grid" else 99)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_too_large_is_not_trained_and_not_hidden(sampler: str) -> None:
    spec = make_spec(sampler, constraints={"embedding_bytes": {"max": "30kB"}}, trials=8)
    engine = study(spec, sizes=lambda config: {"embedding_bytes": config.search.memory_budget})
    records = engine.search.records
    infeasible = {n for n, r in records.items() if r.state == "infeasible"}
    assert infeasible
    for number, record in records.items():
        assert (record.config["memory_budget"] > 30_000) == (number in infeasible)
        if number in infeasible:
            assert "the constraint is at most 30 kB" in (record.reason or "")
            assert engine.search.ledger.evaluations(number) == []
    assert len(records) - len(infeasible) == spec.trials


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "gp"])
def test_a_constraint_that_only_training_shows_moves_the_search(sampler: str) -> None:
    """The later half of the suggestions breaks it less often than random ones do."""
    limit, trials = {"compression_ratio": {"min": 1_500}}, {"gp": 22, "nsgaii": 110, "tpe": 40}[sampler]
    search = {**SEARCH, "memory_budget": {"low": 2_000, "high": 20_000_000, "log": True}}
    late, broken = 0, {}
    for name in (sampler, "random"):
        engine = study(make_spec(name, search=search, constraints=limit, trials=trials))
        records = [engine.search.records[n] for n in range(trials)]
        assert {r.state for r in records} == {"finished"}  # shown with its violation, and not forbidden
        for record in records:
            kept = (record.values or {})["compression_ratio"] >= 1_500
            assert kept == (record.violations["compression_ratio"] <= 0)
        late = trials // 2
        broken[name] = sum(r.violations["compression_ratio"] > 0 for r in records[late:])
    assert broken[sampler] < broken["random"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_lists_and_every_other_field_can_be_searched(sampler: str) -> None:
    model = {
        "dim": {"choices": [8, 16]},
        "bottom_mlp": {"choices": [[64], [128, 64]]},
        "top_mlp": {"choices": [[32], [64, 32]]},
    }
    train = {"evaluate_every": {"choices": [0.5, 10]}, "optimizer": {"choices": ["sgd", "adagrad"]}}
    engine = study(make_spec(sampler, model=model, train=train, first_trials=[{"bottom_mlp": [64]}]))
    records = list(engine.search.records.values())
    assert records[0].config["bottom_mlp"] == [64]
    for field in ("dim", "bottom_mlp", "top_mlp", "evaluate_every", "optimizer"):
        assert len({json.dumps(record.config[field]) for record in records}) == 2


def test_a_grid_goes_through_every_point_once_and_ends() -> None:
    spec = make_spec("grid", embedding=CONDITIONAL, trials=1_000)
    engine = study(spec)
    points = [json.dumps(params, sort_keys=True) for params in suggestions(engine)]
    assert len(points) == len(set(points)) == 3 * 2 * 3 * (1 + 2)


def test_a_grid_refuses_a_continuous_range() -> None:
    with pytest.raises(
        ValidationError, match=r"grid cannot go through the continuous range of memory_budget"
    ):
        make_spec("grid", search=SEARCH)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "grid"])
def test_a_range_of_one_value_is_that_value(sampler: str) -> None:
    one = {"low": 20_000, "high": 20_000}, {"low": 0.01, "high": 0.01}, {"low": 2, "high": 2}
    search = dict(zip(("memory_budget", "learning_rate", "epochs"), one, strict=True))
    engine = study(make_spec(sampler, search=search, trials=3))
    configs = [record.config for record in engine.search.records.values()]
    assert {(c["memory_budget"], c["learning_rate"], c["epochs"]) for c in configs} == {(20_000, 0.01, 2)}
    assert len(configs) == (1 if sampler == "grid" else 3)


def test_quasi_random_points_are_spread_more_evenly_than_random_ones() -> None:
    def spread(sampler: str) -> int:
        engine = study(make_spec(sampler, trials=33, search={**SEARCH, "epochs": 1}))
        rates = [params["learning_rate"] for params in suggestions(engine)[1:]]
        return len({int(16 * (r > 0) * (__import__("math").log10(r / 0.003) / 2)) for r in rates})

    assert spread("qmc") == 16 > spread("random")  # every sixteenth of the range is visited


def test_constraints_that_nothing_can_keep_are_said() -> None:
    spec = make_spec("random", constraints={"embedding_bytes": {"max": 1_000}})
    with pytest.raises(Exception, match="suggestions in a row cannot be trained"):
        study(spec, sizes=lambda config: {"embedding_bytes": config.search.memory_budget})
