"""Studies, a dashboard over them that writes nothing, and a page in Chromium."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import chromium_page, dashboard
from playwright.sync_api import Page

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


@pytest.fixture
def page() -> Iterator[Page]:
    """A page that has asked nobody but this machine for anything by the time the test ends."""
    with chromium_page() as (page, asked):
        yield page
        hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:", "file:"))}
        assert hosts == {"127.0.0.1"}
