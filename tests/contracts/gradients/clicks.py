"""Somebody's own PyTorch model with an embedding in it, and a transcription of its training in float64.

The transcription has tables as plain tensors, looked up by index, and the optimizers' formulas written out.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from counted import ready
from sizewise.embedding import Embedding, build, smallest_budget
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.storage.table import Table
from sizewise.embedding.width import STRENGTH

CARDINALITIES = [5, 30, 2]
DIM = 8
ROWS = 16
STEPS = 4
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "full bfloat16": ("full", {"storage": "bfloat16"}),
    "full int8": ("full", {"storage": "int8"}),
    "hash": ("hash", {}),
    "hash bfloat16": ("hash", {"storage": "bfloat16"}),
    "hash int8": ("hash", {"storage": "int8"}),
    "robe": ("robe", {}),
    "robe unaligned": ("robe", {"block_len": 4, "align": 1}),
    "robe ragged": ("robe", {"block_len": 6, "align": 2}),
    "robe sign": ("robe", {"block_len": 4, "sign": True}),
    "robe wrap": ("robe", {"wrap": True}),
    "robe authors": ("robe", {"hash": "authors"}),
    "robe paper": ("robe", {"hash": "paper", "align": 1, "sign": True, "wrap": True}),
    "robe bfloat16": ("robe", {"storage": "bfloat16"}),
    "robe int8": ("robe", {"storage": "int8"}),
    "full int4": ("full", {"storage": "int4", "group": "row"}),
    "hash int2": ("hash", {"storage": "int2"}),
    "robe int4": ("robe", {"storage": "int4", "group": 20}),
    "qr int4": ("qr", {"storage": "int4"}),
    "qr product": ("qr", {}),
    "qr sum": ("qr", {"combine": "sum"}),
    "qr contiguous": ("qr", {"contiguous_ids": True}),
    "tt": ("tt", {"max_rank": 2}),
    "tt contiguous": ("tt", {"contiguous_ids": True, "max_rank": 2}),
    "cce": ("cce", {"clusterings": 0}),
    "cce contiguous": ("cce", {"clusterings": 0, "contiguous_ids": True}),
    "hash narrow": ("hash", {"width": 2}),
    "robe narrow": ("robe", {"width": 4}),
    "hot": ("hot", {}),
    "hot dim": ("hot", {"width": DIM}),
    "hot pool": ("hot", {"hashed_share": 0.5, "width": 1}),
    "hot narrow bfloat16": ("hot", {"width": 4, "storage": "bfloat16"}),
}
RATES = {"sgd": 0.1, "adagrad": 0.05, "adam": 0.01}


class Clicks(nn.Module):
    """Somebody's own model."""

    def __init__(self, case: str) -> None:
        super().__init__()
        method, options = CASES[case]
        budget = smallest_budget(method, CARDINALITIES, DIM, **options)
        budget = budget if method == "full" else max(4_000, budget)
        self.embedding: Embedding = build(method, CARDINALITIES, DIM, budget, 1, **options)
        ready(self.embedding, *(ids[: ROWS // 2] for ids, _ in batches(case)))
        self.head = nn.Linear(len(CARDINALITIES) * DIM, 1)
        with torch.no_grad():
            for module in self.embedding.modules():
                if (
                    isinstance(module, Table) and module.storage in PACKED
                ):  # at first all are nearest to one level
                    module.weight.sub_(module.center).mul_(20).add_(module.center)
            generator = torch.Generator().manual_seed(2)
            for parameter in self.head.parameters():
                parameter.normal_(0, 0.5, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(ids).flatten(1)).squeeze(1)
        return out


def batches(case: str, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    method, options = CASES[case]
    contiguous = method == "full" or options.get("contiguous_ids", False)
    limits = CARDINALITIES if contiguous else [2**32] * len(CARDINALITIES)
    out = []
    for _ in range(steps):
        ids = torch.stack([torch.randint(0, n, (ROWS,), generator=generator) for n in limits], dim=1)
        ids[1] = ids[0]  # some come twice in a batch
        out.append((ids, torch.randn(ROWS, generator=generator)))
    return out


class Transcription:
    """The same model in float64, without autograd functions, kernels or optimizers of ours or of PyTorch."""

    def __init__(self, model: Clicks) -> None:
        model.embedding.state_dict()  # rounds values that are stored in fewer bits
        self.embedding = copy.deepcopy(model.embedding).double()
        self.values = {name: p.detach().double().clone() for name, p in model.named_parameters()}
        self.state: dict[str, list[Tensor]] = {
            name: [torch.zeros_like(p) for _ in range(2)] for name, p in self.values.items()
        }
        self.steps = 0
        self.probe = None
        if len(weights_of(self.embedding)) == 1:
            # A vector is made of numbers of the one table, each perhaps times -1: number them to find where.
            self.probe = copy.deepcopy(self.embedding)
            with torch.no_grad():
                (table,) = weights_of(self.probe)
                table.copy_(torch.arange(1.0, table.numel() + 1, dtype=torch.float64).view(table.shape))
                self.probe.fused = False

    def vectors(self, values: dict[str, Tensor], ids: Tensor) -> Tensor:
        names = [name for name in values if name.startswith("embedding.") and name.endswith(".weight")]
        tables = [self.stored(values, name.removesuffix(".weight")) for name in names]
        if self.probe is not None:
            with torch.no_grad():
                (weights,) = weights_of(self.probe)
                numbers = probe(self.probe, weights, ids)
            tiles: Any = getattr(self.embedding, "tiles", None)
            strength = STRENGTH if tiles is not None and tiles.repeats else 1.0
            numbers = numbers / strength
            return tables[0].flatten()[numbers.abs().long() - 1] * numbers.sign() * strength
        embedding: Any = self.embedding
        keys = embedding.keys(ids)
        if type(embedding).__name__ == "QuotientRemainder":
            left, right = tables[0][keys % len(tables[0])], tables[1][keys // len(tables[0])]
            return left * right if embedding.combine == "product" else left + right
        if type(embedding).__name__ == "TensorTrain":
            (_, n2, n3), (d1, d2, d3), r = (
                embedding.shape.modes,
                embedding.shape.factors,
                embedding.shape.rank,
            )
            first = tables[0][keys // (n2 * n3)].view(*ids.shape, d1, r)
            middle = tables[1][keys // n3 % n2].view(*ids.shape, r, d2, r)
            last = tables[2][keys % n3].view(*ids.shape, r, d3)
            return torch.einsum("nfar,nfrbs,nfsc->nfabc", first, middle, last).reshape(*ids.shape, DIM)
        rows = embedding.pointers[keys].long() + embedding.starts
        helpers = embedding._slots(embedding.helper_hash, keys) + embedding.starts
        return (tables[0][rows] + tables[1][helpers]).flatten(-2)

    def stored(self, values: dict[str, Tensor], table: str) -> Tensor:
        """The values that a lookup in a table gives: of packed ones the levels that they are nearest to."""
        weight, logarithms = values[f"{table}.weight"], values.get(f"{table}.log_steps")
        if logarithms is None:
            return weight
        of: Any = self.embedding.get_submodule(table.removeprefix("embedding."))
        bits, center = (4 if of.storage == "int4" else 2), of.center
        lowest, highest, offset = {4: (-8, 7, 0.0), 2: (-2, 1, 0.5)}[bits]
        numbers = weight.numel() // len(logarithms)
        # Values and slopes apart: the stored step times e to a difference of zero, whose slope is the logarithm's.
        difference = (logarithms - logarithms.detach()) / (numbers * max(highest, 1)) ** 0.5
        steps = (logarithms.detach().exp().bfloat16().double() * difference.exp()).unsqueeze(1)
        x = ((weight.view(-1, numbers) - center) / steps - offset).clamp(lowest, highest)
        levels = x + (x.round() - x).detach() + offset
        return (levels * steps + center).view(weight.shape)

    def gradients(self, ids: Tensor, target: Tensor) -> dict[str, Tensor]:
        values = {name: value.clone().requires_grad_() for name, value in self.values.items()}
        hidden = self.vectors(values, ids).flatten(1)
        predicted = hidden @ values["head.weight"].T.squeeze(1) + values["head.bias"]
        ((predicted - target.double()) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        return {name: value.grad for name, value in values.items() if value.grad is not None}

    def step(self, kind: str, gradients: dict[str, Tensor], count: int) -> None:
        rate = RATES[kind]
        for name, g in gradients.items():
            value, (first, second) = self.values[name], self.state[name]
            if kind == "sgd":
                value -= rate * g
            elif kind == "adagrad":
                second += g**2
                value -= rate * g / (second.sqrt() + 1e-10)
            else:
                first += 0.1 * (g - first)
                second += 0.001 * (g**2 - second)
                value -= rate * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)

    def compare(self, model: nn.Module, case: str, kind: str) -> None:
        bits = {"bfloat16": 2**-8, "int8": 2**-6}.get(case.split()[-1], 0.0)
        for name, parameter in model.named_parameters():
            expected = self.values[name.removeprefix("module.").replace("_orig_mod.", "")]
            # Each step's rounding may move a stored number to either neighbour; what it predicts changes with it.
            spacing = bits * float(expected.abs().max()) * (STEPS + 1)
            rounding = (
                0.03 * RATES[kind] if kind == "adam" else 2e-6
            )  # Adam divides small gradients by their size
            torch.testing.assert_close(
                parameter.detach().double(),
                expected,
                rtol=1e-4 if not bits else 0.1,
                atol=rounding + spacing,
                msg=lambda text, n=name: f"{n}: {text}",
            )


def probe(embedding: Embedding, weights: Tensor, ids: Tensor) -> Tensor:
    """Vectors of numbered values, as they are, whatever the storage."""
    table: Any = embedding.pooled() or (getattr(embedding, "pool", None),)
    storage, table[0].storage = table[0].storage, "float32"
    try:
        return embedding(ids)
    finally:
        table[0].storage = storage


def weights_of(embedding: Embedding) -> list[Tensor]:
    return [parameter for name, parameter in embedding.named_parameters() if name.endswith("weight")]


def low_precision(case: str) -> bool:
    return CASES[case][1].get("storage", "float32") != "float32"


def loss_of(model: nn.Module, ids: Tensor, target: Tensor) -> Tensor:
    return (model(ids) - target).square().mean()


def halves(ids: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(ids.chunk(2), target.chunk(2), strict=True)
