"""The dashboard's entry: `streamlit run app.py -- RUNS`. Which page is shown, and for which study.

Reads a folder of studies, and never writes to one; notes go into a file beside them. The address bar holds the page,
the study, the picked trials and the view, so a link shows a colleague the same. `launch.serve` starts this with the
options it needs.
"""

import sys
from functools import partial
from importlib import import_module
from typing import Any

import streamlit as st

from sizewise_core.stores.storage import Place, place
from sizewise_dashboard.elements.parts import pick_study
from sizewise_dashboard.streamlit_page import STYLE

READ_ONLY = "--read-only"


def main(runs: Place) -> None:
    """Show the page that the address names."""
    st.session_state["read_only"] = READ_ONLY in sys.argv[2:]
    st.set_page_config(page_title="Sizewise", layout="wide")
    st.html(f"<style>{STYLE}</style>")
    details = _page("trials", "Trials", runs)
    pages = {
        "decide": _page("decide", "Decide", runs, details),
        "trials": details,
        "explore": _page("explore", "Explore", runs, details),
        "compare": _page("compare", "Compare", runs),
        "data": _page("data", "Data", runs),
    }
    home = st.Page(partial(_show, "studies", runs, pages["decide"]), title="Studies", default=True)
    shown = st.navigation([home, *pages.values()], position="top")
    if shown is not home:
        pick_study(runs)
    shown.run()


def _page(name: str, title: str, *arguments: Any) -> st.Page:
    return st.Page(partial(_show, name, *arguments), title=title, url_path=name)


def _show(name: str, *arguments: Any) -> None:
    """Run the page of this name. Its module is imported only now: some need libraries that take a second."""
    import_module(f"sizewise_dashboard.content.{name}").page(*arguments)


main(place(sys.argv[1] if len(sys.argv) > 1 else "runs"))
