"""Synthetic lists of Criteo's single values: MLPerf's lengths, drawn once for each value, the same on every path."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sizewise.config import load, resolve, to_text
from sizewise.embedding import build
from sizewise.embedding.ids.multi_hot import SIZES, VALUES, MultiHot
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest

CARDINALITIES = [3 + 40 * f for f in range(26)]


def ids_of(rows: int) -> torch.Tensor:
    random = np.random.default_rng(2)
    return torch.from_numpy(np.stack([random.integers(0, n, rows) for n in CARDINALITIES], 1))


def test_lists_have_the_published_lengths_and_follow_from_their_value() -> None:
    assert VALUES == 214
    ids = ids_of(4_000)
    rest, bags = MultiHot(CARDINALITIES)(ids)
    assert rest.shape == (4_000, 0)
    bags.check(26, 4_000)
    for feature, size in enumerate(SIZES):
        low, high = (int(bags.offsets[number * 4_000]) for number in (feature, feature + 1))
        lists = bags.values[low:high].view(4_000, size).to(torch.int64)
        assert torch.equal(lists[:, 0], ids[:, feature])
        assert int(lists.max()) < CARDINALITIES[feature]
        _, first = np.unique(ids[:, feature].numpy(), return_index=True)
        of_value = {int(lists[row, 0]): lists[row] for row in first}
        assert all(torch.equal(one, of_value[int(one[0])]) for one in lists[:200])
        if size == 100:  # uniform over all values
            counts = np.bincount(lists[first, 1:].flatten().numpy(), minlength=CARDINALITIES[feature])
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 1.2 * len(counts)


def test_traced_and_compiled_lists_are_the_same_to_the_bit() -> None:
    module = MultiHot(CARDINALITIES)
    ids = ids_of(8)
    rows = torch.export.Dim("rows", min=1)
    traced = torch.export.export(module, (ids,), dynamic_shapes=({0: rows},)).module()
    for part in (ids, ids[:3]):
        assert torch.equal(traced(part)[1].values, module(part)[1].values.to(torch.int64))
        assert torch.equal(traced(part)[1].offsets, module(part)[1].offsets)


def test_an_embedding_looks_its_lists_up() -> None:
    ids = ids_of(50)
    single = build("robe", CARDINALITIES, 8, 9_000, 1, pooling="sum")
    multi = build("robe", CARDINALITIES, 8, 9_000, 1, pooling="sum", multi_hot="criteo")
    vectors = multi(ids.to(torch.uint32))
    assert torch.equal(vectors, single(*MultiHot(CARDINALITIES)(ids)))
    ones = [feature for feature, size in enumerate(SIZES) if size == 1]
    assert torch.equal(vectors[:, ones], single(ids)[:, ones])
    assert not torch.equal(vectors, single(ids))
    with pytest.raises(InputError, match="makes lists of 26 features, and the data has 3"):
        build("robe", [1, 2, 3], 8, 9_000, 1, multi_hot="criteo")


def test_other_data_is_refused(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: s\ndata: {shards}\nembedding: {{method: robe, multi_hot: criteo}}\n")
    assert b"multi_hot: criteo" in to_text(load(path))
    with pytest.raises(InputError, match=r"embedding.multi_hot: .*--tokens contiguous"):
        resolve(load(path), Manifest.load(shards), "study.yaml")
    plain = load(path, {"embedding.multi_hot": "none", "embedding.pooling": "sum"})
    assert b"multi_hot" not in to_text(plain)
    with pytest.raises(InputError, match=r"embedding.pooling: .*has none: leave it out"):
        resolve(plain, Manifest.load(shards), "study.yaml")
