"""Exact counts of 32-bit words, with few of them in memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise_prep.shards.distinct import Run, distinct, ranges, union

word = st.one_of(st.integers(0, 50), st.integers(0, 2**32 - 1), st.integers(2**32 - 20, 2**32 - 1))
sets = st.lists(st.sets(word, max_size=40), max_size=12)


@given(sets=sets, limit=st.integers(1, 60))
@settings(deadline=None)
def test_ranges_cover_every_word_once_within_the_limit(sets: list[set[int]], limit: int) -> None:
    runs = [np.array(sorted(one), np.uint32) for one in sets]
    found: list[int] = []
    for parts in ranges(runs, limit):
        held = sum(part.stop - part.start for part in parts)
        words = union(runs, parts).tolist()
        assert held <= limit or len(words) == 1  # one value may be in more runs than the limit
        assert words
        assert not found or found[-1] < words[0]
        found += words
    assert found == sorted(set().union(*sets))
    assert distinct(runs, limit) == len(found)


@pytest.mark.parametrize("counted", [True, False])
def test_a_run_holds_the_words_and_counts_of_every_column(tmp_path: Path, counted: bool) -> None:
    random = np.random.default_rng(1)
    ids = np.stack([random.integers(0, high, 5000, dtype=np.uint32) for high in (1, 9, 2**32)], axis=1)
    run, size, _ = Run.written(tmp_path / "run.u32", ids, counted)
    assert size == (tmp_path / "run.u32").stat().st_size == 4 * run.starts[-1] * (1 + counted)
    for column in range(3):
        words, counts = np.unique(ids[:, column], return_counts=True)
        assert np.array_equal(run.column(column), words)
        if counted:
            assert np.array_equal(run.counts(column), counts)


def test_a_run_of_no_rows_is_empty(tmp_path: Path) -> None:
    run, size, _ = Run.written(tmp_path / "run.u32", np.empty((0, 2), np.uint32), counted=True)
    assert (size, run.starts, len(run.column(1))) == (0, [0, 0, 0], 0)
    assert distinct([run.column(0)], 10) == 0
