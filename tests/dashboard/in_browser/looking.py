"""What tests in a browser read off a page: when it stands, its texts, its figures' points."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import CHROMIUM, WAIT, ready, still
from playwright.sync_api import Page, expect

__all__ = ["NEEDS_BROWSER", "POINTS", "TEXTS", "WAIT", "ZOOM", "OpenPage", "keep", "ready", "settle", "still"]
NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install Debian's package `chromium`"),
]
OpenPage = Callable[..., Page]

# every visible piece of text of every figure, with where it stands
TEXTS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot =>
  [...plot.querySelectorAll('.main-svg text')].filter(text => text.textContent.trim()).map(text => {
    const box = text.getBoundingClientRect();
    return {text: text.textContent, left: box.left, right: box.right, top: box.top, bottom: box.bottom};
  }).filter(box => box.right > box.left))"""
POINTS = "() => document.querySelector('.js-plotly-plot').calcdata.map(trace => trace.length)"
ZOOM = "() => document.querySelector('.js-plotly-plot').layout.xaxis.range"


def settle(page: Page, figures: int = 1) -> None:
    """Wait until the figures stand and nothing on the page has failed."""
    charts = page.locator(".chart[aria-label]")
    for place in range(figures):  # a figure is drawn when somebody scrolls to it
        charts.nth(place).scroll_into_view_if_needed()
        expect(charts.nth(place).locator(".main-svg").first).to_be_visible()
    charts.first.scroll_into_view_if_needed()
    expect(page.locator(".js-plotly-plot")).to_have_count(figures)
    ready(page)
    still(page, lambda: page.locator(".js-plotly-plot").first.bounding_box())
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.get_by_text("Traceback").count() == 0


def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("SIZEWISE_SCREENSHOTS"):
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": 1280, "height": max(720, height)})
        page.wait_for_timeout(1_000)
        page.screenshot(path=Path(folder) / f"{name}.png")
        page.set_viewport_size({"width": 1280, "height": 720})
