"""A study whose driver and workers are killed at random instants ends as the calm one.

The instants are drawn from a seed that is printed: SIZEWISE_CHAOS_SEED=N draws them again.
"""

import random
import shutil
import time
from pathlib import Path

import pytest

from real_study import Command, WallClock, assert_equal, calm_study, flip_a_bit, wait_until
from sizewise import results
from sizewise.store.trials.ledger import Ledger

pytestmark = pytest.mark.slow


def test_a_killed_driver_a_killed_worker_and_damage_between(study: Path, tmp_path: Path, seed: int) -> None:
    """The short form: a kill, after it bits flipped in a checkpoint, a record and a curve; then a worker is killed, and
    the clock jumps. After the first kill the study goes on as a copy of its folder, by another name.
    """
    draw, runs, original = random.Random(seed), tmp_path / "runs", tmp_path / "runs" / "killed"
    folder = original
    # Long trials: a quick machine must not end the second one before it is killed.
    with Command("run", study, "--runs", runs, "--set=trials=2", "--set=search.epochs=9") as run:
        wait_until(lambda: len(list(folder.glob("checkpoints/0001-*/*.ckpt"))) == 2, run)
        time.sleep(draw.uniform(0, 0.3))
        run.kill()
        run.leaves_nothing()
    runs, name = tmp_path / "elsewhere", "copied"
    folder = shutil.copytree(original, runs / name)
    left = {path: path.read_bytes() for path in original.rglob("*") if path.is_file()}
    assert results.status(runs, name)["state"] == "interrupted"
    assert Ledger(folder).records()[0].state == "finished"
    newest = max(folder.glob("checkpoints/0001-*/*.ckpt"))
    for path in (newest, folder / "trials" / "0000.json", folder / "evaluations" / "0000.jsonl"):
        flip_a_bit(path, draw)

    clock, days = WallClock(tmp_path / "clock"), 86_400
    with Command("resume", name, "--runs", runs, environment=clock.environment) as run:
        wait_until(run.workers, run)
        clock.set(2 * days)
        run.workers()[0].kill()
        wait_until(lambda: "lost its worker" in (folder / "logs" / "study.log").read_text(), run)
        forward = results.status(runs, name)
        clock.set(-3 * days)
        code, _, err = run.end()
        assert code == 0, err
        run.leaves_nothing()
    assert newest.with_suffix(".damaged").exists()
    assert f"trial 1: {newest} is damaged" in (folder / "logs" / "study.log").read_text()
    assert f"{folder}/trials/0000.json is damaged: set aside as .damaged, the record before it is used" in err
    calm_study(study, tmp_path / "calm", trials=2, **{"search.epochs": 9})
    assert_equal(folder, tmp_path / "calm")
    assert forward["state"] == "running"  # its heartbeat is of the day after tomorrow, and its process lives
    assert (forward["seconds_left"] or 0) < 3_600
    assert results.status(runs, name)["cost"]["cpu_seconds"] < 3_600
    # Stamps are of the clock as it was. A trial may have finished before the clock was set, the last one did not.
    finished = min(record.finished for record in Ledger(folder).records().values())
    assert finished == pytest.approx(time.time() - 3 * days, abs=3_600)
    assert left == {path: path.read_bytes() for path in original.rglob("*") if path.is_file()}


@pytest.mark.chaos
def test_twenty_kills_at_random_instants(study: Path, tmp_path: Path, seed: int) -> None:
    """The long form. Most instants fall where a study spends its time; some in starting, some right at a resume."""
    draw, runs, folder = random.Random(seed), tmp_path / "runs", tmp_path / "runs" / "killed"
    kills, trials = 20, 9
    for kill in range(kills):
        command = ("run", study, f"--set=trials={trials}") if not kill else ("resume", "killed")
        with Command(*command, "--runs", runs) as run:
            if draw.random() < 0.7:  # while it trains; a trial more is done by every third kill or so
                before = saved(folder)
                wait_until(lambda run=run, old=before: saved(folder) - old or run.process.poll() is not None)
                time.sleep(draw.uniform(0, 3))
            else:
                if not kill:
                    wait_until((folder / "study.yaml").exists, run)
                time.sleep(draw.uniform(0, 20))
            done = sum(r.state != "running" for r in Ledger(folder).records().values())
            alive = run.process.poll() is None
            if alive:
                run.kill()
            run.leaves_nothing()
        print(
            f"kill {kill + 1}: {done} of {trials} trials done" + ("" if alive else ", it had already ended")
        )
        if not alive:
            break
    if alive:
        with Command("resume", "killed", "--runs", runs) as run:
            code, _, err = run.end(900)
            assert code == 0, err
            run.leaves_nothing()
    calm_study(study, tmp_path / "calm", trials=trials)
    assert_equal(folder, tmp_path / "calm")
    print("attempts:", [r.attempts for r in Ledger(folder).records().values()])


def saved(folder: Path) -> set[str]:
    """Names of the checkpoints that there are."""
    return {path.name for path in folder.glob("checkpoints/*/*.ckpt")}
