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

# so that a screen of 720 pixels shows a figure: Streamlit's defaults leave a fifth of it empty above the first line,
# and write numbers as large as headings
_STYLE = """
.stMainBlockContainer { padding-top: 4rem; padding-bottom: 2rem }
.stMainBlockContainer [data-testid=stVerticalBlock] { gap: 0.75rem }
.stMainBlockContainer [data-testid=stHeading] { padding: 0 }
.stMainBlockContainer [data-testid=stMetricValue] { font-size: 1.5rem }
.stMainBlockContainer h4 { padding: 0.2rem 0 0.5rem; font-size: 1.3rem; line-height: 1.35 }
"""


def main(runs: Place) -> None:
    """Show the page that the address names."""
    st.set_page_config(page_title="Sizewise", layout="wide")
    st.html(f"<style>{_STYLE}</style>")
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
