"""What people do with the dashboard, in a real Chromium: open, zoom, watch a study grow, click, share a link.

Set SIZEWISE_SCREENSHOTS to a folder to keep a picture of every page.
"""

import gzip
import re
from pathlib import Path
from urllib.request import Request, urlopen

from playwright.sync_api import Page, Route, expect
from tests.dashboard.in_browser.looking import NEEDS_BROWSER, keep, ready, settle, still

from sizewise.results import answer, load
from sizewise_dashboard.elements import notes

pytestmark = NEEDS_BROWSER


def test_every_page_asks_for_scripts_that_are_there_and_may_be_kept(address: str) -> None:
    """The page names scripts of Streamlit and Plotly by what they are called today."""
    for name in ("", "decide", "trials", "explore", "compare", "data"):
        with urlopen(f"{address}/{name}?study=any") as answer:
            assert answer.headers["cache-control"] == "no-cache"
            sources = set(re.findall(r'(?:src|href)="\./([^"]+\.js)"', answer.read().decode()))
        assert any("BidiComponent" in source for source in sources)
    (plotly,) = (source for source in sources if source.startswith("plotly-"))
    with urlopen(f"{address}/{plotly}") as answer:
        whole = answer.read().decode()
    assert whole.startswith('"use strict";var Plotly=')
    assert whole.rstrip().endswith("window.Plotly = Plotly;")
    for source in sources:
        with urlopen(Request(f"{address}/{source}", headers={"Accept-Encoding": "gzip"})) as answer:
            assert answer.headers["content-type"].startswith("text/javascript")
            assert "immutable" in answer.headers["cache-control"]
            packed = answer.read()
        assert source != plotly or gzip.decompress(packed).decode() == whole


def test_streamlit_opens_its_socket_before_its_server_has_answered_anything(address: str, page: Page) -> None:
    held: list[Route] = []
    # health and host-config, which Streamlit otherwise waits for
    page.route("**/_stcore/h*", lambda route: held.append(route))
    page.goto(f"{address}/decide?study=finished")
    expect(page.locator(".sizewise-card h3")).to_be_visible()
    assert held
    for route in held:
        route.continue_()


def test_from_the_list_to_a_study_with_readable_axes(address: str, runs: Path, page: Page) -> None:
    page.goto(address)
    page.get_by_role("link", name="finished", exact=True).click()
    settle(page)
    page.wait_for_url("**study=finished*")
    expect(page.get_by_text(answer(load(runs, "finished")).sentence).first).to_be_visible()
    page.get_by_role("tab", name="Against iterations", exact=True).click()
    settle(page, 2)
    for title in (
        "Size of the embeddings (bytes, log scale)",
        "Iterations (optimizer steps, log scale)",
        "10 kB",
        "1 MB",
    ):
        expect(page.locator(".js-plotly-plot").get_by_text(title, exact=True).first).to_be_visible()
    buttons = page.locator(".js-plotly-plot .modebar-btn")
    titles = buttons.evaluate_all("buttons => buttons.map(button => button.dataset.title)")
    assert "Download plot as a PNG" in titles
    assert not [title for title in titles if "Share" in title or "Cloud" in title]
    keep(page, "decide")


def test_the_first_screen_is_one_screen(address: str, page: Page) -> None:
    """At 1280x720 the sentence, the whole figure and the card stand above the fold."""
    page.goto(f"{address}/decide?study=finished")
    settle(page)
    for part in (page.locator("h4").first, page.locator(".js-plotly-plot"), page.locator(".sizewise-card")):
        box = still(page, part.bounding_box)
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 720
    assert (page.locator(".js-plotly-plot").bounding_box() or {})["width"] > 700


def test_the_study_stays_when_moving_between_pages(address: str, page: Page) -> None:
    page.goto(f"{address}/decide?study=hurt")
    page.get_by_role("link", name="Trials", exact=True).click()
    page.wait_for_url("**/trials?study=hurt")
    page.get_by_role("link", name="Decide", exact=True).click()
    page.wait_for_url("**/decide?study=hurt")


def test_what_a_study_says_is_text_and_nothing_else(address: str, page: Page) -> None:
    page.goto(f"{address}/trials?study=hurt&trials=1")
    expect(page.get_by_text("<img src=x onerror").locator("visible=true").first).to_be_visible()
    expect(page.get_by_text("trials/0002.json was skipped").first).to_be_visible()
    ready(page)
    assert page.locator("img[src=x]").count() == 0
    assert "owned" not in page.title()
    keep(page, "problems")


def test_read_only_notes_can_be_read_and_not_changed(address: str, runs: Path, page: Page) -> None:
    notes.change(runs, notes.Key("single", 0), notes.Note(star=True, text="ran in May"))
    page.goto(f"{address}/explore?study=single&filter=note=May")
    expect(page.get_by_role("button", name="Columns", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Which settings matter?")).to_be_visible()
    ready(page)
    assert page.get_by_role("button", name="Star, tag, note or archive").count() == 0
    page.set_viewport_size(
        {"width": 390, "height": 844}
    )  # cards, whose words can be read, unlike those of a canvas
    expect(page.locator(".sizewise-facts").get_by_text("ran in May").first).to_be_visible()


def test_home_of_many_states(address: str, page: Page) -> None:
    page.goto(address)
    expect(page.get_by_role("link", name="hurt", exact=True)).to_be_visible()
    ready(page)
    assert page.locator("[data-testid=stException]").count() == 0
    keep(page, "home")


def test_every_other_page_stands_and_a_trials_bar_opens_it(address: str, runs: Path, page: Page) -> None:
    for name, figures in (("compare", 2), ("data", 0), ("explore", 10)):
        page.goto(f"{address}/{name}?study=finished")
        expect(page.locator(".chart[aria-label]")).to_have_count(figures)
        ready(page)
        assert page.locator("[data-testid=stException]").count() == 0
        keep(page, name)
    plot = page.locator(".chart[aria-label^='When each trial ran']")
    plot.scroll_into_view_if_needed()
    bar = still(page, plot.locator(".barlayer .point path").first.bounding_box)
    assert bar is not None
    page.mouse.click(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    page.wait_for_url("**/trials?**trials=*")
    expect(page.get_by_text("Trials in full").first).to_be_visible()
