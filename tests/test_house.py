"""The rules of the house that a program can check: sizes of files and functions, and what is imported where."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rooms import rooms

ROOT = Path(__file__).parents[1]
PACKAGES = [
    path
    for folder in ("platform", "data_prep", "dashboard", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# Of compiled code, whose functions take arrays and sizes one by one.
KERNELS = (
    "platform/sizewise/embedding/kernels/",
    "data_prep/sizewise_prep/raw/columns/fields.py",
    "data_prep/sizewise_prep/raw/values/sparse_lines.py",
)
MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 8, 400, 60, 7
WIDTH = 110  # of a line, as the formatter has it
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Parts of libraries that are not their public interface, and the module that may use each.
PRIVATE = {
    r"ray\._\w+|ray\.\w+(\.\w+)*\._\w+|ray\.tune\.execution": "platform/sizewise_core/clusters/ray_internals.py",
    r"numba\.core\.caching|numba\.core import caching": "platform/sizewise_core/machine/code_files.py",
    r"streamlit\.__file__|stMain\w+|data-testid|window\.__streamlit": "dashboard/sizewise_dashboard/streamlit_page.py",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """All functions of a module by their dotted names."""

    def below(node: ast.AST, name: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            inner = f"{name}.{child.name}".lstrip(".") if named else name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield inner, child
            yield from below(child, f"{inner}.<locals>" if isinstance(child, ast.FunctionDef) else inner)

    yield from below(ast.parse(path.read_text()), "")


def is_public(name: str) -> bool:
    return not any(part.startswith(("_", "<")) for part in name.split("."))


def is_command(function: Function) -> bool:
    return any(".command" in ast.unparse(decorator) for decorator in function.decorator_list)


def folds(path: Path) -> Iterator[str]:
    """Comments within a statement that would fit on one line without them."""
    text = path.read_text()
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not re.match(r"# (noqa|type: ignore|fmt|isort)", token.string)
    }
    for node in ast.walk(ast.parse(text)):
        simple = isinstance(
            node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.Expr | ast.Raise
        )
        if (
            not simple
            or node.end_lineno == node.lineno
            or isinstance(getattr(node, "value", 0), ast.Constant)
        ):
            continue
        inside = comments & set(range(node.lineno, (node.end_lineno or 0) + 1))
        if inside and node.col_offset + len(ast.unparse(node)) <= WIDTH:
            yield f"{name_of(path)}:{min(inside)}"


def parameters(function: Function) -> list[str]:
    listed = function.args
    names = [one.arg for one in (*listed.posonlyargs, *listed.args, *listed.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


# What does not keep to the rules yet.
EXCEPTIONS: dict[str, set[str]] = {
    "files": {
        "benchmarks",  # a measurement a file
        "benchmarks/gpu",
        "benchmarks/scale",
        "platform/sizewise/config/sections",  # a section a file
        "platform/sizewise/models",  # a model a file
    },
    "lines": set(),
    "function lines": {"benchmarks/scale/__main__.py: main"},
    "parameters": {"benchmarks/gpu/variants.py: step", "benchmarks/scale/runs.py: train"},
    "args": set(),
    "comments": {
        "benchmarks/gpu/checks.py",
        "benchmarks/gpu/reads.py",
        "benchmarks/scale/planted.py",
    },
}


def test_rooms_are_small_enough_to_know() -> None:
    assert {room.folder for room in rooms() if room.files > MOST_FILES} <= EXCEPTIONS["files"]
    of_tests = Counter(path.parent for path in TESTS)
    assert {name_of(folder) for folder, files in of_tests.items() if files > MOST_FILES} <= EXCEPTIONS[
        "files"
    ]


def test_files_and_functions_are_short_enough_to_read() -> None:
    long_files = {
        name_of(path) for path in [*PACKAGES, *TESTS] if len(path.read_text().splitlines()) > MOST_LINES
    }
    long_functions, many = set(), set()
    for path in PACKAGES:
        if name_of(path).startswith(KERNELS):
            continue
        for name, function in functions(path):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                long_functions.add(f"{name_of(path)}: {name}")
            if len(parameters(function)) > MOST_PARAMETERS:
                many.add(f"{name_of(path)}: {name}")
    assert long_files <= EXCEPTIONS["lines"]
    assert long_functions <= EXCEPTIONS["function lines"]
    assert many <= EXCEPTIONS["parameters"]


def test_public_functions_say_what_they_take() -> None:
    """Those of three or more parameters, except commands, whose parameters have help texts."""
    silent = set()
    for path in PACKAGES:
        name = name_of(path)
        if name.startswith("benchmarks/"):
            continue
        for function_name, function in functions(path):
            if not is_public(function_name) or is_command(function) or len(parameters(function)) < 3:
                continue
            if "Args:" not in (ast.get_docstring(function) or ""):
                silent.add(f"{name}: {function_name}")
    assert silent <= EXCEPTIONS["args"]


def test_dictionaries_without_types_stay_at_the_borders() -> None:
    """JSON, Ray, pydantic, Plotly: what goes from room to room inside has a type of its own."""
    texts = [path.read_text() for path in PACKAGES if not name_of(path).startswith("benchmarks")]
    assert sum(text.count("dict[str, Any]") for text in texts) <= 40


def test_no_comment_folds_a_line() -> None:
    """A comment in an expression that would fit on one line belongs above the statement."""
    found = {name_of(path) for path in PACKAGES if any(folds(path))}
    assert found <= EXCEPTIONS["comments"]


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
    import sizewise_core.clusters.ray_internals
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
from sizewise_core.clusters.ray_internals import train_failures
print(*[kind.__name__ for kind in train_failures()])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["_AbsentError"] * 3


def test_a_numba_of_other_insides_still_compiles(tmp_path: Path) -> None:
    program = """
from numba.core import caching
del caching.IndexDataCacheFile
from sizewise_core.machine.compiled import compiled
print(compiled(lambda x: x + 1)(1))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "2\n"
    assert "not kept on disk" in ended.stderr
