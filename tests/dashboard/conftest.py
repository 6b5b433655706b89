"""Shows one page of the dashboard; makes `browser.py` beside this file importable from the tests here."""

import math
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from tests.dashboard.content.pages import Open, one_page

from sizewise_dashboard import snapshots

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Run one page on the studies under tmp_path and check that nothing broke."""
    monkeypatch.setattr(snapshots, "_SLOW", math.inf)  # these are small, however busy the machine

    def run(page: str, study: str | None = None, **address: str) -> AppTest:
        app = AppTest.from_function(
            one_page, kwargs={"runs": str(tmp_path), "page": page}, default_timeout=300
        )
        for name, value in {"study": study, **address}.items():
            if value:
                app.query_params[name] = value
        app.run()
        assert not app.exception
        return app

    return run
