"""One page at a time, run by Streamlit's AppTest on the studies under a folder, and the words on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sizewise_dashboard.launch import APP

Open = Callable[..., AppTest]


def one_page(runs: str, page: str) -> None:
    """What app.py does for one page, since AppTest cannot switch to a page that is a function."""
    from importlib import import_module
    from pathlib import Path

    from sizewise_dashboard.elements.parts import pick_study

    pick_study(Path(runs))
    import_module(f"sizewise_dashboard.content.{page}").page(Path(runs))


def home(runs: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr("sys.argv", ["app.py", str(runs)])
    app = AppTest.from_file(str(APP), default_timeout=300).run()
    assert not app.exception
    return app


def text_of(app: AppTest) -> str:
    """All words on the page, with Markdown's escapes undone."""
    kinds = (
        "html",
        "title",
        "header",
        "subheader",
        "markdown",
        "caption",
        "text",
        "info",
        "warning",
        "error",
        "code",
    )
    words = [
        str(element.proto.body if kind == "html" else element.value)
        for kind in kinds
        for element in app.get(kind)
    ]
    return "\n".join(words).replace("\\", "")


def card_of(app: AppTest) -> str:
    """The words on the card of the chosen model."""
    return "\n".join(
        str(element.proto.body) for element in app.get("html") if "sizewise-card" in element.proto.body
    )
