import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from sizewise.figures import CONFIG, Axes, accuracy_against_iterations, accuracy_against_size, tradeoff_3d
from sizewise.figures.elements import style
from sizewise.figures.tradeoffs.iterations import _accuracy_against_iterations_info
from sizewise.figures.tradeoffs.size import _accuracy_against_size_info
from sizewise.figures.tradeoffs.tradeoff import _tradeoff_3d_info
from sizewise.results import Study, load
from sizewise.theory.bounds import memory_bound
from study_folder import FULL_BYTES, StudyWriter, finished_study

FIGURES = (accuracy_against_size, accuracy_against_iterations, tradeoff_3d)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    finished_study(tmp_path, "demo", trials=12)
    return load(tmp_path, "demo")


def test_every_candidate_is_shown_once_dimmed_or_on_the_front(study: Study) -> None:
    for info in (_accuracy_against_size_info(study), _tradeoff_3d_info(study)):
        shown = (
            pl.concat([info.dominated, info.front])
            .select("trial_id", "iteration")
            .sort("trial_id", "iteration")
        )
        assert shown.equals(study.candidates.select("trial_id", "iteration").sort("trial_id", "iteration"))
        assert info.front.height == study.front.height > 0


def test_the_envelope_is_the_best_auc_at_each_size_or_below(study: Study) -> None:
    envelope = _accuracy_against_size_info(study).envelope
    for size, auc in envelope.select("embedding_bytes", "auc").iter_rows():
        assert auc == study.candidates.filter(pl.col("embedding_bytes") <= size)["auc"].max()
    assert envelope["auc"].max() == study.candidates["auc"].max()
    assert envelope["auc"].is_sorted()


def test_points_on_the_figures_are_the_studys(study: Study) -> None:
    """What a click would return leads to the very evaluation that was drawn."""
    truth = {(r["trial_id"], r["iteration"]): r for r in study.candidates.iter_rows(named=True)}
    seen = 0
    for trace in accuracy_against_size(study).data:
        if trace.customdata is None:
            continue
        for (trial, iteration), x, y in zip(trace.customdata, trace.x, trace.y, strict=True):
            assert (x, y) == (truth[trial, iteration]["embedding_bytes"], truth[trial, iteration]["auc"])
            seen += 1
    assert seen == study.candidates.height
    for trace in tradeoff_3d(study).data:
        for (trial, iteration), x, y, z in zip(trace.customdata, trace.x, trace.y, trace.z, strict=True):
            row = truth[trial, iteration]
            assert (x, y, z) == (row["embedding_bytes"], row["iteration"], row["auc"])


def test_a_line_a_trial_in_the_order_of_iterations(study: Study) -> None:
    *lines, _ = accuracy_against_iterations(study).data
    drawn: dict[int, list[tuple[float, float]]] = {}
    for line in lines:
        trials = line.customdata[:, 0]
        # a gap after every trial keeps one line from running into the next
        ends = np.flatnonzero(np.isnan(line.x))
        assert (trials[ends] == -1).all()
        assert len(ends) == len(set(trials) - {-1})
        for trial, x, y in zip(trials, line.x, line.y, strict=True):
            if trial >= 0:
                drawn.setdefault(int(trial), []).append((x, y))
    for trial, curve in study.candidates.group_by("trial_id"):
        assert drawn[int(trial[0])] == list(curve.sort("iteration").select("iteration", "auc").iter_rows())


def test_larger_models_are_lighter_and_each_size_has_its_shade(study: Study) -> None:
    *lines, _ = accuracy_against_iterations(study).data
    shades = [style.COLORS.index(line.line.color) for line in lines]
    assert shades == sorted(set(shades))
    assert (shades[0], shades[-1]) == (0, len(style.COLORS) - 1)
    smallest = study.candidates.sort("embedding_bytes")["trial_id"][0]
    assert smallest in lines[0].customdata[:, 0]


def test_size_axes_are_logarithmic_in_human_units_with_compression_above(study: Study) -> None:
    layout = accuracy_against_size(study).layout
    assert layout.xaxis.type == "log"
    labels = dict(zip(layout.xaxis.tickvals, layout.xaxis.ticktext, strict=True))
    assert labels[1_000] == "1 kB"
    assert labels[1_000_000] == "1 MB"
    assert "bytes" in layout.xaxis.title.text
    above = dict(zip(layout.xaxis2.ticktext, layout.xaxis2.tickvals, strict=True))
    assert above["1,000x"] == pytest.approx(22_000)
    assert layout.xaxis2.matches == "x"
    scene = tradeoff_3d(study).layout.scene
    assert (scene.xaxis.type, scene.yaxis.type) == ("log", "log")
    assert "10 kB" in scene.xaxis.ticktext


def test_the_bound_of_theory_is_drawn_over_the_measurements(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "bound", trials=1)
    writer.trial(0)
    record = json.loads((writer.folder / "trials/0000.json").read_text())
    writer.json("trials/0000.json", record | {"config": record["config"] | {"dim": 16}})
    layout = accuracy_against_size(load(tmp_path, "bound"), epsilon=0.3).layout
    (line,) = layout.shapes
    (text,) = [note.text for note in layout.annotations if "ε" in (note.text or "")]
    assert "dense projection" in text
    assert "no bound for hash and robe" in text
    expected = memory_bound(FULL_BYTES // 64, 16, 0.3).bytes
    assert (line.x0, line.x1) == (expected, expected)
    assert not accuracy_against_size(load(tmp_path, "bound")).layout.shapes


def test_nothing_offers_to_send_a_figure_away() -> None:
    assert CONFIG["showSendToCloud"] is False
    assert CONFIG["plotlyServerURL"] == ""


def test_a_narrow_range_still_has_ticks_inside(study: Study) -> None:
    assert [t for t in style.ticks([40, 110]) if 40 <= t <= 110] == [50, 100]
    assert [t for t in style.ticks([2e3, 2e7]) if 2e3 <= t <= 2e7] == [1e4, 1e5, 1e6, 1e7]


def test_zoom_survives_a_redraw_of_the_same_study_only(study: Study) -> None:
    for draw in FIGURES:
        assert draw(study).layout.uirevision == "demo"


def test_large_studies_are_thinned_but_keep_front_ends_and_trials(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "large", trials=60)
    for trial_id in range(60):
        writer.trial(trial_id, 2_000 + 40_000 * trial_id, evaluations=200)
    study = load(tmp_path, "large")
    assert study.candidates.height == 12_000
    assert _accuracy_against_size_info(study).dominated.height <= style.MOST_POINTS
    curves = _accuracy_against_iterations_info(study).curves
    assert style.MOST_POINTS < curves.height <= 4 * style.MOST_POINTS
    first = study.candidates.group_by("trial_id").agg(pl.col("iteration").min()).sort("trial_id")
    assert curves.group_by("trial_id").agg(pl.col("iteration").min()).sort("trial_id").equals(first)
    last = study.candidates.group_by("trial_id").agg(pl.col("iteration").max()).sort("trial_id")
    assert curves.group_by("trial_id").agg(pl.col("iteration").max()).sort("trial_id").equals(last)


def test_studies_with_little_or_nothing_are_drawn(tmp_path: Path) -> None:
    StudyWriter(tmp_path, "none")
    writer = StudyWriter(tmp_path, "one", data={})
    writer.evaluation(0, 10, 0.7)
    writer.ledger(0, "running")
    writer = StudyWriter(tmp_path, "undefined")
    writer.evaluation(0, 10, None)
    writer.ledger(0)
    for name in ("none", "one", "undefined"):
        for draw in FIGURES:
            figure = draw(load(tmp_path, name))
            assert isinstance(figure, go.Figure)
            assert figure.to_json()


def test_replicates_are_drawn_as_intervals(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "replicated", trials=4)
    for trial_id in range(4):
        writer.evaluation(trial_id, 40, 0.75 + 0.001 * (trial_id % 2), replicate=trial_id % 2)
        writer.ledger(trial_id, configuration=trial_id // 2, replicate=trial_id % 2)
    study = load(tmp_path, "replicated")
    front = next(trace for trace in accuracy_against_size(study).data if trace.name == "Pareto front")
    (row,) = study.front.iter_rows(named=True)
    assert row["auc"] == pytest.approx(0.7505)
    assert list(front.y) == [row["auc"]]
    assert front.error_y.array[0] == pytest.approx(row["auc_high"] - row["auc"])
    assert front.error_y.arrayminus[0] == pytest.approx(row["auc"] - row["auc_low"])
    alone = next(
        t for t in accuracy_against_size(study, axes=Axes(score="logloss")).data if t.name == "Pareto front"
    )
    assert alone.error_y.array[0] == 0.0  # these seeds have one log-loss


def test_of_more_curves_than_fit_some_are_drawn_with_their_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "MOST_POINTS", 40)
    writer = StudyWriter(tmp_path, "many", trials=60)
    for trial_id in range(60):
        writer.trial(trial_id, 2_000 + 40_000 * trial_id, evaluations=30)
    study = load(tmp_path, "many")
    curves = _accuracy_against_iterations_info(study).curves
    counts = curves.group_by("trial_id").len()["len"]
    assert len(counts) == 20
    assert counts.min() >= 6
    assert curves.height <= 160
    assert "20 trials as lines" in accuracy_against_iterations(study).layout.title.subtitle.text
