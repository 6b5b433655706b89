"""`python -m benchmarks.trend`: what is trained on how many rows, and what the table makes of it."""

import pytest
from benchmarks import trend
from benchmarks.quality.arms import FULL
from benchmarks.scale.methods import Spec
from benchmarks.scale.runs import Training
from benchmarks.scale.table import Record, Result


def result(
    spec: Spec, seed: int, validation: float, test: float, teachers: int = 0, epoch: int = 1
) -> Result:
    run = Training(spec, epochs=epoch, taught=bool(teachers), falling=bool(teachers), seed=seed).key
    return Result(
        run, spec.name, spec.ratio, seed, teachers, 0.02, bool(teachers), 512, 1_000 // spec.ratio, epoch, 10,
        1.0, validation, test, 0.5, test,
    )  # fmt: skip


def test_all_methods_learn_from_labels_once_where_rows_are_many() -> None:
    assert trend.epochs_at(3_430_000) is trend.MANY
    many = trend.trainings(trend.MANY, seed=3)
    assert {training.seed for training in many} == {3}
    assert [t.epochs for t in many if not t.taught] == [1] * sum(map(len, trend.ARMS.values()))
    assert {t.spec: t.epochs for t in many if t.taught and not t.spec.learnt} == {
        FULL: 2,
        trend.HOT: 2,
        trend.HASH: 4,
    }
    few = trend.trainings(trend.epochs_at(137_139), seed=1)
    assert not any(training.spec.learnt for training in few)
    assert len({training.key for training in few}) == len(few)


def test_losses_are_against_full_tables_of_the_same_seed() -> None:
    record = Record(None)
    for seed, level in ((1, 0.76), (2, 0.77), (3, 0.78)):
        record.add(result(FULL, seed, level, level))
        record.add(result(trend.HOT, seed, level, level - 0.001))
        record.add(result(trend.HASH, seed, level - 0.01, level - 0.003, teachers=2, epoch=2))
        record.add(result(trend.HASH, seed, level, level - 0.002 + 0.001 * (seed - 2), teachers=2, epoch=4))
    lines = trend.table({3_430_000: record}).splitlines()
    hot = next(line for line in lines if "| hot, int4, 1,000x |" in line)
    assert hot.startswith("| 2,744,000 |")
    assert "-0.0010 ± 0.0000" in hot
    taught = next(line for line in lines if "| hash, dim 1, int4, 10,000x |" in line)
    assert "| - | - | - | 0.7680 ± 0.0273 | -0.0020 ± 0.0025 | 4 |" in taught


@pytest.mark.parametrize("rows", trend.ROWS)
def test_every_size_trains_every_method(rows: int) -> None:
    epochs = trend.epochs_at(rows)
    trained = {training.spec for training in trend.trainings(epochs, seed=1)}
    known = {spec for specs in trend.ARMS.values() for spec in specs}
    assert trained == {spec for spec in known if epochs is trend.MANY or not spec.learnt}
    needed, others = trend.goals_first(epochs, seeds=2)
    assert {(t.seed, t.spec, t.taught, t.epochs) for t in needed + others} == {
        (t.seed, t.spec, t.taught, t.epochs) for seed in (1, 2) for t in trend.trainings(epochs, seed)
    }
    assert {trend.HASH} <= {t.spec for t in needed if t.taught}
    assert (
        {FULL, trend.HOT} <= {t.spec for t in needed if not t.taught} <= {FULL, trend.HOT, *trend.HOT_LEARNT}
    )


def test_the_share_in_which_a_step_is_learnt_is_chosen_by_validation() -> None:
    record = Record(None)
    record.add(result(FULL, 1, 0.77, 0.77))
    for spec, validation, test in zip(
        trend.HOT_LEARNT, (0.76, 0.77, 0.765), (0.78, 0.769, 0.79), strict=True
    ):
        record.add(result(spec, 1, validation, test))
    lines = trend.table({3_430_000: record}).splitlines()
    hot = next(line for line in lines if "| hot, int4 learnt, 1,000x |" in line)
    assert "| -0.0010 (1 seed) | 1, learnt in the last 50% |" in hot
