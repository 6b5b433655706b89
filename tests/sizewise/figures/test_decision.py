"""The figure to decide on: a point a trial, what fits lit, the limits as lines, and colours that can be seen."""

from pathlib import Path

import polars as pl
import pytest
from plotly.colors import unlabel_rgb

from sizewise.figures.elements import style
from sizewise.figures.tradeoffs.decision import SCORE_LINE, SIZE_LINE, View, _decision_info, decision
from sizewise.results import choose, load
from study_folder import StudyWriter, finished_study


def test_a_point_a_trial_and_what_fits_is_lit(tmp_path: Path) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    choice = choose(study, max_bytes=150_000, min_auc=0.74)
    view = View(150_000, 0.74, "", (pl.col("embedding_bytes") <= 150_000) & (pl.col("auc") >= 0.74), choice)
    info = _decision_info(study, view)
    assert info.points["trial_id"].sort().to_list() == list(range(12))
    for row in info.points.iter_rows(named=True):
        best = study.evaluations.filter(trial_id=row["trial_id"])["auc"].max()
        assert row["auc"] == best
        assert row["fits"] == (row["embedding_bytes"] <= 150_000 and best >= 0.74)
    figure = decision(study, view)
    assert {shape.name for shape in figure.layout.shapes} == {SIZE_LINE, SCORE_LINE}
    (ring,) = (trace for trace in figure.data if trace.name == "the choice")
    assert list(ring.customdata[0]) == [choice.trial_id, choice.iteration]


def test_each_method_has_a_line_and_a_symbol_of_its_own(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "demo", trials=6)
    for trial in range(6):
        writer.trial(trial, 10 ** (3 + trial))
        config = {
            "memory_budget": 10 ** (3 + trial),
            "method": ("robe", "hash")[trial % 2],
            "storage": "int4",
        }
        writer.ledger(trial, config=config, values={"auc": 0.7})
    figure = decision(load(tmp_path, "demo"), View())
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert {line.name for line in lines} == {"hash", "robe"}
    assert len({line.line.dash for line in lines}) == 2
    symbols = {
        t.name: t.marker.symbol for t in figure.data if t.name in ("hash", "robe") and t.mode == "markers"
    }
    assert len(set(symbols.values())) == 2
    assert "int4" in next(t.text[0] for t in figure.data if t.text is not None)


@pytest.mark.parametrize(("ramp", "page"), [(style.COLORS, "#ffffff"), (style.DARK_COLORS, "#0e1117")])
def test_every_colour_of_a_ramp_can_be_told_from_the_page(ramp: list[str], page: str) -> None:
    """By WCAG's contrast, of which 3:1 is the least for what is drawn."""
    for color in [*ramp, *style.CHOSEN, *style.LINES, style.DIMMED, style.OUTLINE]:
        assert _contrast(color, page) >= 3, color


def _contrast(one: str, other: str) -> float:
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) for at in (1, 3, 5)] if color[0] == "#" else unlabel_rgb(color)
    red, green, blue = (
        part / 3294.6 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
