"""The rules of the house that a program can check: sizes of files and functions, and what is imported where."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    path
    for folder in ("platform", "data_prep", "dashboard", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
KERNELS = "platform/sizewise/embedding/kernels/"  # of compiled code, whose functions take arrays and sizes one by one
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 400, 60, 7

# Parts of libraries that are not their public interface, and the module that may use each.
PRIVATE = {
    r"ray\._\w+|ray\.\w+(\.\w+)*\._\w+|ray\.tune\.execution": "platform/sizewise_core/ray_internals.py",
    r"numba\.core\.caching|numba\.core import caching": "platform/sizewise_core/code_files.py",
    r"streamlit\.__file__|stMain\w+|data-testid|window\.__streamlit": "dashboard/sizewise_dashboard/streamlit_page.py",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    listed = function.args
    names = [one.arg for one in (*listed.posonlyargs, *listed.args, *listed.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("pattern", PRIVATE)
def test_what_libraries_do_not_promise_is_used_in_one_module(pattern: str) -> None:
    shipped = [path for path in PACKAGES if not name_of(path).startswith("benchmarks/")]
    users = {name_of(path) for path in shipped if re.search(pattern, path.read_text())}
    assert users == {PRIVATE[pattern]}


def test_another_ray_is_refused_by_the_part_that_it_lacks() -> None:
    program = """
from ray._private import services
del services.ConsolePopen
from sizewise_core.errors import InputError
try:
    import sizewise_core.ray_internals
except InputError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "no ray._private.services.ConsolePopen: install" in ended.stdout
    assert ended.stdout.count("\n") == 1


def test_train_without_its_private_errors_has_stand_ins() -> None:
    program = """
import sys
sys.modules["ray.train.v2._internal"] = None
from sizewise_core.ray_internals import train_failures
print(*[kind.__name__ for kind in train_failures()])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["_AbsentError"] * 3


def test_a_numba_of_other_insides_still_compiles(tmp_path: Path) -> None:
    program = """
from numba.core import caching
del caching.IndexDataCacheFile
from sizewise_core.compiled import compiled
print(compiled(lambda x: x + 1)(1))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "2\n"
    assert "not kept on disk" in ended.stderr
