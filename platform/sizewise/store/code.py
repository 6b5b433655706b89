"""The code of one's own models: what of it lies beside the study file is kept in the study's folder, for its workers.

    search(Path("studies"))                   # modules beside the study file are found, after all that is installed
    write(StudyFolder(folder).code, packed(Path("studies")))
    use(folder)                               # in a worker, a resumed driver, an export: the same code

A study goes on with the code that it began with, on whatever machine. Nobody imports it to read a study.
"""

import atexit
import importlib
import io
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from sizewise.store.study_folder import MOST_BYTES, StudyFolder
from sizewise_core.errors import InputError
from sizewise_core.storage import Place, exists, read

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
            if str(getattr(module, "__file__", None) or "").startswith(before):
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


def packed(folder: Path) -> bytes | None:
    """An archive of the modules that this process has imported from a folder, with all of their packages.

    Raises:
        InputError: they are too large to be code alone.
    """
    files: set[Path] = set()
    for name, module in list(sys.modules.items()):
        place = folder.absolute().joinpath(*name.split("."))
        if getattr(module, "__file__", None) in (f"{place}.py", str(place / "__init__.py")):
            top = folder.absolute() / name.partition(".")[0]
            files |= set(top.rglob("*.py")) if top.is_dir() else {top.with_suffix(".py")}
    if not files:
        return None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files):
            inside = file.relative_to(folder.absolute()).as_posix()
            undated = zipfile.ZipInfo(inside)  # equal code, equal bytes
            archive.writestr(undated, file.read_bytes())
    if buffer.tell() > MOST_BYTES:
        raise InputError(
            f"model.kind: the code beside it in {folder} has {buffer.tell():,} bytes: move it to a package"
        )
    return buffer.getvalue()
