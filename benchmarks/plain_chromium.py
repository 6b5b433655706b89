"""Chromium as people have it, for timing pages: `with plain_chromium() as tab: tab.visit(address, {"title": "..."})`.

Playwright switches the browser's inspector on, which then records a stack for every exception that a script throws
and catches: Plotly's start takes nearly twice as long under it. Here the page is driven over the same protocol with
the inspector off, and times itself.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from browser import ARGUMENTS, CHROMIUM
from websockets.sync.client import ClientConnection, connect

# each mark is the first frame in which its condition holds, in milliseconds since the navigation started
_WATCH = """
(() => {
  const conditions = {%s};
  window.marks = {};
  const look = () => {
    for (const [name, holds] of Object.entries(conditions)) {
      if (!(name in marks) && holds()) marks[name] = performance.now();
    }
    if (Object.keys(marks).length < Object.keys(conditions).length) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""


class Tab:
    """One tab, driven over the DevTools protocol with no domain enabled but Page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers, self._watch = socket, count(1), ""
        self._ask("Page.enable")

    def visit(self, address: str, marks: dict[str, str], patience: float = 120.0) -> dict[str, float]:
        """Seconds from the start of the navigation until each of `marks` (conditions in JavaScript) first holds."""
        if self._watch:
            self._ask("Page.removeScriptToEvaluateOnNewDocument", identifier=self._watch)
        source = _WATCH % ", ".join(f"{json.dumps(name)}: {holds}" for name, holds in marks.items())
        self._watch = self._ask("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"]
        self._ask("Page.navigate", url=address)
        deadline = time.monotonic() + patience
        while True:
            time.sleep(0.1)  # looking costs the page's thread time
            found = self._ask("Runtime.evaluate", expression="window.marks ?? {}", returnByValue=True)
            seen: dict[str, float] = found["result"]["value"]
            if len(seen) == len(marks):
                return {name: milliseconds / 1e3 for name, milliseconds in seen.items()}
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address}: after {patience} s only {sorted(seen)} of {sorted(marks)}")

    def leave(self) -> None:
        """Let the page finish what it does, and go away from it."""
        time.sleep(1.5)
        self._ask("Page.navigate", url="about:blank")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def plain_chromium() -> Iterator[Tab]:
    """A tab of 1280x720 in a browser with nothing cached."""
    assert CHROMIUM is not None, "no Chromium found: install Debian's package `chromium`"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        command = [CHROMIUM, *ARGUMENTS, *options, "--window-size=1280,720", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_tab(Path(profile) / "DevToolsActivePort"), max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait()


def _tab(told: Path) -> str:
    """The address of a new tab, once the browser has told its port."""
    deadline = time.monotonic() + 60
    while not (told.exists() and "\n" in told.read_text()):
        if time.monotonic() > deadline:
            raise TimeoutError("Chromium did not start in 60 s")
        time.sleep(0.05)
    port = told.read_text().split("\n", 1)[0]
    with urlopen(
        Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT"), timeout=30
    ) as answer:
        address: str = json.load(answer)["webSocketDebuggerUrl"]
    return address
