"""One choice, one evaluation: the sentence, the card, the figure, `choose`, `status` and the report name the same."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.dashboard.content.pages import Open

from sizewise import cli
from sizewise.figures import accuracy_against_iterations, accuracy_against_size, tradeoff_3d
from sizewise.figures.elements import words
from sizewise.figures.paper.page_one import options
from sizewise.figures.tradeoffs.decision import View, _decision_info, decision
from sizewise.metrics.errors import encoded
from sizewise.metrics.scores import GROUPS
from sizewise.results import Study, answer, load, status
from sizewise.results.decision.baseline import Baseline
from sizewise.results.decision.intervals import difference, interval, point, with_best
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


def _with_seeds(runs: Path) -> Study:
    """Two configurations with two seeds each, and a third with one; errors of both scores are kept."""
    rng = np.random.default_rng(3)
    writer = StudyWriter(runs, "seeds", trials=5)
    common = rng.normal(0, 0.0005, GROUPS)
    for trial_id in range(5):
        of = min(trial_id // 2 * 2, 4)
        for step in (1, 2):
            parts = {f"{score}_parts": encoded(common + rng.normal(0, 5e-5, GROUPS)) for score in _SCORES}
            auc, size = 0.75 - 0.001 * of + 0.0004 * (trial_id % 2) + 0.0002 * step, 10 ** (7 - of // 2)
            loss = 0.5 + 0.002 * of + 0.0001 * trial_id
            writer.evaluation(
                trial_id,
                50 * step,
                auc,
                logloss=loss,
                embedding_bytes=size,
                replicate=trial_id - of,
                **parts,
            )
        writer.ledger(trial_id, configuration=of, replicate=trial_id - of)
    writer.driver("finished")
    return load(runs, "seeds")


_SCORES = ("auc", "logloss")


@pytest.mark.slow
def test_tables_tooltips_downloads_and_report_have_the_same_intervals(
    tmp_path: Path, show: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of both scores, with the part of seeds apart from that of rows, and with differences to the best."""
    study = _with_seeds(tmp_path)
    best = answer(study).best
    assert best is not None
    front = with_best(study, study.front)
    row = front.row(0, named=True)
    for score in _SCORES:
        reference = point(study, best.trial_id, best.iteration)
        apart = difference(study, front.head(1), reference, score)
        own = interval(study, front.head(1), score)
        assert (row[f"{score}_to_best"], row[f"{score}_to_best_low"]) == (apart.value, apart.low)
        assert (row[f"{score}_low"], row[f"{score}_seed_error"]) == pytest.approx((own.low, own.seeds_error))
        assert apart.basis == "paired"
        # Paired on the same rows, and so surer than the score itself.
        assert apart.rows_error < 0.3 * own.rows_error

    def printed(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["sizewise", *map(str, words), "--runs", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    listed = json.loads(printed("results", "seeds", "--table", "front", "--json"))["rows"]
    assert listed[0] == pytest.approx(row, nan_ok=True) or listed[0] == row
    printed("report", "seeds", "--out", tmp_path / "r.html")
    report = (tmp_path / "r.html").read_text()
    (line, *_) = (
        line for line in words.scores(row) if line.startswith("  to the best") and "log" not in line
    )
    assert f"<td>{line.removeprefix('  to the best ')}</td>" in report
    assert f"<td>{row['auc_seed_error']:.4f}</td>" in report
    hovers = [text for trace in decision(study, View()).data for text in trace.text or []]
    assert any("by rows" in text and "by seeds" in text and "log-loss 0.5" in text for text in hovers)
    for figure in (accuracy_against_size(study), accuracy_against_iterations(study), tradeoff_3d(study)):
        texts = [text for trace in figure.data for text in (trace.text if trace.text is not None else [])]
        assert any("<br>  to the best -" in text for text in texts)
    table = show("decide", "seeds", view="Pareto front").dataframe[0].value
    assert table["AUC to the best"].to_list() == front["auc_to_best"].to_list()
    assert table["log-loss's error by seeds"].to_list() == front["logloss_seed_error"].to_list()
    today = Baseline("today", 0.7495, bytes=3_000_000)
    (line,) = (trace for trace in tradeoff_3d(study, today=today).data if trace.name == "today, AUC 0.7495")
    assert [*line.x, *line.z] == [3_000_000, 3_000_000, 0.7495, 0.7495]
    assert list(line.y) == [50, 100]
    unsized = tradeoff_3d(study, today=replace(today, bytes=None))
    assert "is not shown here: its size is not known" in unsized.layout.title.subtitle.text
