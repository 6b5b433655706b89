"""The embedding methods under contract: each with the options that change how it stores or finds numbers."""

import hashlib

import torch

from counted import ready
from sizewise.embedding import build, smallest_budget
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.storage.table import Table
from sizewise.embedding.width import STRENGTH

CARDINALITIES = [1, 7, 300, 2]
DIM = 16
CASES = {
    "full": ("full", {}),
    "full int8": ("full", {"storage": "int8"}),
    "hash": ("hash", {}),
    "hash shared": ("hash", {"feature_term": False}),
    "hash bfloat16": ("hash", {"storage": "bfloat16"}),
    "hash narrow": ("hash", {"width": 2}),
    "robe": ("robe", {}),
    "robe row": ("robe", {"block_len": 16, "align": 16}),
    "robe elements": ("robe", {"block_len": 1, "align": 1}),
    "robe unaligned": ("robe", {"block_len": 8, "align": 1}),
    "robe ragged": ("robe", {"block_len": 6, "align": 2}),
    "robe wrap": ("robe", {"block_len": 8, "align": 4, "wrap": True}),
    "robe sign": ("robe", {"sign": True}),
    "robe shared": ("robe", {"feature_term": False}),
    "robe authors": ("robe", {"hash": "authors", "align": 1}),
    "robe paper": ("robe", {"hash": "paper", "align": 1, "sign": True, "wrap": True}),
    "robe bfloat16": ("robe", {"storage": "bfloat16"}),
    "robe int8": ("robe", {"storage": "int8"}),
    "robe narrow": ("robe", {"width": 4, "storage": "bfloat16"}),
    "robe narrow paper": (
        "robe",
        {"width": 4, "block_len": 3, "hash": "paper", "align": 1, "sign": True, "wrap": True},
    ),
    "qr product": ("qr", {}),
    "qr sum": ("qr", {"combine": "sum"}),
    "qr contiguous": ("qr", {"contiguous_ids": True}),
    "tt": ("tt", {}),
    "tt contiguous": ("tt", {"contiguous_ids": True, "max_rank": 4}),
    "cce": ("cce", {"cluster_every": 3}),
    "cce paper's bytes": ("cce", {"cluster_every": 3, "count_pointers": False}),
    "cce contiguous": ("cce", {"cluster_every": 3, "contiguous_ids": True}),
    "hot": ("hot", {}),
    "hot number": ("hot", {"width": 1, "fingerprint_bits": 5}),
    "hot dim": ("hot", {"width": DIM, "by": "chi2"}),
    "hot int8": ("hot", {"width": 8, "storage": "int8"}),
    "hot pool": ("hot", {"hashed_share": 0.3, "storage": "bfloat16"}),
    "hot int4": ("hot", {"storage": "int4", "hashed_share": 0.2}),
    "hot int2": ("hot", {"storage": "int2", "width": 8, "group": "row"}),
    "full int4": ("full", {"storage": "int4"}),
    "full int2 row": ("full", {"storage": "int2", "group": "row"}),
    "hash int4": ("hash", {"storage": "int4", "group": 24}),
    "hash int2": ("hash", {"storage": "int2"}),
    "robe int4": ("robe", {"storage": "int4"}),
    "robe int4 elements": ("robe", {"storage": "int4", "block_len": 1, "align": 1, "group": 10}),
    "robe int4 wrap": ("robe", {"storage": "int4", "block_len": 8, "align": 4, "wrap": True, "sign": True}),
    "robe int2": ("robe", {"storage": "int2", "block_len": 6, "align": 2, "sign": True, "group": 12}),
    "qr bfloat16": ("qr", {"storage": "bfloat16"}),
    "qr int8": ("qr", {"storage": "int8", "combine": "sum"}),
    "qr int4": ("qr", {"storage": "int4"}),
    "qr int2": ("qr", {"storage": "int2", "combine": "sum", "group": "row"}),
    "tt int8": ("tt", {"storage": "int8"}),
    "tt int4": ("tt", {"storage": "int4"}),
    "cce int8": ("cce", {"storage": "int8", "cluster_every": 3}),
    "cce int4": ("cce", {"storage": "int4", "cluster_every": 3, "group": "row"}),
}
LOW = ("bfloat16", "int8", "int4", "int2")
CONTIGUOUS = [case for case, (method, o) in CASES.items() if method == "full" or o.get("contiguous_ids")]
HASHED = [case for case in CASES if case not in CONTIGUOUS]


def make(case, budget=None, seed=1, **kwargs):
    method, options = CASES[case]
    budget = budget or max(30_000, smallest_budget(method, CARDINALITIES, DIM, **options))
    embedding = build(method, CARDINALITIES, DIM, budget, seed, **{**options, **kwargs})
    with torch.device("cpu"):
        return ready(embedding, *(ids_for(case, rows) for rows in (64, 32, 3)))


def enlarge(embedding):
    """Move packed numbers so far from zero that some are nearest to another level."""
    with torch.no_grad():
        for module in embedding.modules():
            if isinstance(module, Table) and module.storage in PACKED:
                module.weight.sub_(module.center).mul_(20).add_(module.center)
    return embedding


def ids_for(case, rows=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    limits = CARDINALITIES if case in CONTIGUOUS else [2**32] * len(CARDINALITIES)
    return torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in limits], dim=1)


def train(embedding, ids, steps, optimizer=torch.optim.Adagrad, rate=0.1):
    """Fit a random target vector for every value of every feature; the losses before each step."""
    generator = torch.Generator().manual_seed(9)
    values = [column.unique(return_inverse=True)[1] for column in ids.T]
    tiles = getattr(embedding, "tiles", None)
    width = tiles.width if tiles else DIM  # narrow vectors can only be fitted to such
    rate = rate if width == DIM else rate / STRENGTH
    target = torch.stack([torch.randn(len(ids), width, generator=generator)[v] for v in values], dim=1)
    target = target.repeat(1, 1, DIM // width)
    optimizer = optimizer(embedding.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (embedding(ids) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def trained_digests(cases):
    """For each case the digest of what it returns after five steps of training."""
    out = {}
    for case in cases:
        embedding, ids = make(case), ids_for(case)
        train(embedding, ids, steps=5)
        out[case] = digest(embedding(ids))
    return out
