"""The web server: Streamlit's own, changed to show a first figure sooner. Started by `launch.serve`.

A first visit to Streamlit's server waits for a hundred small scripts, each read by a thread, and requests Plotly, 4.8
MB of script, only with the first figure. Here scripts come from memory, and the page requests all of them at once, so
that they are fetched and compiled while Streamlit starts (`python benchmarks/dashboard.py`).
"""

import gzip
import hashlib
from functools import cache
from mimetypes import guess_type
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import plotly
import streamlit
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import config

from sizewise_dashboard.streamlit_page import SCRIPTS, page

PAGES = ("", "decide", "trials", "explore", "compare", "data")
# Addresses of earlier versions; what they hold after the question mark stays.
_MOVED = {"tradeoff": "decide", "choose": "decide", "search": "explore"}
_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
# Browsers may cache for ever what has a name that changes with its content.
_PLOTLY_URL = f"/plotly-{hashlib.sha256(_PLOTLY.read_bytes()).hexdigest()[:12]}.js"
_FOR_EVER = {"Cache-Control": "public, immutable, max-age=31536000"}
_SCRIPT = f'<script id="plotly" async src=".{_PLOTLY_URL}"></script>'
_HEAD, _TAIL = '() => {\n"use strict";var Plotly=', "return Plotly;\n}));"


@cache
def plotly_script() -> bytes:
    """Plotly for browsers, without its wrapper for module loaders, with which they would parse it twice."""
    text = _PLOTLY.read_text(encoding="utf-8")
    head, tail = text.find(_HEAD), text.rfind(_TAIL)
    if 0 <= head < tail:
        text = text[head + len("() => {\n") : tail]
    return text.encode()


@cache
def plotly_compressed() -> bytes:
    """The script, compressed once for all visitors."""
    return gzip.compress(plotly_script(), compresslevel=6)


def _base() -> str:
    """The path below which the app is served, such as "/sizewise"; empty where it has none."""
    base = str(config.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{base}" if base else ""


async def _page(request: Request) -> Response:
    return HTMLResponse(page(_SCRIPT, _base()), headers={"Cache-Control": "no-cache"})


async def _moved(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"./{_MOVED[request.url.path.rpartition('/')[2]]}{query}", status_code=301)


async def _plotly(request: Request) -> Response:
    headers = {**_FOR_EVER, "Vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(plotly_script(), media_type="text/javascript", headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(plotly_compressed(), media_type="text/javascript", headers=headers)


class FromMemory:
    """Middleware that serves Streamlit's scripts, styles and fonts from memory; their names follow their content."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._responses: dict[str, Response] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from memory, or pass the request on to Streamlit."""
        path = scope.get("path", "").removeprefix(_base())
        if scope["type"] != "http" or scope["method"] != "GET" or path not in SCRIPTS:
            await self._app(scope, receive, send)
            return
        if path not in self._responses:
            kind = "text/javascript" if path.endswith(".js") else guess_type(path)[0]
            content = SCRIPTS[path].read_bytes()
            self._responses[path] = Response(content, media_type=kind, headers=_FOR_EVER)
        await self._responses[path](scope, receive, send)


class KnownOrigins:
    """Middleware that refuses a WebSocket that another site's page opens, without any look-up in the network.

    Streamlit compares a foreign origin with the machine's external address, for which it asks a host on the Internet.
    Here an origin is accepted if it is the server's own, one of this machine's names, or one that Streamlit's
    configuration names (`server.corsAllowedOrigins`, `browser.serverAddress`).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse another site's WebSocket with status 403, and pass everything else on to Streamlit."""
        if scope["type"] == "websocket" and config.get_option("server.enableCORS"):
            headers = dict(scope["headers"])
            origin, host = headers.get(b"origin"), headers.get(b"host", b"")
            if origin is not None:
                if not _is_known(origin.decode("latin-1"), host.decode("latin-1")):
                    await receive()
                    await send({"type": "websocket.close", "code": 1008})
                    return
                own = [(name, value) for name, value in scope["headers"] if name != b"origin"]
                scope = {**scope, "headers": [*own, (b"origin", b"http://" + host)]}
        await self._app(scope, receive, send)


def _is_known(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
        name, address = parts.hostname, parts.netloc
    except ValueError:
        return False
    if address == host:
        return True
    named = {text.strip() for text in config.get_option("server.corsAllowedOrigins")}
    return (
        name in {"localhost", "127.0.0.1", "::1", config.get_option("browser.serverAddress")}
        or origin in named
    )


Thread(target=plotly_compressed, daemon=True).start()  # before the first visitor asks
app = streamlit.App(
    Path(__file__).parent / "app.py",
    routes=[
        *(Route(f"{_base()}/{name}", _page) for name in PAGES),
        *(Route(f"{_base()}/{name}", _moved) for name in _MOVED),
        Route(f"{_base()}{_PLOTLY_URL}", _plotly),
    ],
    middleware=[Middleware(KnownOrigins), Middleware(FromMemory)],
)
