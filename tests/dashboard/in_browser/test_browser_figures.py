"""Figures in a real Chromium: no text overlaps, points are clicked, limits dragged, zooms kept, downloads complete."""

import os
import re
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.in_browser.looking import (
    NEEDS_BROWSER,
    POINTS,
    TEXTS,
    WAIT,
    ZOOM,
    OpenPage,
    keep,
    ready,
    settle,
    still,
)

from sizewise.figures.paper import report
from sizewise.results import load
from study_folder import StudyWriter

pytestmark = NEEDS_BROWSER


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two boxes share more than a pixel's edge."""
    across = min(one["right"], other["right"]) - max(one["left"], other["left"])
    along = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return across > 1 and along > 1


@pytest.mark.parametrize(("study", "width"), [("finished", 1920), ("single", 1280), ("huge", 1280)])
def test_no_text_of_a_figure_overlaps_another_or_is_cut_off(
    address: str, page: Page, study: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 720})
    page.goto(f"{address}/decide?study={study}&view=All evaluations")
    settle(page, 2)
    keep(page, f"{study}-{width}")
    page.set_viewport_size({"width": width, "height": 720})
    figures = still(page, lambda: page.evaluate(TEXTS))
    assert [len(texts) > 5 for texts in figures] == [True, True]
    plots = page.evaluate("""() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => {
        const box = plot.getBoundingClientRect(); return [box.left, box.right, box.top, box.bottom]})""")
    for texts, (left, right, top, bottom) in zip(figures, plots, strict=True):
        assert [(a["text"], b["text"]) for a, b in combinations(texts, 2) if _overlap(a, b)] == []
        for text in texts:
            assert left - 1 <= text["left"] <= text["right"] <= right + 1, text
            assert top - 1 <= text["top"] <= text["bottom"] <= bottom + 1, text


def test_a_running_study_grows_while_it_is_looked_at(address: str, runs: Path, page: Page) -> None:
    writer = StudyWriter(runs, "growing", trials=8)
    writer.driver("running")
    writer.trial(0, 2_000_000)
    writer.trial(1, 20_000)
    page.goto(f"{address}/decide?study=growing")
    settle(page)
    before = page.evaluate(POINTS)

    plot = page.locator(".js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    area = still(page, plot.locator(".nsewdrag").first.bounding_box)
    assert area is not None
    whole = page.evaluate(ZOOM)
    page.mouse.move(area["x"] + area["width"] * 0.1, area["y"] + area["height"] * 0.1)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.7, area["y"] + area["height"] * 0.9, steps=5)
    page.mouse.up()
    page.wait_for_function(f"before => ({ZOOM})()[0] > before[0]", arg=whole)
    zoomed = still(page, lambda: page.evaluate(ZOOM))
    plot.evaluate("plot => plot.dataset.mark = 'the same element'")

    writer.trial(2, 6_000_000, evaluations=9)
    writer.driver("running")
    page.wait_for_function(
        f"before => ({POINTS})().reduce((a, b) => a + b) > before", arg=sum(before), timeout=WAIT
    )
    expect(page.get_by_text("So far, with 3 of 8 trials finished").first).to_be_visible()
    assert page.evaluate(ZOOM) == zoomed  # looking closer survives the news
    assert plot.get_attribute("data-mark") == "the same element"  # redrawn, not replaced: no flicker
    keep(page, "growing")

    writer.driver("finished")
    expect(page.get_by_text("So far")).to_have_count(0)


def _picked(row: dict[str, Any]) -> re.Pattern[str]:
    """How the note on a picked point begins; the list of other answers may name the same evaluation."""
    found = f"Trial {row['trial_id']} at iteration {row['iteration']}: AUC {row['auc']:.4f}"
    return re.compile("^" + re.escape(found))


def test_a_click_on_a_point_leads_to_its_trial(address: str, runs: Path, page: Page) -> None:
    page.goto(f"{address}/decide?study=finished")
    settle(page)
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    largest = """() => {
        const plot = document.querySelector('.js-plotly-plot');
        const front = plot.data.findLastIndex(trace => trace.name == 'robe' && trace.customdata);
        const {x, y} = plot.calcdata[front].at(-1);  // the largest model's
        const {xaxis, yaxis} = plot._fullLayout;
        const box = plot.getBoundingClientRect();
        return [box.left + xaxis._offset + xaxis.c2p(x), box.top + yaxis._offset + yaxis.c2p(y)];
    }"""
    page.mouse.click(*still(page, lambda: page.evaluate(largest)))
    rows = load(runs, "finished").evaluations.filter(trial_id=11).sort("auc", descending=True)
    last = rows.row(0, named=True)
    said = _picked(last)
    expect(page.get_by_text(said)).to_be_visible()
    links = page.get_by_role("link", name="Open the trial", exact=True)
    expect(links).to_have_count(2)  # the card's, and a little later that of what is picked
    links.last.click()
    expect(page.get_by_text("memory_budget: 20000000").first).to_be_visible()
    page.wait_for_url(f"**trials={last['trial_id']}*")
    keep(page, "trial")


def test_keys_alone_pick_a_point_zoom_and_download(address: str, runs: Path, page: Page) -> None:
    page.goto(f"{address}/decide?study=finished")
    settle(page)
    on_chart = "document.activeElement.classList.contains('chart')"
    for _ in range(40):
        if page.evaluate(on_chart):
            break
        page.keyboard.press("Tab")
    assert page.evaluate(on_chart)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    stops = load(runs, "finished").evaluations.sort("auc", descending=True).unique("trial_id", keep="first")
    second = stops.filter(trial_id=1).row(0, named=True)
    expect(page.locator(".said").first).to_contain_text(
        f"Trial {second['trial_id']}, iteration {second['iteration']}"
    )
    page.keyboard.press("Enter")
    said = _picked(second)
    expect(page.get_by_text(said)).to_be_visible()
    assert page.evaluate(on_chart)  # the focus stays where the reader is
    whole = page.evaluate(ZOOM)
    page.keyboard.press("+")
    page.wait_for_function(f"before => ({ZOOM})()[0] > before[0]", arg=whole)
    page.keyboard.press("0")
    page.wait_for_function(f"before => ({ZOOM})()[0] <= before[0]", arg=whole)
    page.locator("[data-title='Download plot as an SVG']").first.focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert b"<svg" in Path(download.value.path()).read_bytes()[:200]


LINE = """name => {
    const plot = document.querySelector('.js-plotly-plot');
    const {xaxis, yaxis, shapes} = plot._fullLayout;
    const shape = shapes.find(shape => shape.name === name);
    const box = plot.getBoundingClientRect();
    const across = name === 'floor' ? xaxis._length * 0.6 : xaxis.d2p(shape.x0);
    const along = name === 'floor' ? yaxis.d2p(shape.y0) : yaxis._length * 0.6;
    return [box.left + xaxis._offset + across, box.top + yaxis._offset + along];
}"""


def test_limits_are_dragged_or_typed_and_a_link_holds_them(
    address: str, page: Page, open_page: OpenPage
) -> None:
    page.goto(f"{address}/decide?study=finished")
    settle(page)
    card = page.locator(".sizewise-card h3")
    first = card.inner_text()
    for name, move in (("max_bytes", (-200, 0)), ("floor", (0, 90))):
        ready(page)
        x, y = still(page, lambda name=name: page.evaluate(LINE, name))  # type: ignore[misc]
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + move[0], y + move[1], steps=5)
        page.mouse.up()
        field = page.get_by_label("Size at most" if name == "max_bytes" else "AUC lost at most")
        expect(field).not_to_have_value("" if name == "max_bytes" else "0.002")
    page.wait_for_url("**max_bytes=**")
    expect(card).not_to_have_text(first)  # more may be lost, so a smaller one fits
    page.get_by_label("Size at most").fill("150 kB")
    page.get_by_label("AUC lost at most").fill("")
    page.get_by_label("AUC lost at most").press("Enter")
    expect(page.get_by_text("Take trial 5 (132 kB)").first).to_be_visible()
    page.wait_for_url("**max_bytes=150*")
    other = open_page()
    other.goto(page.url.replace("/decide?", "/choose?"))  # as links of earlier versions begin
    expect(other.get_by_text("Take trial 5 (132 kB)").first).to_be_visible()
    keep(other, "limits")


def test_figures_are_light_on_a_dark_page(address: str, open_page: OpenPage) -> None:
    page = open_page(color_scheme="dark")
    page.goto(f"{address}/decide?study=finished")
    settle(page)
    color = page.locator(".js-plotly-plot .xtick text").first.evaluate("text => getComputedStyle(text).fill")
    assert min(int(part) for part in color.strip("rgb()").split(",")[:3]) > 180
    keep(page, "dark")


def test_the_report_draws_its_figures_without_any_network(
    runs: Path, open_page: OpenPage, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    report.write(load(runs, "finished"), out)
    page, asked = open_page(offline=True), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(out.as_uri())
    expect(page.locator(".js-plotly-plot .main-svg").nth(0)).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg:first-child")).to_have_count(8)
    page.wait_for_load_state("networkidle")
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data", "blob"}
    if folder := os.environ.get("SIZEWISE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "report.png", full_page=True)


def test_a_link_holds_what_is_picked_and_figures_and_tables_download(
    address: str, runs: Path, page: Page, open_page: OpenPage, tmp_path: Path
) -> None:
    page.goto(f"{address}/decide?study=finished&trials=5,8&score=log-loss&view=All evaluations")
    settle(page, 2)
    expect(page.get_by_role("link", name="Compare the trials", exact=True)).to_be_visible()
    names = "() => [...document.querySelectorAll('.js-plotly-plot')].at(-1).data.map(trace => trace.name)"
    assert page.evaluate(names)[-2:] == ["trial 5", "trial 8"]
    label = page.get_by_role("figure").last.get_attribute("aria-label")
    assert label is not None
    assert label.startswith("Validation log-loss against size")

    page.locator(".js-plotly-plot").last.hover()
    with page.expect_download() as download:
        page.locator("[data-title='Download plot as an HTML file']").last.click()
    download.value.save_as(tmp_path / "figure.html")
    with page.expect_download() as download:
        page.locator("[data-title='Download plot as a PNG']").last.click()
    assert Path(download.value.path()).read_bytes()[:4] == b"\x89PNG"
    page.get_by_role("tab", name="Pareto front", exact=True).click()
    ready(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download Parquet").click()
    assert pl.read_parquet(download.value.path()).height == load(runs, "finished").front.height

    offline = open_page(offline=True)
    offline.goto((tmp_path / "figure.html").as_uri())
    expect(offline.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert offline.evaluate(names)[-2:] == ["trial 5", "trial 8"]
