"""`python -m benchmarks.quality` on few rows; what it chooses, and what it counts as bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.quality import tables
from benchmarks.quality.arms import POOLS, made
from benchmarks.quality.rows import load, real, sizes
from benchmarks.scale.table import Evaluation, Record, Result

from sizewise.embedding import full_bytes

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("SIZEWISE_REAL_ROWS", ROOT / "../shared/data/criteo_kaggle_sample.tsv.gz"))
CPU = torch.device("cpu")


def result(seed: int, validation: float, test: float, epoch: float = 1, **given: object) -> Result:
    facts = {"name": "full", "ratio": 1, "teachers": 0, "falling": False, "state": "end", **given}
    run = f"{facts['name']} {facts['ratio']} {facts['teachers']} seed{seed}"
    return Result(
        **{
            "run": run, "seed": seed, "rate": 0.02, "batch": 512, "shipped_bytes": 100, "epoch": epoch,
            "iterations": int(100 * epoch), "seconds": 1.0, "validation_auc": validation, "test_auc": test,
            "test_logloss": 0.5, "float_test_auc": test, **facts,
        }  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.slow
def test_few_planted_rows_from_end_to_end_and_again(tmp_path: Path) -> None:
    few = ["--rows", "3000", "--seeds", "1", "--epochs", "1", "--labels-epochs", "1", "--teachers", "1"]
    command = [sys.executable, "-m", "benchmarks.quality", "--data", "planted", *few, "--only", " 100x dim16"]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": f"{ROOT}/platform:{ROOT}/data_prep",
    }

    def run(jobs: int) -> str:
        ended = subprocess.run(
            [*command, "--work", str(tmp_path), "--jobs", str(jobs)],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    first = run(jobs=2)
    folder = tmp_path / "planted-3000"
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(results) == 1 + 2 * 3  # a teacher; each pool from labels at two rates, and with the teacher
    assert sorted(row["rate"] for row in results) == [0.01] * 2 + [0.02] * 5
    assert {row["teachers"] for row in results} == {0, 1}
    assert all(0.5 < row["test_auc"] < 0.8 for row in results)
    for name in ("robe, float32", "robe, int4"):
        assert f"\n| {name} | 100x | " in first
    second = run(jobs=1)
    assert "6/6" in first
    assert "1/" not in second.partition("##")[0]  # nothing is trained again
    assert second.partition("| method")[2] == first.partition("| method")[2]


def test_what_validation_prefers_is_reported_whatever_the_test_says() -> None:
    record = Record(None)
    for seed, (validation, test) in enumerate([(0.74, 0.750), (0.75, 0.752), (0.76, 0.754)], 1):
        record.add(result(seed, validation, test))
        record.add(result(seed, validation + 0.01, test - 0.002, epoch=2))
        record.add(result(seed, validation + 0.02, test + 0.1, epoch=3, state="cut short"))
        record.add(result(seed, validation + 0.5, test, epoch=1, teachers=4, falling=True, state="epoch"))
        record.add(result(seed, validation, test + 0.004 * seed, epoch=4, teachers=4, falling=True))
    record.add(result(4, 0.9, 0.9, epoch=8))  # of one seed alone: cannot be compared
    chosen = tables.chosen_of(record, "full tables", 1, taught=False)
    assert chosen is not None
    assert (chosen.epochs, chosen.test) == (2, [0.748, 0.75, 0.752])
    assert tables.interval(chosen.test) == "0.7500 ± 0.0050"  # t of 2 degrees of freedom is 4.303
    taught = tables.chosen_of(record, "full tables", 1, taught=True)
    assert taught is not None
    assert taught.epochs == 4
    # Paired by seed, the differences are 0.006, 0.010, 0.014.
    assert tables.interval(tables._differences(taught, chosen), signed=True) == "+0.0100 ± 0.0099"


def test_iterations_to_the_quality_of_full_tables() -> None:
    record = Record(None)
    record.add(result(1, 0.75, 0.75))
    pool = result(1, 0.76, 0.75, epoch=4, name="robe", ratio=1_000)
    record.add(pool)
    for step, auc in ((100, 0.73), (200, 0.74), (300, 0.76), (400, 0.76)):
        record.add(Evaluation(pool.run, step, step / 100, 1.0, auc, 0.5))
    lines = tables.written(record, "planted", []).splitlines()
    assert "| robe, float32 | 1,000x | 2.50x | - | - |" in lines
    assert any(line.startswith("| 1,000x | labels only | robe, float32 | 4 at 0.02 |") for line in lines)
    assert any("0.7420: yes" in line for line in lines)


@pytest.mark.parametrize("name", list(POOLS))
def test_every_pool_takes_what_its_compression_allows(name: str) -> None:
    data, known = load("planted", 6000, 1, CPU)
    assert known.startswith("Bayes AUC on the test rows 0.7")
    assert [len(split) for split in (data.train, data.validation, data.test)] == list(sizes(6000))
    for ratio in (100, 1_000):
        spec = POOLS[name][ratio]
        budget = full_bytes(data.values.cardinalities, 16) // ratio
        method = made(spec, data.values, 1, CPU)
        least = 0 if spec.least > 1 else 0.9 * budget  # not all of it where few values come often enough
        assert least < method.shipped_bytes <= budget
        assert method.model()(data.test.dense[:4].float(), method.ids(data.test.ids[:4])).shape == (4,)


@pytest.mark.skipif(not REAL.exists(), reason="no real rows here")
def test_real_rows_are_read_as_they_are() -> None:
    split, universe = real(REAL, CPU)
    assert (len(split), split.dense.shape[1], split.ids.shape[1]) == (137_139, 13, 26)
    assert float(split.label.float().mean()) == pytest.approx(0.2568, abs=1e-4)
    assert split.dense.min() == 0
    assert universe[8] == 3
    assert [int(limit) for limit in split.ids.amax(0) + 1] == universe


def test_one_method_is_chosen_on_the_validation_rows_of_all_logs() -> None:
    records = {"real": Record(None), "planted": Record(None)}
    robe, narrow = POOLS["robe, int4"][100], POOLS["hash, narrow, int4"][100]
    for log, scores in (
        ("real", (0.76, 0.75)),
        ("planted", (0.74, 0.755)),
    ):  # on the mean the second is better
        for spec, validation in zip((robe, narrow), scores, strict=True):
            records[log].add(result(1, validation, 0.744, name=spec.name, ratio=100))
    lines = tables.pooled(records).splitlines()
    assert lines[2].startswith("| 100x | labels only | hash, narrow, int4 | 0.7440 (1 seed), 0.7530: no |")
    assert lines[2].endswith("0.7438: yes | robe, int4, 0.0025 |")
