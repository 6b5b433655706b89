"""Programs of small untrained models, of every model, method, storage and treatment of tokens."""

import io
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from counted import build_ready
from sizewise.embedding import METHODS
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.storage.table import Table
from sizewise.export.program import to_program
from sizewise.models import MODELS
from sizewise.models import build as build_model
from sizewise_prep.shards.manifest import Tokens
from sizewise_prep.shards.values.vocabulary import Vocabulary

CARDINALITIES, DIM, INTEGERS = (50, 50, 50), 8, 4


class Case(NamedTuple):
    """What a program is made of."""

    method: str
    options: dict[str, Any]
    tokens: Tokens = "raw"
    precision: Literal["float32", "bfloat16"] = "float32"
    model: str = "dlrm"
    dense: int = INTEGERS
    lists: int = 0  # of the features


CASES = [
    Case("robe", {"block_len": 4}),
    Case("robe", {"block_len": 8, "align": 4, "sign": True, "storage": "int8"}, "contiguous", "bfloat16"),
    Case("robe", {"block_len": 4, "wrap": True, "storage": "bfloat16"}, "mlperf"),
    Case("robe", {"block_len": 4, "hash": "paper", "sign": True}),
    Case("robe", {"block_len": 4, "hash": "authors"}),
    Case("hash", {"storage": "bfloat16"}, "mlperf"),
    Case("hash", {"feature_term": False, "storage": "int8"}),
    Case("full", {}, "contiguous"),
    Case("full", {"storage": "int8"}, "contiguous"),
    Case("qr", {}),
    Case("qr", {"combine": "sum", "contiguous_ids": True}, "contiguous"),
    Case("tt", {}, precision="bfloat16"),
    Case("tt", {"contiguous_ids": True}, "contiguous"),
    Case("cce", {}),
    Case("cce", {"contiguous_ids": True}, "contiguous"),
    Case("hash", {"width": 2}),
    Case("robe", {"width": 4, "storage": "bfloat16"}, "mlperf"),
    Case("hot", {}),
    Case("hot", {"width": 8, "storage": "int8"}, "contiguous"),
    Case("hot", {"width": 1, "hashed_share": 0.3, "storage": "bfloat16"}, "mlperf"),
    Case("robe", {"block_len": 8, "storage": "int4", "group": 24}),
    Case("robe", {"block_len": 3, "align": 1, "storage": "int4", "group": 24}, "contiguous"),
    Case("hash", {"storage": "int2", "group": "row"}),
    Case("full", {"storage": "int4"}, "contiguous"),
    Case("qr", {"storage": "int4"}, precision="bfloat16"),
    Case("tt", {"storage": "int2"}),
    Case("hot", {"storage": "int4"}),
    Case("cce", {"storage": "int4", "group": "row"}),
    Case("robe", {}, model="dcn"),
    Case("full", {}, "contiguous", "bfloat16", model="dcn", dense=0),
    Case("hash", {}, "mlperf", model="deepfm"),
    Case("robe", {"storage": "int8"}, "raw", "bfloat16", model="deepfm", dense=0),
    Case("hot", {}, model="mlp"),
    Case("full", {}, "contiguous", "bfloat16", model="mlp", dense=0),
    Case("hash", {}, model="wide_deep"),
    Case("full", {}, "contiguous", "bfloat16", model="wide_deep", dense=0, lists=1),
    Case("robe", {}, model="din", lists=1),
    Case("full", {"storage": "int8"}, "contiguous", "bfloat16", model="din", dense=0, lists=2),
    Case("robe", {"block_len": 4, "sign": True}, lists=2),
    Case("robe", {"hash": "paper", "storage": "int4"}, lists=1),
    Case("robe", {"hash": "authors"}, lists=1, model="dcn"),
    Case("hash", {"width": 2, "storage": "int8"}, "mlperf", lists=3),
    Case("full", {"storage": "bfloat16"}, "contiguous", lists=1, dense=0),
    Case("qr", {}, "contiguous", lists=2),
    Case("tt", {}, lists=1, model="deepfm"),
    Case("cce", {"contiguous_ids": True}, "contiguous", lists=1),
    Case("hot", {}, "contiguous", lists=2),
]


def program(case: Case) -> bytes:
    """The content of `model.pt2` as `export` writes it."""
    method = METHODS[case.method]
    options = method.options(**case.options).fitted(DIM)
    budget = max(method.smallest_budget(CARDINALITIES, DIM, options), 0 if case.method == "full" else 12_000)
    embedding = build_ready(case.method, CARDINALITIES, DIM, budget, 1, **case.options)
    for module in embedding.modules():
        if isinstance(module, Table) and module.storage in PACKED:
            module.weight.data.sub_(module.center).mul_(20).add_(module.center)  # some next to another level
    declared = MODELS[case.model].options.model_fields
    widths = {name: [8] for name in ("bottom_mlp", "top_mlp") if name in declared}
    columns = {"target": 0, "history": len(CARDINALITIES) - case.lists} if case.model == "din" else {}
    model = build_model(case.model, embedding, case.dense, {**widths, **columns}, case.precision)
    known = np.arange(7, 56, dtype=np.uint32)
    vocabulary = Vocabulary([known] * len(CARDINALITIES)) if case.tokens == "contiguous" else None
    buffer = io.BytesIO()
    torch.export.save(to_program(model, case.tokens, vocabulary, lists=case.lists), buffer)
    return buffer.getvalue()
