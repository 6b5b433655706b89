"""The code of one's own models: what of it is not installed is kept in the study's folder, for its workers.

    search(Path("studies"))                   # modules beside the study file are found, after all that is installed
    write(StudyFolder(folder).code, packed(["mynets"]))
    use(folder)                               # in a worker, a resumed driver, an export: the same code

A study goes on with the code that it began with, on whatever machine. Nobody imports it to read a study.
"""

import atexit
import importlib
import io
import os
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sizewise.store.study_folder import MOST_BYTES, StudyFolder
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, exists, read

_searched: list[str] = []  # what this process has added to where modules are found


def search(where: Path) -> None:
    """Find modules in a folder or archive: after everything installed, which they cannot replace.

    What another study's code was found in is no longer searched, and its modules are forgotten.
    """
    wanted = str(where.absolute())
    for before in [path for path in _searched if path != wanted]:
        _searched.remove(before)
        sys.path.remove(before)
        for name, module in list(sys.modules.items()):
            if _root(name, module) == Path(before):
                del sys.modules[name]
    if wanted not in sys.path:
        sys.path.append(wanted)
        _searched.append(wanted)
    importlib.invalidate_caches()


def use(study: Place) -> None:
    """Find the modules that a study keeps, if it keeps some."""
    path = StudyFolder(study).code
    if not exists(path):
        return
    if isinstance(path, Path):
        search(path)
        return
    local = Path(tempfile.mkdtemp(prefix="sizewise-code-"))
    atexit.register(shutil.rmtree, local, ignore_errors=True)
    (local / path.name).write_bytes(read(path, MOST_BYTES))
    search(local / path.name)


def packed(names: Iterable[str]) -> bytes | None:
    """An archive of these imported modules as far as they are not installed, with what they have imported from beside.

    Args:
        names: of modules.

    Returns:
        None where all of them are installed.

    Raises:
        InputError: they are too large to be code alone.
    """
    roots = sorted({root for name in names if (root := _root(name, sys.modules[name])) is not None})
    files: dict[str, bytes] = {}
    for root in roots:
        if root.is_file():  # an archive already, of the study that this one takes over
            with zipfile.ZipFile(root) as archive:
                files |= {name: archive.read(name) for name in archive.namelist()}
            continue
        for name, module in list(sys.modules.items()):
            if _root(name, module) == root:
                top = root / name.partition(".")[0]
                paths = top.rglob("*.py") if top.is_dir() else [top.with_suffix(".py")]
                files |= {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    if not files:
        return None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            undated = zipfile.ZipInfo(name)  # equal code, equal bytes
            archive.writestr(undated, content)
    if buffer.tell() > MOST_BYTES:
        raise InputError(
            f"model.kind: its code in {roots[0]} has {buffer.tell():,} bytes: install it as a package instead"
        )
    return buffer.getvalue()


@cache
def _installed() -> tuple[str, ...]:
    """The folders of Python's own and of installed packages: as text, since thousands of modules are looked up."""
    return tuple(f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("stdlib", "purelib", "platlib"))


def _root(name: str, module: object) -> Path | None:
    """The folder or archive in which a module was found; None where that is Python's own, or of installed packages."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    path = Path(file).absolute() if not file.startswith(_installed()) else None
    if path is None or str(path).startswith(_installed()):
        return None
    place = path.parent if path.name == "__init__.py" else path.with_suffix("")
    parts = name.split(".")
    return place.parents[len(parts) - 1] if list(place.parts[-len(parts) :]) == parts else None
