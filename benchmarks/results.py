"""What a benchmark prints, and RESULTS.md, which keeps its last run.

with kept("Last run: benchmarks.cpu", Path("benchmarks/RESULTS.md")):
    print("| a | table |")
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path


class _Both(io.StringIO):
    """Keeps what is written, and shows it at once."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
        return super().write(text)


@contextlib.contextmanager
def kept(title: str, file: Path | None) -> Iterator[None]:
    """Let what is printed meanwhile be the section `title` of a file, too, if the block ends well."""
    with contextlib.redirect_stdout(_Both()) as printed:
        yield
    if file is not None:
        text = file.read_text() if file.exists() else ""
        file.write_text(with_section(text, title, printed.getvalue()))


def with_section(text: str, title: str, body: str) -> str:
    """A Markdown text with its section of that title replaced, or added at its end."""
    heading = f"## {title}"
    before, found, rest = f"\n{text}".partition(f"\n{heading}\n")
    after = rest.partition("\n## ")
    following = f"\n{after[1].strip()} {after[2]}" if after[1] else ""
    start = before.removeprefix("\n") + "\n" if found else text.rstrip("\n") + "\n\n"
    return f"{start}{heading}\n\n{body.strip()}\n{following}"
