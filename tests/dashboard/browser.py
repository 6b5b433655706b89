"""A real Chromium for the dashboard's tests, and the dashboard as a process of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPOSITORY = Path(__file__).parents[2]
_QUIET = ("background-networking", "component-update", "sync", "quic", "gpu")
ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{part}" for part in _QUIET)]
ARGUMENTS += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a graphics card
WAIT = 60_000  # milliseconds, for whatever is expected or done: other tests run beside those of a browser
expect.set_options(timeout=WAIT)


@contextmanager
def dashboard(runs: Path, log: Path, base_path: str = "", read_only: bool = False) -> Iterator[str]:
    """The address of a dashboard over `runs`, started in the repository root, where `platform/` lies."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _wait_until_up(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the dashboard did not answer in 60 s: {log.read_text()}")


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
