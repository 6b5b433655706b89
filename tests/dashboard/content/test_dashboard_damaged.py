"""Pages over studies whose files are damaged: each says so, and the others are as they were."""

import math
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sizewise_dashboard import snapshots
from sizewise_dashboard.launch import APP
from study_folder import finished_study


def _page(runs: str, page: str) -> None:
    from importlib import import_module
    from pathlib import Path

    from sizewise_dashboard.elements.parts import pick_study

    pick_study(Path(runs))
    import_module(f"sizewise_dashboard.content.{page}").page(Path(runs))


def _words(app: AppTest) -> str:
    kinds = ("markdown", "caption", "text", "info", "warning", "error")
    return "\n".join(str(element.value) for kind in kinds for element in app.get(kind)).replace("\\", "")


@pytest.mark.slow
def test_every_page_says_what_could_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_SLOW", math.inf)
    monkeypatch.setattr("sys.argv", ["app.py", str(tmp_path)])
    finished_study(tmp_path, "fine", trials=3)
    hurt = finished_study(tmp_path, "hurt", trials=3).folder
    path = hurt / "evaluations/0001.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    gone = finished_study(tmp_path, "gone", trials=3).folder
    (gone / "study.json").unlink()
    (gone / "study.json").symlink_to("study.json")
    (gone / "trials/0000.json").write_text("[" * 3_000)
    (tmp_path / "link").symlink_to("fine")

    home = AppTest.from_file(str(APP), default_timeout=300).run()
    assert not home.exception
    words = _words(home)
    assert "link: " in words
    assert "is a link, which is not followed" in words
    assert "gone: gone/study.json was skipped (a link" in words
    for page in ("decide", "trials", "explore", "data", "compare"):
        for study, said in (("hurt", "0001.jsonl holds 2 of"), ("fine", ""), ("link", "is a link")):
            app = AppTest.from_function(
                _page, kwargs={"runs": str(tmp_path), "page": page}, default_timeout=300
            )
            app.query_params["study"] = study
            if page == "compare":
                app.query_params["others"] = "gone"
            app.run()
            assert not app.exception
            assert said in _words(app), (page, study)
            assert page == "compare" or said or "Problems" not in _words(app)
