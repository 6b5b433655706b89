"""The engine on simulated curves: replicates, curves that are reused, recorded studies, many workers at once."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sizewise import results
from sizewise.config import StudySpec
from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.simulated import Generated, Recorded, simulate, simulated_engine
from sizewise.search.with_optuna import warm_start
from sizewise.store.trials.ledger import Ledger
from sizewise_core.errors import InputError

CURVES = Generated(iterations_per_epoch=20)


def make_spec(**changes: Any) -> StudySpec:
    raw = {
        "name": "study",
        "data": "none",
        "embedding": {"method": "robe"},
        "search": {
            "memory_budget": {"low": 2_000, "high": 20_000_000},
            "learning_rate": {"low": 0.003, "high": 0.3, "log": True},
            "epochs": {"low": 1, "high": 3},
        },
        "sampler": "random",
        "trials": 12,
        "seed": 3,
        **changes,
    }
    return StudySpec.model_validate(raw)


def run(spec: StudySpec, folder: Path | None = None, workers: int = 1, **more: Any) -> Engine:
    engine = simulated_engine(spec, CURVES, folder, **more)
    simulate(engine, CURVES, workers)
    assert engine.remaining == 0
    return engine


def records(engine: Engine) -> list[Any]:
    return [record for _, record in sorted(engine.search.records.items())]


def replicate_numbers(engine: Engine) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for record in records(engine):
        groups.setdefault(record.configuration, []).append(record.replicate)
    return groups


def test_generated_curves_resemble_trained_ones() -> None:
    """What must hold of them: size costs AUC, large models over-fit, small ones do not, rates have an optimum."""
    at = Generated().auc
    for epoch in (1.0, 3.0):
        assert at(20_000_000, 0.3, epoch) < 0.55 < at(20_000_000, 0.015, epoch)
        assert at(2_000, 0.015, epoch) > max(at(2_000, 0.1, epoch), at(2_000, 0.003, epoch))
    assert at(20_000_000, 0.015, 1.0) > at(20_000, 0.015, 1.0) > at(2_000, 0.015, 1.0)
    assert at(20_000_000, 0.015, 3.0) < at(20_000_000, 0.015, 1.0) - 0.05
    assert at(2_000, 0.015, 3.0) > at(2_000, 0.015, 1.0)


@pytest.mark.parametrize("workers", [1, 7])
def test_every_configuration_gets_its_seeds(workers: int) -> None:
    engine = run(make_spec(replicates={"seeds": 3, "of": "all"}), workers=workers)
    assert set(map(tuple, map(sorted, replicate_numbers(engine).values()))) == {(0, 1, 2)}
    assert len(engine.search.records) == engine.search.planned == 36
    for record in records(engine):
        first = engine.search._groups[record.configuration][0]
        assert record.params == first.params
        assert (record.config["seed"] == first.config["seed"]) == (record.replicate == 0)
        assert all(
            row["replicate"] == record.replicate for row in engine.search.ledger.evaluations(record.trial_id)
        )


def test_only_what_is_near_the_front_gets_seeds() -> None:
    engine = run(make_spec(replicates={"seeds": 4, "of": "front", "within": 0.002}))
    groups = replicate_numbers(engine)
    firsts = {r.configuration: r.values for r in records(engine) if r.replicate == 0}
    costs = ("embedding_bytes", "iterations")
    for configuration, numbers in groups.items():
        mine = firsts[configuration]
        rivals = [v["auc"] for v in firsts.values() if all(v[c] <= mine[c] for c in costs)]
        assert sorted(numbers) == ([0, 1, 2, 3] if mine["auc"] >= max(rivals) - 0.002 else [0])
    assert {len(numbers) for numbers in groups.values()} == {1, 4}


@pytest.mark.parametrize("replicates", [{"of": "all"}, {"of": "front"}])
def test_replicates_resume_as_if_nothing_had_happened(tmp_path: Path, replicates: dict[str, Any]) -> None:
    spec = make_spec(replicates=replicates, sampler="tpe", trials=14, pruning={"grace": 0.5})
    calm = run(spec)
    for _ in range(5):
        simulate(engine := simulated_engine(spec, CURVES, tmp_path), CURVES, trials=7)
        engine.next_trial()
    resumed = run(spec, tmp_path)
    told = [
        [(r.configuration, r.replicate, r.params, r.state, r.values) for r in records(e)]
        for e in (calm, resumed)
    ]
    assert told[0] == told[1]


def test_results_carry_means_and_intervals_over_seeds(tmp_path: Path) -> None:
    run(make_spec(replicates={"seeds": 3, "of": "all"}, trials=4), tmp_path / "study")
    study = results.load(tmp_path, "study")
    assert study.trials["configuration"].to_list() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert study.candidates["trial_id"].unique().sort().to_list() == [0, 3, 6, 9]
    assert set(study.candidates["replicates"]) == {3}
    row = study.candidates.filter(trial_id=3).row(-1, named=True)
    curves = study.evaluations.filter(configuration=1, iteration=row["iteration"])["auc"].to_numpy()
    both = row["auc_error"] ** 2 + row["auc_seed_error"] ** 2  # of few validation rows, and of other seeds
    best = study.replicates.select("configuration", "iteration")
    spread = study.evaluations.join(best, on=["configuration", "iteration"]).group_by("configuration")
    assert row["auc_seed_error"] ** 2 == pytest.approx(spread.agg(pl.col("auc").var())["auc"].mean() / 3)
    half = stats.t.ppf(0.975, both**2 / (row["auc_error"] ** 4 / 127 + row["auc_seed_error"] ** 4 / 8))
    half *= math.sqrt(both)
    assert curves.size == 3
    assert row["auc"] == pytest.approx(curves.mean())
    assert (row["auc_low"], row["auc_high"]) == pytest.approx((curves.mean() - half, curves.mean() + half))
    assert study.replicates.height == 4
    assert set(study.front["trial_id"]) <= {0, 3, 6, 9}


FINITE = {"memory_budget": {"choices": [20_000]}, "learning_rate": 0.02, "epochs": {"choices": [1, 2, 3]}}


def test_no_curve_is_trained_twice() -> None:
    """Three lengths of one configuration cost what the longest does, in whatever order they come."""
    for order in ([3, 1, 2], [1, 2, 3], [2, 3, 1]):
        first = [{"epochs": epochs} for epochs in order]
        spec = make_spec(search=FINITE, sampler="grid", trials=3, first_trials=first)
        engine = simulated_engine(spec, CURVES)
        assert simulate(engine, CURVES).iterations == 60
        for record in records(engine):
            rows = engine.search.ledger.evaluations(record.trial_id)
            assert rows[-1]["epoch"] == record.config["epochs"]
            expected = CURVES.curve(engine.search.config(record))
            assert [row["auc"] for row in rows] == [row["auc"] for row in expected]
            assert record.state == "finished"


def test_concurrent_trials_train_no_part_of_a_curve_twice() -> None:
    """Whatever is put off comes as soon as it can, and other trials begin meanwhile."""
    for order in ([3, 1, 2], [1, 2, 3], [2, 3, 1]):
        first = [{"epochs": epochs} for epochs in order]
        spec = make_spec(search=FINITE, sampler="grid", trials=3, first_trials=first)
        engine = simulated_engine(spec, CURVES)
        assert simulate(engine, CURVES, workers=3).iterations == 60
        assert {record.state for record in records(engine)} == {"finished"}
    # Lengths of 20, 40 and 60 iterations whose rate falls over the last tenth: 54 of stable part, 2 + 4 + 6 of decay
    falls = {"schedule": {"decay": "cosine", "decay_share": 0.1}, "evaluate_every": 5}
    for order in ([1, 2, 3], [3, 2, 1]):
        first = [{"epochs": epochs} for epochs in order]
        spec = make_spec(search=FINITE, sampler="grid", trials=3, first_trials=first, train=falls)
        engine = simulated_engine(spec, CURVES)
        found = simulate(engine, CURVES, workers=3)
        assert found.iterations == 54 + 2 + 4 + 6
        inherited = {r.config["epochs"]: r.inherited_epochs for r in records(engine)}
        assert inherited == ({1: None, 2: 0.75, 3: 1.75} if order[0] == 1 else {1: 0.75, 2: 1.75, 3: None})
        # One after another up to the last state that is kept, then side by side
        assert found.simulated_seconds < 66 * spec.train.batch_size * CURVES.row_seconds


def test_trials_that_share_nothing_begin_while_others_wait() -> None:
    budgets = {**FINITE, "memory_budget": {"choices": [20_000, 40_000]}, "epochs": {"choices": [1, 2]}}
    first = [{"memory_budget": b, "epochs": e} for b in (20_000, 40_000) for e in (1, 2)]
    engine = simulated_engine(make_spec(search=budgets, sampler="grid", trials=4, first_trials=first), CURVES)
    assert [engine.next_trial().trial_id for _ in range(2)] == [0, 2]  # type: ignore[union-attr]
    assert engine.next_trial() is None
    assert (engine.waiting, engine.remaining) == (0, 4)
    engine.finished(2, CURVES.curve(engine.search.config(engine.search.records[2])), None)
    assert engine.waiting == 1
    late = engine.next_trial()
    assert late is not None
    assert (late.trial_id, late.reuses) == (3, 2)


def test_another_studys_trials_teach_the_sampler(tmp_path: Path) -> None:
    """Taught a good study, TPE starts where that one ended: better at once than what starts from nothing."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "study.yaml").write_text("name: old")
    accuracy = {"objectives": {"auc": "maximize"}}
    run(make_spec(sampler="tpe", trials=40, **accuracy), tmp_path / "old")
    spec = make_spec(sampler="tpe", trials=8, seed=9, warm_start="old", **accuracy)
    known, left_out = warm_start.learn(warm_start.find("old", tmp_path), spec, CURVES.full_bytes)
    assert (len(known), sum(left_out.values())) == (40, 0)
    warm_start.save(known, tmp_path / "old")
    assert warm_start.load(tmp_path / "old") == known

    def mean_auc(engine: Engine) -> float:
        return float(np.mean([r.values["auc"] for r in records(engine)]))

    gain = [
        mean_auc(run(spec.model_copy(update={"seed": seed}), known=known))
        - mean_auc(run(spec.model_copy(update={"seed": seed})))
        for seed in range(10)
    ]
    assert np.mean(gain) > 0

    # A study that searches less takes what fits, and says what does not.
    narrow = make_spec(
        search={**FINITE, "learning_rate": {"low": 0.01, "high": 0.05, "log": True}}, **accuracy
    )
    known, left_out = warm_start.learn(tmp_path / "old", narrow, CURVES.full_bytes)
    assert len(known) + sum(left_out.values()) == 40
    assert left_out["memory_budget is outside what is searched here"] > 0
    with pytest.raises(InputError, match="warm_start: none: no study of that name"):
        warm_start.find("none", tmp_path)


def test_a_recorded_study_is_replayed(tmp_path: Path) -> None:
    spec = make_spec(trials=6)
    told = run(spec, tmp_path)
    facts = {
        "full_bytes": CURVES.full_bytes,
        "rows": {"validation": CURVES.rows},
        "click_rate": CURVES.click_rate,
    }
    (tmp_path / "study.json").write_text(json.dumps({"data": facts}))
    recorded = Recorded.of(tmp_path)
    again = simulated_engine(spec, recorded)
    simulate(again, recorded)
    for one, other in zip(records(told), records(again), strict=True):
        assert one.values == other.values
    assert Ledger(tmp_path).records().keys() == again.search.records.keys()


@pytest.mark.slow
def test_hundreds_of_workers_run_every_trial_once() -> None:
    engine = simulated_engine(make_spec(trials=600, pruning={}), CURVES)
    found = simulate(engine, CURVES, workers=200)
    assert (found.trials, engine.remaining) == (600, 0)
    assert {r.state for r in records(engine)} == {"finished", "pruned"}
    alone = simulated_engine(make_spec(trials=600, pruning={}), CURVES)
    assert simulate(alone, CURVES, workers=1).simulated_seconds > 50 * found.simulated_seconds
