"""Contiguous ids by minimum count."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import generate
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.vocabulary import Vocabulary
from sizewise_prep.shards.verifying import verify


def tokens_of(folder: Path, manifest: Manifest, name: str) -> np.ndarray:
    return np.concatenate([read_shard(folder / shard.file).ids for shard in manifest.splits[name].shards])


def test_ids_number_the_training_tokens(
    tmp_path: Path, line: Callable[..., bytes], log: Callable[..., Path]
) -> None:
    training = [line(C1=token) for token in ("b", "a", "", "ffffffff", "b", "c", "c", "c")]
    path = log(*training, line(C1="a"), line(C1="d"))
    manifest = prepare([path], tmp_path / "out", tokens="contiguous", shard_rows=3)
    ids = [tokens_of(tmp_path / "out", manifest, name)[:, 0].tolist() for name in manifest.splits]
    assert ids == [[2, 1, 0, 4, 2, 3, 3, 3], [1], [0]]
    assert manifest.cardinalities == [5] + [2] * 25
    assert manifest.token_missing[0] == 0.1
    assert verify(tmp_path / "out") == []

    pruned = prepare([path], tmp_path / "pruned", tokens="contiguous", min_count=2)
    ids = [tokens_of(tmp_path / "pruned", pruned, name)[:, 0].tolist() for name in pruned.splits]
    assert ids == [[1, 0, 0, 0, 1, 2, 2, 2], [0], [0]]
    assert pruned.cardinalities == [3] + [2] * 25


@pytest.mark.parametrize("min_count", [1, 3, 100])
def test_the_vocabulary_maps_raw_rows_as_the_shards_were(tmp_path: Path, min_count: int) -> None:
    generate(tmp_path / "log", 3000)
    source = tmp_path / "log" / "day_0.tsv"
    raw = prepare([source], tmp_path / "raw", shard_rows=700)
    numbered = prepare(
        [source], tmp_path / "numbered", shard_rows=700, tokens="contiguous", min_count=min_count
    )
    vocabulary = Vocabulary.load(tmp_path / "numbered")
    assert numbered.cardinalities == vocabulary.cardinalities
    for name in raw.splits:
        tokens = tokens_of(tmp_path / "raw", raw, name)
        ids = tokens_of(tmp_path / "numbered", numbered, name)
        assert np.array_equal(vocabulary.ids(tokens), ids)
        for column in range(26):
            known = vocabulary.tokens[column]
            assert all(known[i - 1] == t for i, t in zip(ids[:, column], tokens[:, column], strict=True) if i)
    training = tokens_of(tmp_path / "raw", raw, "train")
    for column in range(26):
        counts = Counter(training[:, column].tolist())
        expected = sorted(token for token, count in counts.items() if count >= min_count and token)
        assert vocabulary.tokens[column].tolist() == expected

    again = prepare([source], tmp_path / "again", shard_rows=700, tokens="contiguous", min_count=min_count)
    assert again.files == numbered.files


def test_a_missing_or_damaged_vocabulary_is_named(tmp_path: Path) -> None:
    generate(tmp_path / "log", 50)
    prepare([tmp_path / "log" / "day_0.tsv"], tmp_path / "raw")
    with pytest.raises(InputError, match=r"C1\.arrow: not found; only shards with contiguous ids"):
        Vocabulary.load(tmp_path / "raw")
    prepare([tmp_path / "log" / "day_0.tsv"], tmp_path / "out", tokens="contiguous")
    (tmp_path / "out" / "vocabulary" / "C2.arrow").write_bytes(b"not an Arrow file")
    with pytest.raises(InputError, match=r"C2\.arrow: is no Arrow file"):
        Vocabulary.load(tmp_path / "out")
    assert [problem.split(":")[0] for problem in verify(tmp_path / "out")] == ["vocabulary/C2.arrow"]
