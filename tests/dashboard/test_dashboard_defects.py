"""What once was broken in the browser, in one session: behind a proxy, on narrow screens, for odd studies.

The dashboard is served below a base path throughout.
"""

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import ARGUMENTS, CHROMIUM, WAIT, dashboard, ready, still, wait_until
from playwright.sync_api import Browser, Page, expect, sync_playwright

from s3_server import free_port
from sizewise_dashboard.elements import notes
from study_folder import StudyWriter, finished_study

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install Debian's package `chromium`"),
]
BASE = "/lab/sizewise"
DRAWN = ".js-plotly-plot .main-svg"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    for name in ("one", "two", "three"):
        finished_study(runs, name, trials=6)
    methods = StudyWriter(runs, "methods", trials=8)
    for trial in range(8):
        methods.trial(trial, 2_000 * 4**trial)
        path = methods.folder / f"trials/{trial:04d}.json"
        record = json.loads(path.read_text().partition("\n")[0])
        config = {
            **record["config"],
            "method": ("robe", "hash", "qr")[trial % 3],
            "storage": ("int4", "int8")[trial % 2],
        }
        methods.ledger(trial, config=config, values=record["values"], evaluations=8)
    methods.driver("finished")
    many = StudyWriter(runs, "many", trials=61)  # one more than are drawn as lines
    for trial in range(61):
        many.trial(trial, round(2_000 * 10 ** (trial / 15)), evaluations=2)
    many.driver("finished")
    StudyWriter(runs, "empty", trials=4).driver("running")
    cut = finished_study(runs, "cut", trials=2)
    cut.driver("running", age=10_000, pid=2**22 + 1)
    for name, path in (("elsewhere", "data/other"), ("noted", "data/third")):
        writer = finished_study(runs, name, trials=3)
        record = json.loads((writer.folder / "study.json").read_text())
        record["data"]["path"] = path
        writer.json("study.json", record)
    return runs


@pytest.fixture(scope="module")
def address(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(runs, tmp_path_factory.mktemp("log") / "dashboard.log", BASE) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(WAIT)
    yield context.new_page()
    context.close()


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[str]:
    """The address of an nginx with TLS and a login before the dashboard, as docs/dashboard.md has it."""
    subject = ["-subj", "/CN=127.0.0.1", "-days", "2"]
    key = ["-nodes", "-newkey", "rsa:2048", "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(["openssl", "req", "-x509", *key, *subject], cwd=folder, check=True, capture_output=True)
    digest = subprocess.run(
        ["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True
    )
    (folder / "users").write_text(f"ada:{digest.stdout}")
    port = free_port()
    origin = upstream.removesuffix(BASE)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors; user root;
events {{}}
http {{
  access_log off; {temporary}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    auth_basic "Sizewise";
    auth_basic_user_file {folder}/users;
    location {BASE}/ {{
      proxy_pass {origin};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_read_timeout 1d;
    }}
  }}
}}
""")
    process = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        for _ in range(2_400):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "errors").read_text()
            time.sleep(0.05)
        yield f"https://127.0.0.1:{port}{BASE}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(NGINX is None, reason="no nginx found: install Debian's package `nginx-light`")
def test_figures_draw_behind_a_proxy_with_tls_and_a_login(
    address: str, browser: Browser, tmp_path: Path
) -> None:
    with nginx(tmp_path, address) as proxied:
        login = {"username": "ada", "password": "secret"}
        context = browser.new_context(ignore_https_errors=True, http_credentials=login)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.goto(f"{proxied}/")
        page.get_by_role("link", name="methods", exact=True).click()
        expect(page.locator(DRAWN).first).to_be_visible()
        page.wait_for_url(f"{proxied}/decide?study=methods*")
        page.goto(f"{proxied}/choose?study=one")  # a link of an earlier version
        expect(page.locator(DRAWN).first).to_be_visible()
        context.close()
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{proxied}/", context=ssl._create_unverified_context())


def test_compared_figures_follow_the_width_of_their_columns(address: str, page: Page) -> None:
    page.goto(f"{address}/compare?study=one&others=")
    expect(page.locator(DRAWN).first).to_be_visible()
    ready(page)
    wide = still(page, lambda: page.locator(".js-plotly-plot").first.bounding_box())
    box = page.get_by_role("combobox", name="Compare with")
    for name in ("two", "three"):
        box.click()
        page.get_by_role("option", name=name, exact=True).click()
        page.wait_for_url(f"**others=*{name}*")
        ready(page)
    page.keyboard.press("Escape")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    first, second = (page.locator(".js-plotly-plot").nth(n).locator(".main-svg").first for n in (0, 1))
    left, right = still(page, lambda: (first.bounding_box(), second.bounding_box()))
    assert left is not None
    assert right is not None
    assert wide is not None
    assert left["width"] <= wide["width"]
    assert left["x"] + left["width"] <= right["x"] + 1


def test_only_studies_on_the_same_data_are_compared_unasked(address: str, page: Page) -> None:
    page.goto(f"{address}/compare?study=elsewhere")
    expect(page.get_by_text("No other study here has models of the same data").first).to_be_visible()


def test_a_contour_over_names_has_them_on_its_axis(address: str, page: Page) -> None:
    page.goto(f"{address}/explore?study=methods&across=method&along=storage")
    plot = page.locator(".chart[aria-label^='auc over method']")
    plot.scroll_into_view_if_needed()
    for name in ("hash", "qr", "robe", "int4", "int8"):
        expect(plot.get_by_text(name, exact=True).first).to_be_visible()
    expect(plot.locator(".contourlayer path").nth(3)).to_be_attached()


def test_an_empty_study_has_no_axes_and_an_interrupted_one_says_how_to_go_on(
    address: str, page: Page
) -> None:
    page.goto(f"{address}/decide?study=empty")
    expect(page.get_by_text("No trial has been evaluated yet.").first).to_be_visible()
    ready(page)
    assert page.locator(".js-plotly-plot").count() == 0
    page.goto(f"{address}/decide?study=cut")
    expect(page.get_by_text("Interrupted: the process that ran it ended").first).to_be_visible()
    command = page.get_by_text("sizewise resume cut").first
    expect(command).to_be_visible()
    assert (still(page, command.bounding_box) or {})["y"] < 720


def test_narrow_screens_have_cards_and_do_not_scroll_sideways(address: str, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("", "decide?study=methods&view=Pareto front", "trials?study=methods"):
        page.goto(f"{address}/{path}")
        expect(page.locator(".sizewise-facts:visible").first).to_be_visible()
        ready(page)
        assert page.locator("[data-testid=stDataFrame]:visible").count() == 0
        assert still(page, lambda: page.evaluate("document.documentElement.scrollWidth")) <= 390


def test_studies_are_found_by_word_and_sorted(address: str, page: Page) -> None:
    page.goto(address + "/")
    expect(page.get_by_role("link", name="elsewhere", exact=True)).to_be_visible()
    expect(page.get_by_text("data/other").first).to_be_visible()
    page.get_by_label("Search").fill("hash")
    page.get_by_label("Search").press("Enter")
    expect(page.get_by_role("link", name="elsewhere", exact=True)).to_have_count(0)
    expect(page.get_by_role("link", name="methods", exact=True)).to_have_count(1)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "decide?study=methods&today_auc=0.75&today_bytes=3MB&auc_value=9&gb_price=9",
        "trials?study=methods&trials=1,2",
        "explore?study=methods",
        "compare?study=one",
        "data?study=one",
    ],
)
def test_no_page_has_a_serious_barrier(address: str, page: Page, path: str) -> None:
    page.goto(f"{address}/{path}")
    expect(page.locator("[data-testid=stMain] [data-testid=stElementContainer]").nth(2)).to_be_visible()
    _come_to_rest(page)
    assert _barriers(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function(f"() => {BACKGROUND}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) < 200")
    _come_to_rest(page)
    assert _barriers(page) == []


BACKGROUND = "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"


def _come_to_rest(page: Page) -> None:
    """What is still being drawn is paler than it will be, and that would be a barrier."""
    ready(page)
    still(page, lambda: page.evaluate("document.querySelectorAll('*').length"))
    page.wait_for_function("() => document.getAnimations().every(one => one.playState !== 'running')")


def _barriers(page: Page) -> list[tuple[str, list[str]]]:
    return [
        (rule["id"], [node["html"][:160] for node in rule["nodes"][:3]])
        for rule in Axe().run(page).response["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


def test_what_is_brushed_in_one_view_is_what_the_others_show(address: str, page: Page) -> None:
    page.goto(f"{address}/explore?study=methods")
    plot = page.locator(".js-plotly-plot").first
    expect(plot.locator(".scatterlayer .point").first).to_be_visible()
    ready(page)
    area = still(page, plot.locator(".nsewdrag").first.bounding_box)
    assert area is not None
    _drag(page, (area["x"] + 2, area["y"] + 2), (area["width"] * 0.5, area["height"] - 4))
    button = page.get_by_role("button", name="Show all again")
    expect(button).to_be_visible()
    brushed = int(button.inner_text().partition("(")[2].split()[0])
    assert 0 < brushed < 8
    lines = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => plot._fullData?.[0])
        .find(trace => trace?.type === 'parcoords')?.dimensions[0].values.length"""
    page.wait_for_function(f"count => ({lines})() === count", arg=brushed)
    button.click()
    page.wait_for_function(f"count => ({lines})() === count", arg=8)

    # The other way round: the largest sizes, along their axis of the parallel coordinates.
    page.reload()
    expect(plot.locator(".scatterlayer .point").first).to_be_visible()
    ready(page)
    brush = page.locator(".parcoords .y-axis", has_text="Memory budget").locator(".axis-brush")
    axis = still(page, brush.bounding_box)
    assert axis is not None
    _drag(page, (axis["x"] + axis["width"] / 2, axis["y"] + axis["height"] / 2), (0, -axis["height"] * 0.6))
    expect(button).to_be_visible()
    brushed = int(button.inner_text().partition("(")[2].split()[0])
    assert 0 < brushed < 8
    lit = """() => [...document.querySelector('.js-plotly-plot').querySelectorAll('.scatterlayer .point')]
        .filter(point => getComputedStyle(point).opacity === '1').length"""
    page.wait_for_function(f"count => ({lit})() === count", arg=brushed)


def _drag(page: Page, start: tuple[float, float], by: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by[0], start[1] + by[1], steps=6)
    page.mouse.up()


def test_a_sure_choice_and_what_runs_today_are_asked_for_on_the_page(address: str, page: Page) -> None:
    page.goto(f"{address}/decide?study=methods")
    heading = page.locator("h4").first
    expect(heading).to_contain_text("comes within 0.002 AUC of it")
    page.get_by_role("button", name="Train it longer").click()
    expect(page.get_by_text("-longer --set trials=1").first).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="against the best trial").click()
    for field, text in (("Its AUC", "0.752"), ("Its size", "30 MB")):
        page.get_by_label(field).fill(text)
        page.get_by_label(field).press("Enter")
    expect(page.locator(".sizewise-card")).to_contain_text("Against today")
    page.get_by_label("0.001 AUC brings in").fill("9")
    page.get_by_label("A GB in serving costs").fill("900")
    page.get_by_label("A GB in serving costs").press("Enter")
    expect(page.locator(".sizewise-card")).to_contain_text("assuming 9.00 a month")
    page.keyboard.press("Escape")
    plot = page.locator(".js-plotly-plot").first
    for name in ("what runs today", "break-even: above it pays"):
        expect(plot.locator(".legend").get_by_text(name, exact=True)).to_be_visible()
    expect(plot.locator(".shapelayer path").nth(3)).to_be_attached()  # the two limits, and the crosshair
    page.get_by_role("button", name="More limits").click()
    page.get_by_text("Sure to lose no more").first.click()
    expect(heading).to_contain_text("surely loses at most 0.002 AUC")
    page.wait_for_url(lambda url: "confident=true" in url.lower())
    page.reload()
    expect(heading).to_contain_text("surely loses at most 0.002 AUC")
    page.wait_for_url("**today_auc=0.752*")


def test_more_curves_than_can_be_told_apart_are_bands_of_their_sizes(address: str, page: Page) -> None:
    page.goto(f"{address}/decide?study=many&view=Against iterations")
    page.locator(".js-plotly-plot").nth(1).scroll_into_view_if_needed()
    plot = page.locator(".js-plotly-plot").nth(1)
    expect(plot.get_by_text("bands from the middle trial to the best").first).to_be_visible()
    names = plot.evaluate(
        "plot => plot._fullData.filter(({fill}) => fill === 'tonexty').map(({name}) => name)"
    )
    assert names == ["1 kB to 10 kB", "10 kB to 100 kB", "100 kB to 1 MB", "1 MB to 10 MB", "10 MB to 100 MB"]
    expect(plot.locator(".scatterlayer .js-fill").nth(4)).to_be_attached()
    assert plot.evaluate("plot => plot._fullData.filter(({mode}) => mode.includes('lines')).length") == 10


def test_notes_are_kept_beside_the_study(address: str, runs: Path, page: Page) -> None:
    page.goto(f"{address}/explore?study=noted")
    # Room for all of the form, wherever what is still being drawn moves its button.
    page.set_viewport_size({"width": 1280, "height": 1_600})
    page.get_by_role("button", name="Star, tag, note or archive").click()
    page.get_by_label("Tags, separated by commas").fill("shipped, May")
    page.get_by_text("Archive: leave it out of lists").first.click()
    page.get_by_role("button", name="Save", exact=True).click()
    wait_until(page, lambda: notes.load(runs).of(notes.Key("noted")).archived)
    page.goto(address + "/")
    expect(page.get_by_role("link", name="methods", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="noted", exact=True)).to_have_count(0)
    page.get_by_text("Archived too").first.click()
    expect(page.get_by_text("shipped, May").first).to_be_visible()
