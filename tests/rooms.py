"""The rooms of the house: every folder of the packages with its files and lines, printed by `make rooms`."""

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = ("platform", "data_prep", "dashboard", "benchmarks")


class Room(NamedTuple):
    """A folder of modules, `__init__.py` not counted among its files.

    Attributes:
        folder: relative to the repository.
        files: how many modules it has.
        lines: of all of them, `__init__.py` too.
        longest: lines of the longest, and its name.
        function: lines of the longest function, and its name.
    """

    folder: str
    files: int
    lines: int
    longest: tuple[int, str]
    function: tuple[int, str]


def rooms(root: Path = ROOT) -> list[Room]:
    """All rooms, in the order of their folders."""
    found = []
    for source in SOURCES:
        for folder in sorted({path.parent for path in (root / source).rglob("*.py")}):
            texts = {path.name: path.read_text() for path in sorted(folder.glob("*.py"))}
            lines = {name: len(text.splitlines()) for name, text in texts.items()}
            functions = [
                ((node.end_lineno or node.lineno) - node.lineno + 1, node.name)
                for text in texts.values()
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            found.append(
                Room(
                    folder.relative_to(root).as_posix(),
                    len(texts.keys() - {"__init__.py"}),
                    sum(lines.values()),
                    max((count, name) for name, count in lines.items()),
                    max(functions, default=(0, "")),
                )
            )
    return found


def main() -> None:
    """Print the table, in Markdown."""
    found = rooms()
    width = max(len(room.folder) for room in found)
    print(f"| {'room':{width}} | files | lines | longest file           | longest function |")
    print(f"|{'-' * (width + 2)}|------:|------:|:-----------------------|:-----------------|")
    for room in found:
        longest, function = (f"{count} {name}" for count, name in (room.longest, room.function))
        print(f"| {room.folder:{width}} | {room.files:5} | {room.lines:5} | {longest:22} | {function} |")
    print(f"\n{sum(room.files for room in found)} files, {sum(room.lines for room in found):,} lines")


if __name__ == "__main__":
    main()
