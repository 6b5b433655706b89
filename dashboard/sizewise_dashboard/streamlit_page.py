"""What is known of the files that Streamlit's server sends to browsers, none of which is its public interface.

Tried with Streamlit 1.67.0. One that has no such page is refused in a sentence. Where scripts or settings have other
names, Streamlit serves its own as they are asked for, and the first figure comes a second or two later; where elements
of the page have, `STYLE` has no effect on them.

    page('<script src="./plotly.js"></script>')   # Streamlit's page, which asks for everything at once
    SCRIPTS["/static/js/index.1a2b.js"]           # the file behind an address
"""

import json
import re
from functools import cache
from pathlib import Path

import streamlit

from sizewise_core.errors import InputError

TRIED = "1.67"
_STATIC = Path(streamlit.__file__).parent / "static"
_INDEX = _STATIC / "index.html"
SCRIPTS = {f"/static/{file.parent.name}/{file.name}": file for file in _STATIC.glob("static/*/*")}
# Streamlit would ask for these, and then for what they import, when the first of them is to be shown.
_PARTS = ("BidiComponent", "Selectbox", "TextInput", "Html", "Popover")
_IMPORT = re.compile(r'(?:from|import)\s*"\./([^"/]+\.js)"')
# With this, Streamlit opens its socket at once, and does not first look for its server below each page's address and
# wait for these settings from it.
_SETTINGS = (
    "BACKEND_BASE_URL: location.origin + {base}, "
    "HOST_CONFIG: {{allowedOrigins: [location.origin], useExternalAuthToken: false}}"
)

# So that a screen of 720 pixels shows a figure (Streamlit's defaults leave a fifth of it empty above the first line,
# and write numbers as large as headings), and the link that the keyboard is on can be seen.
STYLE = """
.stMainBlockContainer { padding-top: 4rem; padding-bottom: 2rem }
.stMainBlockContainer [data-testid=stVerticalBlock] { gap: 0.75rem }
.stMainBlockContainer [data-testid=stHeading] { padding: 0 }
.stMainBlockContainer [data-testid=stMetricValue] { font-size: 1.5rem }
.stApp a:focus-visible { outline: 2px solid currentColor; outline-offset: 1px }
.stMainBlockContainer h1 { font-size: 1.6rem }
.stMainBlockContainer h4 { padding: 0 0 0.5rem; font-size: 1.1rem; line-height: 1.35 }
.stMainBlockContainer [data-testid=stCaptionContainer] { color: inherit !important; opacity: 0.8 }
.stMainBlockContainer [data-testid=stCaptionContainer] p { color: inherit !important }
.stMainBlockContainer [data-testid=stCode] pre { font-size: 0.8rem; padding: 0.4rem 0.75rem }
.stMainBlockContainer [data-testid=stCode] .token { color: inherit !important }
.stMainBlockContainer [data-testid=stButtonGroup] p { color: light-dark(#31333f, #fafafa) !important }
.stMainBlockContainer [role=tab][aria-selected=true] p { color: light-dark(#a3122f, #ff8a8a) !important }
.stMainBlockContainer .sizewise-facts { padding: 0; display: flex; flex-wrap: wrap; gap: 0.1rem 1.4rem; margin: 0 }
.sizewise-facts dt { display: inline; font-size: 0.8rem; opacity: 0.75; margin: 0 0.35rem 0 0 }
.sizewise-facts dd { display: inline; font-size: 0.875rem; margin: 0; overflow-wrap: anywhere }
.sizewise-rows { display: none }
@media (max-width: 640px) {
  .sizewise-rows { display: block }
  .sizewise-rows dl { border-top: 1px solid rgba(128, 128, 128, 0.4); padding: 0.4rem 0 }
  .stMainBlockContainer [data-testid=stElementContainer]:has([data-testid=stDataFrame]) { display: none }
}
.sizewise-card h3 { font-size: 1.05rem; padding: 0 0 0.3rem; margin: 0 }
.sizewise-card dl { padding: 0; display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 0.8rem; margin: 0 }
.sizewise-card p { margin: 0.4rem 0 0; font-size: 0.875rem }
.sizewise-card dt { margin: 0; padding: 0; opacity: 0.75; font-size: 0.875rem }
.sizewise-card dd { margin: 0; font-size: 0.875rem; font-variant-numeric: tabular-nums }
"""


@cache
def page(script: str, base: str = "") -> str:
    """Streamlit's page, with a script of ours, that asks at once for the scripts of what every page shows.

    Args:
        script: an element of HTML.
        base: the path below which the page is served, such as "/sizewise"; empty: none.

    Raises InputError for a Streamlit whose page cannot be changed in this way.
    """
    html = _INDEX.read_text(encoding="utf-8") if _INDEX.is_file() else ""
    if not {"<head>", "</head>"} <= set(re.findall("</?head>", html)):
        raise InputError(
            f"Streamlit {streamlit.__version__} is installed, whose page the dashboard does not know: install the "
            f"version that it was tried with, by pip install 'streamlit=={TRIED}.*'"
        )
    links = "".join(
        f'<link rel="modulepreload" crossorigin href="./static/js/{name}">'
        for name in _needed()
        if name not in html
    )
    server = f"<script>window.__streamlit = {{{_SETTINGS.format(base=json.dumps(base))}}}</script>"
    return html.replace("<head>", f"<head>{server}", 1).replace("</head>", f"{links}{script}</head>", 1)


def _needed() -> list[str]:
    """Streamlit's scripts for figures and choices, with all that they import."""
    folder, found = _STATIC / "static" / "js", dict[str, None]()
    waiting = [file.name for part in _PARTS for file in sorted(folder.glob(f"{part}.*.js"))]
    while waiting:
        name = waiting.pop()
        if name not in found and (folder / name).exists():
            found[name] = None
            waiting += _IMPORT.findall((folder / name).read_text(encoding="utf-8"))
    return list(found)
