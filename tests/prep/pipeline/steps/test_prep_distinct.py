"""Exact counts of 32-bit words, with few of them in memory."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise_prep.shards.values import distinct
from sizewise_prep.shards.values.distinct import Run, merged, ranges, union

word = st.one_of(st.integers(0, 50), st.integers(0, 2**32 - 1), st.integers(2**32 - 20, 2**32 - 1))
sets = st.lists(st.sets(word, max_size=40), max_size=12)


@given(sets=sets, limit=st.integers(1, 60), step=st.integers(1, 9))
@settings(deadline=None)
def test_ranges_cover_every_word_once_and_are_as_wide_as_the_limit_allows(
    sets: list[set[int]], limit: int, step: int
) -> None:
    runs = [np.array(sorted(one), np.uint32) for one in sets]
    found: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distinct, "_STEP", step)
        every = list(ranges(runs, limit))
    left = sorted(chain(*runs))
    for pieces in every:
        held = [int(word) for piece in pieces for word in piece.words]
        for run, piece in zip(runs, pieces, strict=True):
            assert piece.words.tolist() == run[piece.start : piece.start + len(piece.words)].tolist()
        words = union([piece.words for piece in pieces]).tolist()
        assert len(held) <= limit or len(words) == 1  # one value may be in more runs than the limit
        assert words
        assert not found or found[-1] < words[0]
        found += words
        left = left[len(held) :]
        if left:  # with the next value it would hold too many
            assert len(held) + left.count(left[0]) > limit
    assert found == sorted(set().union(*sets))


@pytest.mark.parametrize("counted", [True, False])
def test_a_run_holds_the_words_counts_and_clicks_of_every_column(tmp_path: Path, counted: bool) -> None:
    random = np.random.default_rng(1)
    ids = np.stack([random.integers(0, high, 5000, dtype=np.uint32) for high in (1, 9, 2**32)], axis=1)
    labels = (random.random(5000) < 0.2).astype(np.uint8)
    run, size, _ = Run.written(tmp_path / "run.u32", ids, labels if counted else None)
    assert size == (tmp_path / "run.u32").stat().st_size == 4 * run.starts[-1] * (3 if counted else 1)
    for column in range(3):
        words, counts = np.unique(ids[:, column], return_counts=True)
        assert np.array_equal(run.column(column)[:], words)
        if counted:
            assert np.array_equal(run.counts(column)[:], counts)
            clicks = [labels[ids[:, column] == word].sum() for word in words[:50]]
            assert run.clicks(column)[:50].tolist() == clicks
            assert run.clicks(column)[:].sum() == labels.sum()


def test_a_run_of_no_rows_is_empty(tmp_path: Path) -> None:
    for labels in (None, np.empty(0, np.uint8)):
        run, size, _ = Run.written(tmp_path / "run.u32", np.empty((0, 2), np.uint32), labels)
        assert (size, run.starts, len(run.column(1))) == (0, [0, 0, 0], 0)
        assert list(merged([run], 0, 10)) == []


@pytest.mark.parametrize("limit", [1, 40, 10**6])
def test_merged_runs_count_training_rows_only(tmp_path: Path, limit: int) -> None:
    random = np.random.default_rng(2)
    parts = [random.integers(0, 60, (300, 2), dtype=np.uint32) * 70_000_000 for _ in range(4)]
    labels = [(random.random(300) < 0.5).astype(np.uint8) for _ in parts]
    runs = [
        Run.written(tmp_path / f"{number}.u32", ids, labels[number] if number < 3 else None)[0]
        for number, ids in enumerate(parts)
    ]
    found = list(merged(runs, 1, limit))
    words = np.concatenate([part.words for part in found])
    every, training = np.concatenate(parts)[:, 1], np.concatenate(parts[:3])[:, 1]
    assert words.tolist() == np.unique(every).tolist()
    assert np.concatenate([part.counts for part in found]).tolist() == [(training == w).sum() for w in words]
    clicked = training[np.concatenate(labels[:3]) == 1]
    assert np.concatenate([part.clicks for part in found]).tolist() == [(clicked == w).sum() for w in words]


@pytest.mark.slow
def test_no_file_of_a_run_stays_in_memory(tmp_path: Path) -> None:
    """Else memory would grow with the log: 48 MB of words, counts and clicks are read 60,000 words at a time."""
    rows = 1_000_000
    ids = [np.arange(rows, dtype=np.uint32)[:, None] * 4 + number for number in range(4)]
    labels = np.ones(rows, np.uint8)
    runs = [Run.written(tmp_path / f"{n}.u32", one, labels)[0] for n, one in enumerate(ids)]
    smaps = Path("/proc/self/smaps")

    def most(read: Iterator[object]) -> int:
        """Bytes of the runs' files in memory at most, looked at whenever something is read."""
        found = 0
        for _ in read:
            entries = smaps.read_text().split("VmFlags:")
            of_runs = [entry for entry in entries if str(tmp_path) in entry]
            found = max(found, sum(1024 * int(entry.split("Rss:")[1].split()[0]) for entry in of_runs))
        return found

    mapped = np.memmap(runs[0].path, np.uint32, "r")
    assert most(iter(mapped[:: rows // 10])) > 1e6  # it would be seen
    del mapped
    assert most(merged(runs, 0, 60_000)) == 0
