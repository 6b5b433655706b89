"""The code that a study keeps: what is in it, and that it is found before what a machine has of the same name."""

import io
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from sizewise.store import code
from sizewise_core.errors import InputError


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A module, a package, and a package without `__init__.py`, of a study that keeps them."""
    folder = tmp_path / "mine"
    for name in ("kept_one.py", "kept_many/__init__.py", "kept_many/inner.py", "kept_space/deep/inner.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("WHOSE = 'mine'\n")
    code.search(folder)
    yield folder
    code.search(tmp_path)
    for name in [name for name in sys.modules if name.startswith("kept_")]:
        del sys.modules[name]


NAMES = ("kept_one", "kept_many.inner", "kept_space.deep.inner")


def test_kept_modules_come_before_others_of_their_names(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        import_module(name)
    kept = code.packed(NAMES)
    assert kept is not None
    assert {"kept_space/", "kept_space/deep/"} < set(zipfile.ZipFile(io.BytesIO(kept)).namelist())
    study, other = tmp_path / "study", tmp_path / "other"
    for name in NAMES:
        path = other / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("WHOSE = 'other'\n")
    (other / "kept_many" / "__init__.py").write_text("")
    study.mkdir()
    (study / "code.zip").write_bytes(kept)
    code.search(tmp_path / "nothing")
    monkeypatch.syspath_prepend(other)
    assert [import_module(name).WHOSE for name in NAMES] == [
        "other"
    ] * 3  # imported already, as on PYTHONPATH
    code.use(study)
    assert [import_module(name).WHOSE for name in NAMES] == ["mine"] * 3
    first = [import_module(name) for name in NAMES]
    code.use(study)
    assert [import_module(name) for name in NAMES] == first  # the same modules, for the next trial
    assert code.packed(NAMES) == kept
    code.search(tmp_path / "nothing")
    assert [import_module(name).WHOSE for name in NAMES] == ["other"] * 3
    assert not [name for name in sys.modules if "code.zip" in str(getattr(sys.modules[name], "__file__", ""))]


def test_what_is_compiled_is_refused(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = ModuleType("kept_fast")
    compiled.__file__ = str(mine / f"kept_fast{EXTENSION_SUFFIXES[0]}")
    monkeypatch.setitem(sys.modules, "kept_fast", compiled)
    import_module("kept_one")
    with pytest.raises(InputError, match=r"kept_fast.*is compiled.*install it as a package"):
        code.packed(["kept_one"])
