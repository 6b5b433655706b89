"""A real Chromium for the dashboard's tests, and the dashboard as a process of its own.

Nothing here or in the tests waits for a fixed time: `ready` waits until Streamlit has shown all that it computed,
`still` until what is read off a page stays the same, and `expect` for what is to come.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

from playwright.sync_api import Page, expect, sync_playwright

from s3_server import free_port

T = TypeVar("T")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPOSITORY = Path(__file__).parents[2]
_QUIET = ("background-networking", "component-update", "sync", "quic", "gpu")
ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{part}" for part in _QUIET)]
ARGUMENTS += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a graphics card
WAIT = 120_000  # milliseconds, for whatever is expected or done: other tests run beside those of a browser
expect.set_options(timeout=WAIT)


@contextmanager
def dashboard(runs: Path, log: Path, base_path: str = "", read_only: bool = False) -> Iterator[str]:
    """The address of a dashboard over `runs`, started in the repository root, where `platform/` lies."""
    port = free_port()
    code = "from pathlib import Path; from sizewise_dashboard.launch import serve; "
    code += f"raise SystemExit(serve(Path({str(runs)!r}), {port}, base_path={base_path!r}, "
    code += f"read_only={read_only}))"
    roots = [str(REPOSITORY / root) for root in ("platform", "data_prep", "dashboard")]
    path = os.pathsep.join([*roots, os.environ.get("PYTHONPATH", "")])
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}{base_path}/_stcore/health", process, log)
        yield f"http://127.0.0.1:{port}{base_path}"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT / 1000) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _wait_until_up(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + WAIT / 1000
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urlopen(address, timeout=30):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the dashboard did not answer: {log.read_text()}")


def ready(page: Page) -> None:
    """Wait until the app has run and nothing of an earlier run is left on the page."""
    expect(page.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.locator("[data-stale=true]")).to_have_count(0)


def wait_until(page: Page, happened: Callable[[], bool]) -> None:
    """Wait for what a page does elsewhere, such as a file that it writes."""
    deadline = time.monotonic() + WAIT / 1000
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        page.wait_for_timeout(100)


def still(page: Page, read: Callable[[], T]) -> T:
    """What is read off a page, such as where something lies, once it is the same at two looks."""
    deadline, before = time.monotonic() + WAIT / 1000, read()
    while time.monotonic() < deadline:
        page.wait_for_timeout(250)
        now = read()
        if now == before:
            return now
        before = now
    raise AssertionError(f"the page does not come to rest: {before}")


@contextmanager
def chromium_page(dark: bool = False) -> Iterator[tuple[Page, list[str]]]:
    """A 1280x720 page and the addresses of everything that it asked for."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(
            viewport={"width": 1280, "height": 720}, color_scheme="dark" if dark else "light"
        )
        page.set_default_timeout(WAIT)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        yield page, asked
        browser.close()
