"""Figures for paper: vector graphics with embedded fonts, their data and captions; and the first page of the report."""

import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

from sizewise import cli
from sizewise.figures.paper import paper, report
from sizewise.results import answer, load
from sizewise.results.decision.baseline import Baseline
from sizewise_core.errors import InputError
from study_folder import StudyWriter, finished_study

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    writer = finished_study(runs, "done")
    for trial_id in range(0, 12, 2):
        config = {"memory_budget": 20_000, "epochs": 3, "method": "qr"}
        writer.ledger(trial_id, config=config)
    return runs


@pytest.mark.parametrize("kind", paper.KINDS)
def test_figures_have_embedded_fonts_their_data_and_a_caption(
    kind: paper.Kind, runs: Path, tmp_path: Path
) -> None:
    study = load(runs, "done")
    out = tmp_path / "fig.pdf"
    found = paper.write(study, kind, out, 3.3)
    content = out.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType, embedded
    assert b"/Subtype /Image" not in content
    width = float(content.split(b"/MediaBox [ 0 0 ")[1].split()[0]) / 72
    assert width == pytest.approx(3.3, abs=0.1)
    data = pl.read_csv(tmp_path / "fig.csv")
    assert data.height == found.data.height > 5
    assert set(data["kind"]) == {"robe", "qr"} or kind == "iterations"
    caption = (tmp_path / "fig.txt").read_text()
    assert (
        f"{6 if kind == 'iterations' else 12} trials of study done on 10,000 validation rows, one seed each"
        in caption
    )
    again = paper.drawn(study, kind)
    assert again.content == content
    if kind == "tradeoff":
        chosen = answer(study).smallest
        assert chosen is not None
        assert data.filter("answer")["trial_id"].to_list() == [chosen.trial_id]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--out", "fig.docx"], "figures are written as the name ends, in .pdf, .svg, .eps, .png"),
        (["--out", "fig.pdf", "--width", "wide"], "--width: 'wide' is no width: give one such as 3.3in"),
        (["--out", "fig.pdf", "--width", "300in"], "a figure is 1 to 30 inches wide"),
        (["--out", "no/such/fig.pdf"], "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    options: list[str],
    says: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["sizewise", "figure", "done", "--runs", str(runs), "--kind", "tradeoff", *options]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert says in " ".join(capsys.readouterr().err.split())
    StudyWriter(tmp_path, "none")
    with pytest.raises(InputError, match="There is nothing to draw"):
        paper.drawn(load(tmp_path, "none"), "methods")


def test_it_is_as_wide_as_asked_and_shows_what_runs_today(runs: Path, tmp_path: Path) -> None:
    study, today = load(runs, "done"), Baseline("today.pt2", 0.76, 20_000_000)
    drawn = paper.drawn(study, "tradeoff", "svg", 3.3, today)
    assert b'width="237.6pt"' in drawn.content
    assert "The broken line is today.pt2 (AUC 0.7600, 20 MB)" in drawn.caption
    assert drawn.content.count(b"stroke-dasharray: 3.2,1.6") == 3  # the legend's, the AUC's, the size's


def test_the_first_page_of_the_report_has_figure_options_and_caveats(runs: Path, tmp_path: Path) -> None:
    study = load(runs, "done")
    report.write(study, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    first = page[page.index('<section class="page-one">') : page.index('<section class="appendix">')]
    assert first.count("<svg") == 1
    rows = first.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    assert len(rows) == 5
    found = answer(study)
    assert found.smallest is not None
    (chosen,) = [row for row in rows if "<td>answer" in row]
    assert f"<td>{found.smallest.trial_id}</td>" in chosen
    assert f"sizewise export done --runs {runs} --trial {found.smallest.trial_id}" in first
    assert "one seed" in first
    assert "http" not in first
    assert "@media print" in page


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_report_prints_whole_on_a4_and_letter(runs: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    today = Baseline("today.pt2", 0.76, 20_000_000)
    report.write(load(runs, "done"), tmp_path / "r.html", today)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto((tmp_path / "r.html").as_uri())
        for paper_format in ("A4", "Letter"):
            content = page.pdf(format=paper_format, path=tmp_path / f"{paper_format}.pdf")
            assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") >= 2
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 690, "height": 990})  # of A4 without its margins
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function("document.documentElement.scrollWidth <= 700")
        page.locator("#tradeoff").wait_for(state="hidden")
        assert "today.pt2" in page.locator(".page-one").inner_text()
        # The first page is one page.
        page.wait_for_function("document.querySelector('.page-one').getBoundingClientRect().bottom <= 990")
        browser.close()


def test_the_ring_is_around_the_very_evaluation_that_is_the_answer(tmp_path: Path) -> None:
    """An earlier one than its trial's best, and in one storage alone; its curve is among those over iterations."""
    writer = StudyWriter(tmp_path, "s", trials=14)
    for trial_id in range(14):
        size = round(2e7 / 2**trial_id)
        for step in (1, 2, 3):
            auc = 0.75 - 0.0003 * trial_id - 0.0005 * (3 - step) - (0.02 if trial_id > 6 else 0.0)
            rounded = {"int4": {"auc": auc - 0.01, "embedding_bytes": size // 8}}
            writer.evaluation(trial_id, 100 * step, auc, embedding_bytes=size, in_storages=rounded)
        writer.ledger(trial_id, config={"also_stored_as": ["int4"], "method": "robe"})
    writer.driver("finished")
    study = load(tmp_path, "s")
    one = answer(study).smallest
    assert one is not None
    assert (one.trial_id, one.iteration) == (6, 300 if one.auc > 0.7481 else 200)
    data = paper.drawn(study, "tradeoff", "svg").data
    ringed = data.filter("answer").row(0, named=True)
    assert data["answer"].sum() == 1
    assert (ringed["trial_id"], ringed["iteration"], ringed["stored_as"]) == (6, one.iteration, None)
    assert data.filter(pl.col("stored_as").is_null(), trial_id=6)["iteration"].max() == 300
    assert 6 in paper.drawn(study, "iterations", "svg").data["trial_id"].to_list()
