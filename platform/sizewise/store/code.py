"""The code of a user's own models: what is not installed of it is kept in the study's folder, for workers.

    search(Path("studies"))                   # modules beside the study file are found, after all that is installed
    write(StudyFolder(folder).code, packed(["mynets"]))
    use(folder)                               # in a worker, a resumed driver, an export: the same code

A study goes on with the code that it began with, on whatever machine, whatever modules of these names that machine has.
Reading a study does not import it.
"""

import atexit
import hashlib
import importlib
import io
import os
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from zipimport import zipimporter

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
        if before in sys.path:
            sys.path.remove(before)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Kept)]
        _forget(
            name
            for name, module in list(sys.modules.items())
            if _root(name, module) == Path(before) or _is_portion(module, before)
        )
    if wanted not in sys.path:
        sys.path.append(wanted)
        _searched.append(wanted)
    importlib.invalidate_caches()


def use(study: Place) -> None:
    """Find the modules that a study keeps, if it keeps some."""
    path = StudyFolder(study).code
    if not exists(path):
        return
    local = path if isinstance(path, Path) else _local(path.name, read(path, MOST_BYTES))
    search(local)
    importer = zipimporter(str(local.absolute()))
    with zipfile.ZipFile(local) as archive:
        names = {name.split("/")[0].removesuffix(".py") for name in archive.namelist()}
    _forget(  # others of these names, from PYTHONPATH perhaps
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in names and not _is_of(module, importer.archive)
    )
    sys.meta_path[:] = [_Kept(names, importer), *(f for f in sys.meta_path if not isinstance(f, _Kept))]


class _Kept(MetaPathFinder):
    """Finds the modules that a study has kept, in front of others of these names.

    Args:
        names: of the archive's modules and packages at the top.
        importer: of the archive.
    """

    def __init__(self, names: Iterable[str], importer: zipimporter) -> None:
        self.names, self.importer = frozenset(names), importer

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module at the top is; those within packages are found by their package."""
        return self.importer.find_spec(fullname) if path is None and fullname in self.names else None


@cache
def _folder_of(digest: str) -> Path:
    """A folder for the archive with that digest, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="sizewise-code-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _local(name: str, content: bytes) -> Path:
    """An archive on this machine's disk, once for each content."""
    path = _folder_of(hashlib.sha256(content).hexdigest()) / name
    if not path.exists():
        path.write_bytes(content)
    return path


def packed(names: Iterable[str]) -> bytes | None:
    """An archive of these imported modules as far as they are not installed, with what they have imported from beside.

    Args:
        names: of modules.

    Returns:
        None where all of them are installed.

    Raises:
        InputError: they are too large to be code alone, or some are compiled.
    """
    roots = sorted({root for name in names if (root := _root(name, sys.modules[name])) is not None})
    files: dict[str, bytes] = {}
    for root in roots:
        if root.is_file():  # an archive already, of the study that this one takes over
            with zipfile.ZipFile(root) as archive:
                files |= {name: archive.read(name) for name in archive.namelist()}
            continue
        tops = {
            name.partition(".")[0]
            for name, module in list(sys.modules.items())
            if _root(name, module) == root
        }
        for top in sorted(tops):
            folder = root / top
            paths = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
            files |= {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        if compiled := next(_compiled(root), None):
            raise InputError(
                f"model.kind: {compiled.name} is compiled, and a study keeps Python's text alone: install it as a "
                "package on all machines"
            )
    if not files:
        return None
    files |= dict.fromkeys(_namespaces(files), b"")
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


def _forget(names: Iterable[str]) -> None:
    """Have these modules imported anew."""
    for name in list(names):  # first, for where a package without `__init__.py` is, its parent says
        del sys.modules[name]


def _namespaces(files: Iterable[str]) -> set[str]:
    """The folders without `__init__.py` among the packages of an archive, which finds them only if it lists them."""
    listed = set(files)
    folders = {folder for name in listed for folder in Path(name).parents if folder != Path()}
    return {f"{folder.as_posix()}/" for folder in folders if f"{folder.as_posix()}/__init__.py" not in listed}


def _compiled(root: Path) -> Iterator[Path]:
    """Imported modules from a folder that are compiled."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(tuple(EXTENSION_SUFFIXES)):
            path, depth = Path(file).absolute(), name.count(".")
            if len(path.parents) > depth and path.parents[depth] == root:
                yield path


def _is_of(module: object, archive: str) -> bool:
    """Whether a module is from an archive, and from nowhere else."""
    file = getattr(module, "__file__", None)
    where = [file] if isinstance(file, str) else [str(path) for path in getattr(module, "__path__", ())]
    return bool(where) and all(path.startswith(f"{archive}{os.sep}") for path in where)


def _is_portion(module: object, where: str) -> bool:
    """Whether a module is a package without `__init__.py` that is, among other places, in a folder or archive."""
    if getattr(module, "__file__", None) is not None:
        return False
    return any(str(path).startswith(f"{where}{os.sep}") for path in getattr(module, "__path__", ()))


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
