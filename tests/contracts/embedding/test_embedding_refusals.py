"""What no embedding method can do: refused in a sentence that names the field and the fix."""

import pytest
import torch
from tests.contracts.embedding.embeddings import CARDINALITIES, CASES, CONTIGUOUS, DIM, ids_for, make

from sizewise.embedding import build
from sizewise_core.errors import InputError


@pytest.mark.parametrize("case", CONTIGUOUS)
def test_ids_above_the_vocabulary_are_refused(case):
    with pytest.raises(InputError, match=r"feature 2 has id 300, but its cardinality is 300; .*contiguous"):
        make(case)(torch.tensor([[0, 0, 300, 0]]))


@pytest.mark.parametrize("case", CASES)
def test_bad_ids_are_refused(case):
    embedding, ids = make(case), ids_for(case)
    for broken in (ids.int(), ids[:, :2], ids[0], -1 - ids, ids + 2**32):
        with pytest.raises(InputError, match=r"ids (have|span)"):
            embedding(broken)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("rope", {}, "embedding.method 'rope' is unknown: choose one of full, hash"),
        ("robe", {"block_length": 8}, "embedding.block_length"),
        ("robe", {"block_len": 0}, "embedding.block_len"),
        ("robe", {"block_len": 32}, "block_len 32 exceeds dim 16: set block_len: 16 or less"),
        ("robe", {"block_len": 8, "align": 3}, "align 3 does not divide block_len 8"),
        ("robe", {"hash": "authors", "align": 4}, "set sign: false, wrap: false, align: 1"),
        ("robe", {"hash": "md5"}, "embedding.hash"),
        ("robe", {"storage": "int3"}, "embedding.storage"),
        ("robe", {"storage": "int4", "group": 0}, "embedding.group"),
        ("full", {"storage": "int4", "group": 24}, "group 24 does not divide a row of 16 numbers"),
        ("qr", {"storage": "int2", "group": 3}, "group 3 does not divide a row of 16 numbers"),
        ("tt", {"storage": "int4", "group": "row"}, "embedding.group"),
        ("hash", {"sign": True}, "embedding.sign"),
        ("full", {"block_len": 8}, "embedding.block_len"),
        ("qr", {"combine": "concat"}, "embedding.combine"),
        ("tt", {"max_rank": 0}, "embedding.max_rank"),
        ("cce", {"chunks": 3}, "chunks 3 does not divide dim 16: set chunks: 2"),
        ("hash", {"width": 3}, "width 3 does not divide dim 16: set width: 2"),
        ("hot", {"width": 32}, "width 32 does not divide dim 16: set width: 16"),
        ("robe", {"width": 4, "block_len": 8}, "block_len 8 exceeds width 4: set block_len: 4 or less"),
        ("hot", {"fingerprint_bits": 3}, "embedding.fingerprint_bits"),
        ("hot", {"by": "clicks"}, "embedding.by"),
        ("hot", {"hashed_share": 1.0}, "embedding.hashed_share"),
    ],
)
def test_bad_options_name_the_field_and_the_fix(method, options, message):
    with pytest.raises(InputError, match=message) as refused:
        build(method, CARDINALITIES, DIM, 10**6, 1, **options)
    assert "Value error" not in str(refused.value)


@pytest.mark.parametrize(
    ("cardinalities", "dim", "message"),
    [([], 4, "cardinalities"), ([0], 4, "cardinalities"), ([5], 0, "dim")],
)
def test_impossible_data_is_refused(cardinalities, dim, message):
    with pytest.raises(InputError, match=message):
        build("robe", cardinalities, dim, 10**6, 1, block_len=4)


def test_a_pool_beyond_32_bits_of_starts_says_which_alignment_will_do():
    with pytest.raises(InputError, match="set align: 8 or more"):
        build("robe", CARDINALITIES, DIM, 2**35, 1, block_len=16, align=1)


def test_a_table_beyond_32_bits_of_rows_is_refused():
    with pytest.raises(InputError, match="set a smaller memory_budget"):
        build("hash", CARDINALITIES, 1, 2**34, 1)
