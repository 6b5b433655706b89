"""How fast the dashboard is in a browser, beside optuna-dashboard on the same trials in the same run.

    python -m benchmarks.dashboard --optuna-dashboard PATH [--trials 1000] [--evaluations 200] [--repeats 3]
        [--viewers 20]

Makes a study of synthetic curves in a temporary folder and the same trials in an Optuna journal (their best
evaluations: Optuna keeps no intermediate values for several objectives), serves each with its own dashboard, and
measures in headless Chromium at 1280x720, from the start of a navigation, with an empty cache and on a later visit:
until the answer in a sentence and the numbers behind it are on the screen (there: the study's name), and until the
first figure has points; and from an action to its effect. With `--viewers` as many sessions click in turns. PATH
is the `optuna-dashboard` of an environment of its own (`pip install optuna-dashboard`).
"""

import argparse
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import optuna
import psutil
from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "dashboard"), str(ROOT / "benchmarks")]
from browser import chromium_page, dashboard  # noqa: E402
from plain_chromium import plain_chromium  # noqa: E402

from study_folder import StudyWriter, curve  # noqa: E402

WAIT = 120_000
DRAWN = """() => [...document.querySelectorAll('.js-plotly-plot')].some(plot =>
    plot.querySelector('.scatterlayer .point'))"""
OURS = {
    "answer and key numbers": """() => document.querySelector('[data-testid=stMain] h4') &&
        document.querySelectorAll('.sizewise-card dd').length >= 3""",
    "first figure with points": DRAWN,
}
# their figure may be of two dimensions (SVG) or of three (a canvas, which is drawn when its scene has traces)
THEIRS = {
    "study's name": """() => [...document.querySelectorAll('#dashboard *')].some(element =>
        element.children.length == 0 && element.textContent.includes('bench'))""",
    "first figure with points": """() => [...document.querySelectorAll('.js-plotly-plot')].some(plot =>
        plot.querySelector('.scatterlayer .point') ||
        Object.keys(plot._fullLayout?.scene?._scene?.traces ?? {}).length > 0)""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optuna-dashboard", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--viewers", type=int, default=0, help="sessions that click in turns at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_study(folder, options.trials, options.evaluations)
        print(
            f"{options.trials:,} trials of {options.evaluations} evaluations, {options.repeats} visits, seconds:"
        )
        print("| | median | slowest |\n| --- | --- | --- |")
        with (
            dashboard(folder / "runs", folder / "ours.log") as ours,
            theirs(options.optuna_dashboard, folder) as other,
        ):
            pages = {
                "Sizewise": (f"{ours}/decide?study=bench", OURS),
                "optuna-dashboard": (other, THEIRS),
            }
            first = {name: [first_visit(*page)] for name, page in pages.items()}
            cold: dict[str, list[dict[str, float]]] = {name: [] for name in pages}
            for _ in range(options.repeats):  # in turns, so that all meet the same machine
                for name, page in pages.items():
                    cold[name].append(first_visit(*page))
            warm = {name: later_visits(*page, options.repeats) for name, page in pages.items()}
            for when, visits in {
                "first visit after the server's start": first,
                "empty browser cache": cold,
                "later visit": warm,
            }.items():
                for name, found in visits.items():
                    for what in found[0]:
                        show(f"{name}: {what}, {when}", [visit[what] for visit in found])
            show("Sizewise: click a point: its trial is named", click(ours, options.repeats))
            show("Sizewise: type a limit: the answer", limit(ours, options.repeats))
            if options.viewers:
                many(ours, options.viewers)


def write_study(folder: Path, trials: int, evaluations: int) -> None:
    """The study's folder, and an Optuna journal of the same trials."""
    writer = StudyWriter(folder / "runs", "bench", trials=trials)
    objectives = ["maximize", "minimize", "minimize"]
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "bench.log"))
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage, study_name="bench", directions=objectives)
    budgets = optuna.distributions.FloatDistribution(1e3, 1e8, log=True)
    rates = optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)
    generator = random.Random(1)
    frozen = []
    for trial in range(trials):
        budget = round(2_000 * 10 ** (4 * generator.random()))
        rate = 10 ** (-3 + 2 * generator.random())
        rows = []
        for step in range(1, evaluations + 1):
            noise = generator.gauss(0, 5e-4) - 0.01 * (math.log10(rate) + 2) ** 2
            rows.append((step * 40, curve(budget, 4 * step / evaluations) + noise))
        with (writer.folder / f"evaluations/{trial:04d}.jsonl").open("w") as file:
            for iteration, auc in rows:
                row = {"trial_id": trial, "replicate": 0, "iteration": iteration, "epoch": iteration / 156}
                row |= {"samples": iteration * 512, "auc": auc, "logloss": 0.5, "normalized_entropy": 0.88}
                row |= {"embedding_bytes": budget, "model_bytes": budget + 380_000}
                row |= {"compression_ratio": 22e6 / budget, "train_seconds": iteration * 0.05}
                row |= {"samples_per_second": 1e4, "peak_memory_bytes": 500_000_000}
                file.write(json.dumps(row) + "\n")
        iteration, auc = max(rows, key=lambda row: row[1])
        config = {"memory_budget": budget, "learning_rate": rate, "epochs": 4, "method": "robe"}
        values = {"auc": auc, "embedding_bytes": budget, "iterations": iteration}
        writer.ledger(trial, config=config, values=values)
        params = {"memory_budget": float(budget), "learning_rate": rate}
        frozen.append(
            optuna.trial.create_trial(
                params=params,
                distributions={"memory_budget": budgets, "learning_rate": rates},
                values=[auc, budget, iteration],
            )
        )
    study.add_trials(frozen)
    writer.driver("finished")


def first_visit(address: str, marks: dict[str, str]) -> dict[str, float]:
    """Seconds until each mark in a browser with nothing cached."""
    with plain_chromium() as tab:
        return tab.visit(address, marks)


def later_visits(address: str, marks: dict[str, str], repeats: int) -> list[dict[str, float]]:
    """The same in a browser that has been there twice, which is when Chromium keeps compiled scripts."""
    found = []
    with plain_chromium() as tab:
        for _ in range(2 + repeats):
            found.append(tab.visit(address, marks))
            tab.leave()
    return found[2:]


def timed(page: Page, act: Callable[[], object], effect: str, argument: str) -> float:
    start = time.perf_counter()
    act()
    page.wait_for_function(effect, arg=argument, timeout=WAIT, polling=20)
    return time.perf_counter() - start


TEXT = "() => document.querySelector('[data-testid=stMain]').innerText"
PICKED = f"() => (({TEXT})().match(/Trial \\d+ at iteration.*/) ?? [''])[0]"
CHANGED = f"before => ({PICKED})() !== before"


def click(address: str, repeats: int) -> list[float]:
    """From a click on a point of the front to the words that name its trial."""
    found = []
    with chromium_page() as (page, _):
        page.goto(f"{address}/tradeoff?study=bench")
        page.wait_for_function(DRAWN, timeout=WAIT)
        page.wait_for_timeout(3_000)
        for place in range(repeats):
            where = page.evaluate(
                """place => {
                const plot = document.querySelector('.js-plotly-plot');
                plot.scrollIntoView({block: 'center'});
                const isMethod = trace => trace.name === 'robe' && trace.mode === 'markers' && trace.customdata;
                const front = plot.data.findIndex(isMethod);
                const points = plot.calcdata[front];
                const {x, y} = points[Math.floor((place + 0.5) / 8 * points.length)];
                const {xaxis, yaxis} = plot._fullLayout;
                const box = plot.getBoundingClientRect();
                return [box.left + xaxis._offset + xaxis.c2p(x), box.top + yaxis._offset + yaxis.c2p(y)];
            }""",
                place,
            )
            page.mouse.move(*where)
            page.wait_for_timeout(300)
            before = page.evaluate(PICKED)
            found.append(timed(page, partial(page.mouse.click, *where), CHANGED, before))
            page.wait_for_timeout(1_500)
    return found


def limit(address: str, repeats: int) -> list[float]:
    """From Enter in the field of the largest size to the answer within it."""
    found = []
    with chromium_page() as (page, _):
        page.goto(f"{address}/decide?study=bench")
        field = page.get_by_label("Size at most")
        page.locator(".sizewise-card").wait_for(timeout=WAIT)
        page.wait_for_timeout(2_000)
        for place in range(repeats):
            field.fill(f"{10 - place} MB")
            before = page.evaluate(HEADING)
            found.append(
                timed(page, partial(field.press, "Enter"), f"before => ({HEADING})() !== before", before)
            )
            page.wait_for_timeout(1_000)
    return found


HEADING = "() => document.querySelector('[data-testid=stMain] h4')?.innerText"


def many(address: str, viewers: int) -> None:
    """As many sessions over the study, each of which types a limit while all others are open; the server's memory."""
    found = []
    with chromium_page() as (page, _):
        browser = page.context.browser
        assert browser is not None
        pages = [browser.new_page() for _ in range(viewers)]
        for one in pages:
            one.goto(f"{address}/decide?study=bench")
            one.locator(".sizewise-card").wait_for(timeout=WAIT)
        for place, one in enumerate(pages):
            field = one.get_by_label("Size at most")
            field.fill(f"{place + 1}.5 MB")
            before = one.evaluate(HEADING)
            changed = f"before => ({HEADING})() !== before"
            found.append(timed(one, partial(field.press, "Enter"), changed, before))
        show(f"Sizewise: {viewers} sessions, each types a limit: the answer", found)
    server = next(
        process
        for process in psutil.Process().children(recursive=True)
        if any("sizewise_dashboard" in word for word in process.cmdline())
    )
    print(
        f"The server's memory after {viewers} sessions: {server.memory_info().rss / 1e6:,.0f} MB", flush=True
    )


@contextmanager
def theirs(program: Path, folder: Path) -> Iterator[str]:
    """The address of the study's page in optuna-dashboard."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(program), str(folder / "bench.log"), "--port", str(port), "--host", "127.0.0.1"]
    with (folder / "theirs.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=30).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError((folder / "theirs.log").read_text()) from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/dashboard/studies/0"
    finally:
        process.terminate()
        process.wait()


def show(what: str, seconds: list[float]) -> None:
    print(f"| {what} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |", flush=True)


if __name__ == "__main__":
    main()
