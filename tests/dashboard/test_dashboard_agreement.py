"""One choice, one evaluation: the sentence, the card, the figure, `choose`, `status` and the report name the same."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sizewise import cli
from sizewise.figures.paper.page_one import options
from sizewise.figures.tradeoffs.decision import View, _decision_info
from sizewise.metrics.errors import encoded
from sizewise.metrics.scores import GROUPS
from sizewise.results import Study, answer, load, status
from sizewise.results.decision.intervals import point
from sizewise_core.units import format_auc, format_bytes, format_count
from sizewise_dashboard.decision import card
from sizewise_dashboard.decision.limits import Asked, Limits
from study_folder import StudyWriter

STUDIES = 120
_WITH_COMMAND = 6  # every so many studies `choose` is run and the table of options made too


def _simulated(runs: Path, number: int) -> Study:
    """A small study whose models lie about the tolerance from each other, with as much else as studies may have."""
    rng = np.random.default_rng([20, number])
    trials = int(rng.integers(1, 7))
    seeds, rounds, limits, fails = rng.random(4) < (0.25, 0.3, 0.2, 0.2)
    rules = {"constraints": {"embedding_bytes": {"max": 3e6}}} if limits else {}
    writer = StudyWriter(runs, f"s{number}", trials=trials, **rules)
    size = 0
    for trial_id in range(trials):
        drawn = int(rng.choice([30_000_000, 2_000_000, 2_000_000, 30_000, 20_400]))
        several = bool(seeds) and trial_id % 2 == 1
        size = size if several else drawn  # as the other seed
        for step in range(1, int(rng.integers(2, 6))):
            auc = 0.75 + float(np.round(rng.normal(0, 0.0015), 5))
            parts = encoded(rng.normal(0, rng.choice([0.0001, 0.0008]), GROUPS) / GROUPS**0.5)
            smaller = {"int4": {"auc": auc - float(rng.uniform(0, 0.001)), "embedding_bytes": size // 8}}
            more = {"in_storages": smaller} if rounds and step > 1 else {}
            more |= {"auc_parts": parts} if number % 7 else {}
            writer.evaluation(trial_id, 50 * step, auc, embedding_bytes=size, replicate=int(several), **more)
        values = _best(writer, trial_id)
        config = {"also_stored_as": ["int4"]} if rounds else {}
        state = "failed" if fails and trial_id == 1 else "finished"
        of = trial_id - 1 if several else trial_id
        writer.ledger(
            trial_id, state, config=config, values=values, configuration=of, replicate=trial_id - of
        )
    writer.driver("finished")
    return load(runs, f"s{number}")


def _best(writer: StudyWriter, trial_id: int) -> dict[str, float]:
    """What the ledger says of a trial."""
    lines = (writer.folder / f"evaluations/{trial_id:04d}.jsonl").read_text().splitlines()
    best = max((json.loads(line) for line in lines), key=lambda row: row["auc"])
    return {
        "auc": best["auc"],
        "embedding_bytes": best["embedding_bytes"],
        "iterations": best["iteration"],
    }


def _identity(one: object) -> tuple[int, int, str | None]:
    named = one if isinstance(one, dict) else vars(one)
    return named["trial_id"], named["iteration"], named["stored_as"]


@pytest.mark.slow
def test_everything_names_one_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = set()
    for number in range(STUDIES):
        study = _simulated(tmp_path, number)
        if study.candidates.is_empty():
            continue
        found = answer(study)
        one, best = found.smallest, found.best
        assert one is not None
        assert best is not None
        kinds.add((one.stored_as, _identity(one) == _identity(best), one.trial_id == best.trial_id))

        assert f"AUC {format_auc(one.auc)}" in found.sentence, found.sentence
        assert format_bytes(one.embedding_bytes) in found.sentence
        assert one.auc >= best.auc - 0.002 - 1e-9
        if one.embedding_bytes == best.embedding_bytes:
            assert _identity(one) == _identity(best)

        now = status(tmp_path, study.name)
        assert now["smallest"] is not None
        assert now["best"] is not None
        assert _identity(now["smallest"]) == _identity(one)
        assert _identity(now["best"]) == _identity(best)

        limits = Limits(reference=float(study.candidates["auc"].max()))  # type: ignore[arg-type]
        choice, why, lost = limits.choose(study)
        assert (choice, why, lost) == (one, found.sentence, found.loss)
        row = point(study, choice.trial_id, choice.iteration, choice.stored_as)
        said = card.facts(study, row, Asked(limits, lost=lost))
        assert said["AUC"].startswith(format_auc(one.auc))
        assert said["Iterations"].startswith(format_count(one.iteration))
        if "Against the best trial" in said and lost is not None:
            assert said["Against the best trial"] == lost.detail
        ringed = _decision_info(study, View(choice=choice)).chosen
        assert _identity({"stored_as": None, **ringed.row(0, named=True)}) == _identity(one)

        if number % _WITH_COMMAND:
            continue
        (listed,) = (cells for cells in options(study, found) if "answer" in cells[""])
        assert listed["trial"] == str(one.trial_id)
        assert listed["iterations"] == format_count(one.iteration)
        assert listed["AUC (95 %)"].startswith(format_auc(one.auc))
        monkeypatch.setattr(
            sys, "argv", ["sizewise", "choose", study.name, "--runs", str(tmp_path), "--json"]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        chosen = json.loads(capsys.readouterr().out)
        assert _identity(chosen) == _identity(one)
        assert chosen["sentence"] == found.sentence
        assert _identity(chosen["smallest"]) == _identity(one)
    # Among them are answers that are the best model itself, smaller ones, and rounded ones.
    assert {(None, True, True), (None, False, False)} <= kinds
    assert pl.Series([stored == "int4" for stored, *_ in kinds]).any()
