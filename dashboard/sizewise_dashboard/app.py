"""The dashboard's entry: `streamlit run app.py -- RUNS`. Which page is shown, and for which study.

Reads a runs folder and never writes. The address bar holds the page, the study, what is picked and how it is
looked at, so a link shows a colleague the same view. `launch.serve` starts this with the options it needs.
"""

import sys
from functools import partial

import streamlit as st

from sizewise_dashboard import choose, compare, data, search, studies, tradeoff, trials
from sizewise_dashboard.parts import pick_study
from sizewise_prep.storage import Place, place


def main(runs: Place) -> None:
    """Show the page that the address names."""
    st.set_page_config(page_title="Sizewise", layout="wide")
    # Streamlit's default leaves a fifth of a 720 pixel screen empty above the first line
    st.html("<style>.stMainBlockContainer { padding-top: 4rem; padding-bottom: 2rem }</style>")
    details = st.Page(partial(trials.page, runs), title="Trials", url_path="trials")
    pages = {
        "tradeoff": st.Page(partial(tradeoff.page, runs, details), title="Trade-off", url_path="tradeoff"),
        "choose": st.Page(partial(choose.page, runs, details), title="Choose", url_path="choose"),
        "trials": details,
        "search": st.Page(partial(search.page, runs, details), title="Search", url_path="search"),
        "compare": st.Page(partial(compare.page, runs), title="Compare", url_path="compare"),
        "data": st.Page(partial(data.page, runs), title="Data", url_path="data"),
    }
    home = st.Page(partial(studies.page, runs, pages["tradeoff"]), title="Studies", default=True)
    shown = st.navigation([home, *pages.values()], position="top")
    if shown is not home:
        pick_study(runs)
    shown.run()


main(place(sys.argv[1] if len(sys.argv) > 1 else "runs"))
