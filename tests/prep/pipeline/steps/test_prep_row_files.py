"""Rows on the disk between two steps."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from sizewise_prep.pipeline.jobs import row_files
from sizewise_prep.raw.parsing.rows import Rows


def some_rows(count: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    return Rows(
        random.integers(0, 2, count, dtype=np.uint8),
        random.normal(size=(count, 3)).astype(np.float32),
        random.integers(0, 2**32, (count, 2), dtype=np.uint32),
    )


def test_cuts_of_several_files_come_back_in_their_order(tmp_path: Path) -> None:
    blocks = [some_rows(count, count) for count in (5, 1, 9, 4)]
    first, second = row_files.write(tmp_path, "a", blocks[:3]), row_files.write(tmp_path, "b", blocks[3:])
    assert first.bytes == (tmp_path / "a").stat().st_size
    whole = Rows.concatenated(blocks)
    for part in get_args(row_files.Part):
        found = row_files.gather(tmp_path, [(first, 4, 15), (second, 0, 2)], part)
        expected = getattr(whole, part)[4:17]
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("damage", ["flip", "cut", "zeros", "gone"])
def test_damage_is_told(tmp_path: Path, damage: str) -> None:
    spilled = row_files.write(tmp_path, "a", [some_rows(100, 1)])
    assert row_files.is_intact(tmp_path, spilled)
    content = bytearray((tmp_path / "a").read_bytes())
    content[1000] ^= 1
    damaged = {"flip": bytes(content), "cut": bytes(content[:-1]), "zeros": bytes(len(content))}
    (tmp_path / "a").unlink()
    if damage != "gone":
        (tmp_path / "a").write_bytes(damaged[damage])
    assert not row_files.is_intact(tmp_path, spilled)
