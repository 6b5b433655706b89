"""Memory and time that do not depend on what the lines of a raw file are."""

import gzip
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.parsing.parser import Parser

PROGRAM = """
import resource, sys
from pathlib import Path
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

folder = Path(sys.argv[1])
good = folder / "good.tsv"
prepare([good], folder / "first")  # what libraries and compiled code take
before = peak()
for path in sorted(folder.glob("bad-*")):
    for allowed in (0.0, 1.0) if path.stat().st_size < 3 << 20 else (0.0,):
        try:
            prepare([path], folder / "out", max_bad_fraction=allowed)
            print(path.name, "was prepared")
        except InputError as error:
            print(len(str(error)) < 300 + 2 * len(str(folder)), str(error).replace(str(folder), ""))
manifest = prepare([good, folder / "bad-newlines.gz"], folder / "out", max_bad_fraction=1.0)
print(manifest.rows_quarantined, (folder / "out/quarantine/rows.tsv").read_bytes().count(b"\\n"))
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_lines_are(tmp_path: Path, line: Callable[..., bytes]) -> None:
    (tmp_path / "good.tsv").write_bytes((line() + b"\n") * 1000)
    (tmp_path / "bad-8MiB").write_bytes(b"\n" * (8 << 20))
    (tmp_path / "bad-newlines.gz").write_bytes(gzip.compress(b"\n" * (1 << 19)))
    (tmp_path / "bad-zeros.gz").write_bytes(gzip.compress(b"\0" * (100 << 20), 1))
    (tmp_path / "bad-columns").write_bytes((b"0\t" * 100_000 + b"\n") * 10)
    with (tmp_path / "bad-line").open("wb") as stream:
        stream.truncate(1 << 30)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    *messages, aside, peak = ended.stdout.splitlines()
    assert len(messages) == 8
    assert all(text.startswith("True /bad-") for text in messages)
    assert aside == f"{1 << 19} {1 << 19}"
    assert int(peak) < 200 << 20  # a list of 8 million bad rows takes over two gigabytes


def test_the_first_bad_row_ends_it(tmp_path: Path, line: Callable[..., bytes]) -> None:
    (tmp_path / "raw.tsv").write_bytes(line() + b"\n" + b"\n" * (8 << 20))
    prepare_small = time.process_time()
    with pytest.raises(InputError, match=r"raw\.tsv, line 2: is blank"):
        prepare([tmp_path / "raw.tsv"], tmp_path / "out")
    assert time.process_time() - prepare_small < 5  # 45 and more when every line was looked at


@pytest.mark.parametrize("break_at", [1, 500, 2999])
def test_slices_of_a_block_are_the_block(line: Callable[..., bytes], break_at: int) -> None:
    texts = [line(j % 2, I1=str(j)) for j in range(3000)]
    texts[break_at] = b"x" * 100_000  # longer than a slice
    block = b"\n".join(texts) + b"\n"
    found = list(Parser().parts(block, first_line=7))
    assert len(found) > 3
    rows, bad = Parser().parse(block, first_line=7)
    assert [row.line for row in bad] == [7 + break_at]
    assert rows.dense[:, 0].tolist() == [j for j in range(3000) if j != break_at]
    assert sum(len(part.rows) for part in found) == 2999


def test_nothing_is_left_where_reading_fails_after_bad_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Callable[..., bytes]
) -> None:
    monkeypatch.setattr(parts, "PIECE_BYTES", 1 << 30)
    content = gzip.compress(b"torn\n" * 5_000 + (line() + b"\n") * 5_000)
    (tmp_path / "raw.gz").write_bytes(content[: len(content) - 50])
    with pytest.raises(InputError, match="cannot be read as gzip to its end"):
        prepare([tmp_path / "raw.gz"], tmp_path / "out", max_bad_fraction=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.gz"]
