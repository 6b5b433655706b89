"""Studies, a dashboard over them that writes nothing, and a page in Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import ARGUMENTS, CHROMIUM, WAIT, dashboard
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from tests.dashboard.in_browser.looking import OpenPage

from study_folder import StudyWriter, finished_study


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    finished_study(folder, "finished")
    hurt = StudyWriter(folder, "hurt", trials=2)
    hurt.trial(0)
    hurt.ledger(1, "failed", error="<img src=x onerror=\"document.title='owned'\"> **bold**")
    (hurt.folder / "trials" / "0002.json").write_text("{")
    single = StudyWriter(folder, "single", trials=1)
    single.trial(0)
    single.driver("finished")
    huge = StudyWriter(folder, "huge", trials=6, data={"full_bytes": 104_542_508_000})
    for trial_id in range(6):
        huge.trial(trial_id, 10 ** (6 + trial_id), evaluations=9, every=300_000)
    huge.driver("finished")
    return folder


@pytest.fixture(scope="session")
def address(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "dashboard.log"
    with dashboard(runs, log, read_only=True) as url:  # no test here needs to write
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One Chromium for a file's tests; each page has a context, and so a cache and a storage, of its own.

    Not for longer: while Playwright runs, no other test of the same process can start it.
    """
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens 1280x720 pages that have asked nobody but this machine for anything by the time the test ends."""
    asked: list[str] = []
    contexts: list[BrowserContext] = []

    def opened(**options: Any) -> Page:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 720}, **options))
        contexts[-1].set_default_timeout(WAIT)
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert asked
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:", "file:"))}
    assert hosts <= {"127.0.0.1"}


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page(color_scheme="light")
