"""When a trial is stopped: the rule's arithmetic, its risk, and a study of real trainings that is interrupted."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from sizewise import results
from sizewise.config import PruningSpec, StudySpec
from sizewise.engine.deciding.decisions import Engine
from sizewise.metrics.errors import encoded
from sizewise.metrics.evaluation import Evaluation
from sizewise.metrics.scores import GROUPS, auc_parts
from sizewise.search.pruning import Front, Rule, save, standard_error, verdict_from
from sizewise.search.suggest import Search
from sizewise.store.trials.ledger import Ledger
from sizewise.training.loop import train
from sizewise_prep.shards.manifest import Manifest


def make_rule(**changes: Any) -> Rule:
    given = {"grace": 0, "risk": 0.05, **changes}
    return Rule(
        spec=PruningSpec.model_validate(given), clicks=2_500, others=7_500, bytes_metric="embedding_bytes"
    )


def row(
    auc: float, iteration: int = 100, size: int = 1_000, epoch: float = 1.0, parts: str = ""
) -> Evaluation:
    return Evaluation({"auc": auc, "iteration": iteration, "epoch": epoch, "embedding_bytes": size}, parts)


def front_of(*rows: Evaluation) -> Front:
    front = Front()
    for r in rows:
        front.add((r["embedding_bytes"], r["iteration"]), r)
    return front


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    """Hanley and McNeil's formula against the spread of AUCs over samples of exponential scores, its own model."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [600, 200])
    scale = 3.0  # AUC of exponentials: scale / (1 + scale)
    scores = [np.concatenate([rng.exponential(1, 600), rng.exponential(scale, 200)]) for _ in range(400)]
    spread = np.std([roc_auc_score(labels, s) for s in scores])
    assert standard_error(scale / (1 + scale), 200, 600) == pytest.approx(spread, rel=0.1)


def test_the_front_answers_as_all_points_would() -> None:
    rng = np.random.default_rng(2)
    points = [
        ((float(b), float(i)), a)
        for b, i, a in zip(*rng.integers(0, 30, (2, 300)), rng.random(300), strict=True)
    ]
    front = Front()
    for cost, auc in points:
        front.add(cost, row(auc))
    assert len(front.aucs) < 100
    for cost in [(b, i) for b in range(0, 31, 5) for i in range(0, 31, 5)]:
        within = [auc for (b, i), auc in points if b <= cost[0] and i <= cost[1]]
        assert front.aucs[front.within(cost)].max(initial=-math.inf) == max(within, default=-math.inf)


def test_a_trial_stops_when_no_larger_model_was_better_by_more_than_noise() -> None:
    rule, rival = make_rule(), row(0.75)
    assert "0.7500 was reached with no more embedding bytes" in rule.verdict([row(0.70)], front_of(rival))
    # Without parts the errors count as independent. One test of one rival is made at half the risk.
    error = standard_error(0.745, 2_500, 7_500) * math.sqrt(2)
    margin = stats.t.isf(0.025, GROUPS - 1) * error
    assert rule.verdict([row(0.75 - margin * 0.97)], front_of(rival)) == ""
    assert rule.verdict([row(0.75 - margin * 1.03)], front_of(rival)) != ""
    # A rival that is larger, or was trained longer, says nothing.
    assert rule.verdict([row(0.70)], front_of(row(0.75, size=1_001))) == ""
    assert rule.verdict([row(0.70)], front_of(row(0.75, iteration=101))) == ""
    # Among more trials, later in a trial, and with noise between seeds, more is asked for.
    near = [row(0.75 - margin * 1.03)]
    assert rule.verdict(near, front_of(rival), trials=50) == ""
    assert rule.verdict([row(0.60, 50), *near], front_of(rival)) == ""
    assert rule.verdict(near, front_of(rival), seed_variance=0.01) == ""
    # With parts, what two models share does not count, and what differs does.
    shared, apart = np.random.default_rng(0).normal(0, 0.005 / math.sqrt(GROUPS), (2, GROUPS))
    for own, stops in ((0.1, True), (3.0, False)):
        here, there = (encoded(shared + own * sign * apart) for sign in (1, -1))
        verdict = rule.verdict([row(0.75 - margin / 2, parts=here)], front_of(Evaluation(rival, there)))
        assert (verdict != "") == stops


def test_a_trial_stops_when_it_has_overfitted_and_not_within_its_grace() -> None:
    rows = [row(0.75, 100, epoch=0.5), row(0.65, 200, epoch=1.0)]
    assert make_rule().verdict(rows, Front()) != ""
    assert make_rule(grace=1.0).verdict(rows, Front()) != ""
    assert make_rule(grace=1.5).verdict(rows, Front()) == ""
    assert make_rule(grace=201).verdict(rows, Front()) == ""
    assert make_rule().verdict([*rows, row(math.nan, 300)], Front()) == ""


def scored(rng: np.random.Generator, rows: int, alike: float) -> tuple[Any, Any, Any]:
    """Labels, and logits of two models that are equally good and more or less alike."""
    labels = rng.random(rows) < 0.25
    shared, one, other = rng.standard_normal((3, rows))
    own = math.sqrt(1 - alike)
    return labels, *(labels + math.sqrt(alike) * shared + own * mine for mine in (one, other))


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.95])
def test_the_error_of_a_difference_is_that_of_repeated_samples(alike: float) -> None:
    """However much two models share: parts against the spread of AUC differences over samples, and their tails."""
    rng = np.random.default_rng(5)
    ratios, differences, errors = [], [], []
    for _ in range(300):
        labels, one, other = scored(rng, 1_500, alike)
        difference = roc_auc_score(labels, one) - roc_auc_score(labels, other)
        errors.append(math.sqrt(((auc_parts(labels, one) - auc_parts(labels, other)) ** 2).sum()))
        differences.append(difference)
        ratios.append(difference / errors[-1])
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.1)
    beyond = np.mean(np.array(ratios) > stats.t.isf(0.1, GROUPS - 1))
    assert 0.05 < beyond < 0.16


def test_parts_are_those_of_every_row() -> None:
    """With a row a group they are DeLong's structural components, ties included; with one class they are undefined."""
    labels = np.array([1, 0, 1, 0, 0])
    logits = np.array([0.5, 0.5, 2.0, -1.0, 1.0])
    components = np.array([1.5 / 3, 1.5 / 2, 1.0, 1.0, 1 / 2])
    expected = (components - roc_auc_score(labels, logits)) / np.array([2, 3, 2, 3, 3])
    parts = auc_parts(labels, logits)
    assert parts[:5] * math.sqrt((GROUPS - 1) / GROUPS) == pytest.approx(expected)
    assert parts[5:] == pytest.approx(0.0)
    assert np.isnan(auc_parts([1, 1], [0.5, 0.2])).all()


@pytest.mark.parametrize("with_parts", [True, False])
@pytest.mark.parametrize("risk", [0.05, 0.3])
def test_noise_alone_stops_no_more_trials_than_the_risk_says(risk: float, with_parts: bool) -> None:
    """20 equally good trials of 8 evaluations, scored with independent errors: the worst case, nothing shared."""
    rule, stopped, seen = make_rule(risk=risk), 0, 0
    rng = np.random.default_rng(3)
    error = standard_error(0.75, 2_500, 7_500)
    for _ in range(100):
        front = Front()
        for trial in range(1, 21):
            rows: list[Evaluation] = []
            seen += 1
            for iteration in range(100, 900, 100):
                parts = rng.normal(0, error / math.sqrt(GROUPS), GROUPS)
                kept = encoded(parts) if with_parts else ""
                rows.append(row(0.75 + parts.sum(), iteration, parts=kept))
                front.add((1_000, iteration), rows[-1])
                if rule.verdict(rows, front, trials=trial):
                    stopped += 1
                    break
    assert stopped <= risk * seen


def test_a_worker_reads_what_the_driver_wrote_and_trains_on_without_it(tmp_path: Path) -> None:
    rule = make_rule()
    path = tmp_path / "pruning.json"
    assert verdict_from(path, rule, [row(0.60)]) == ""
    save(tmp_path, front_of(row(0.75)), 1, 0.0)
    assert verdict_from(path, rule, [row(0.60)]) != ""
    path.write_text(path.read_text()[:-10])
    assert verdict_from(path, rule, [row(0.60)]) == ""


class KilledError(Exception):
    pass


def drive(spec: StudySpec, folder: Path, shards: Path, evaluations: float = math.inf) -> Engine:
    """A study of real trainings in this process, as Ray's backend drives it; killed after so many evaluations."""
    manifest = Manifest.load(shards)
    validation = manifest.splits["validation"]
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    rule = Rule.of(spec, validation.rows, validation.click_rate or 0.0)
    engine = Engine(
        spec, folder, Search(spec, Ledger(folder), manifest.full_rows * 4 * 16), lambda *_: None, rule
    )
    left = [evaluations]
    while (record := engine.next_trial()) is not None:
        payload = engine.payload(record)

        def report(evaluation: Evaluation, trial_id: int = record.trial_id) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KilledError  # its checkpoint is written, its verdict is not
            engine.evaluated(trial_id, evaluation)

        outcome = train(engine.search.config(record), Path(payload["folder"]), report, **payload["how"])
        engine.finished(record.trial_id, outcome.evaluations, outcome.test, outcome.pruned)
    return engine


@pytest.fixture
def pruned_spec(shards: Path) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "pruned",
            "data": str(shards),
            "model": {"dim": 8, "bottom_mlp": [16], "top_mlp": [16]},
            "embedding": {"method": "robe", "block_len": 8},
            "search": {
                "memory_budget": {"choices": [20_000]},
                "learning_rate": {"choices": [0.01, 1e-6]},
                "epochs": 2,
            },
            "first_trials": [{"learning_rate": 0.01}, {"learning_rate": 1e-6}],
            "train": {"batch_size": 64, "evaluate_every": 0.25},
            "pruning": {"grace": 0.5, "risk": 0.2},
            "trials": 3,
            "sampler": "random",
            "seed": 2,
        }
    )


def told(folder: Path) -> list[Any]:
    timed = ("train_seconds", "samples_per_second", "peak_memory_bytes")
    ledger = Ledger(folder)
    return [
        (
            r.params,
            r.state,
            r.reason,
            r.reuses,
            [{k: v for k, v in e.items() if k not in timed} for e in ledger.evaluations(n)],
            ledger.test(n),
        )
        for n, r in sorted(ledger.records().items())
    ]


def test_a_stopped_trial_counts_for_what_it_was_and_resumes_exactly(
    shards: Path, tmp_path: Path, pruned_spec: StudySpec
) -> None:
    drive(pruned_spec, tmp_path / "calm", shards)
    calm = told(tmp_path / "calm")
    assert [state for _, state, *_ in calm][:2] == ["finished", "pruned"]
    stopped = calm[1]
    assert "was reached with no more embedding bytes" in stopped[2]
    assert 1 <= len(stopped[4]) < 8
    assert stopped[5].scores.auc > 0  # its best model was scored on the test split all the same

    # Killed just before the verdict that stops it, and at other moments.
    for kills in ((8,), (8 + len(stopped[4]) - 1,), (3, 4)):
        folder = tmp_path / f"killed-{kills[0]}"
        for after in kills:
            with pytest.raises(KilledError):
                drive(pruned_spec, folder, shards, after)
        drive(pruned_spec, folder, shards)
        assert told(folder) == calm


def test_readers_show_a_stopped_trial(tmp_path: Path, shards: Path, pruned_spec: StudySpec) -> None:
    drive(pruned_spec, tmp_path / "pruned", shards)
    assert results.status(tmp_path, "pruned")["trials"]["pruned"] >= 1
    (tmp_path / "pruned" / "study.json").write_text('{"trials": 3}')
    study = results.load(tmp_path, "pruned")
    assert study.trials["state"].to_list()[1] == "pruned"
    assert 1 in study.candidates["trial_id"]
    assert study.problems == []
