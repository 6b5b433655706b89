"""Tables of a model that is there already, swapped for small ones in place."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from sizewise.embedding import METHODS, compress
from sizewise_core.errors import InputError

SMALL = {"method": "hash", "memory_budget": "10x"}


class Clicks(nn.Module):
    def __init__(self, **bag: Any) -> None:
        super().__init__()
        self.user = nn.Embedding(5_000, 8, padding_idx=0)
        self.item = nn.Embedding(3_000, 8)
        self.tags = nn.EmbeddingBag(2_000, 8, mode="sum", **bag)
        self.city = nn.Embedding(400, 4)
        self.out = nn.Linear(28, 1)

    def forward(self, ids: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        parts = [self.user(ids[:, 0]), self.item(ids[:, 1]), self.tags(tags), self.city(ids[:, 2])]
        return self.out(torch.cat(parts, dim=1)).squeeze(1)


def inputs(rows: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, n, (rows,), generator=random) for n in (5_000, 3_000, 400)]
    return torch.stack(ids, dim=1), torch.randint(0, 2_000, (rows, 3), generator=random)


def test_it_trains_and_is_saved_as_any_module() -> None:
    model = Clicks()
    before = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("out"))
    report = compress(model, SMALL)
    assert report.before == 4 * before
    assert report.after <= report.before / 10
    assert report.after == 4 * sum(p.numel() for n, p in model.named_parameters() if not n.startswith("out"))
    assert [(table.name, table.kind, table.rows) for table in report.tables] == [
        ("user", "Embedding", 5_000),
        ("item", "Embedding", 3_000),
        ("tags", "EmbeddingBag", 2_000),
        ("city", "Embedding", 400),
    ]
    assert len(report.pools) == 2  # three tables of width 8 share one
    assert str(report).splitlines()[-1].split()[:2] == ["all", f"{report.before / report.after:.1f}x"]
    ids, tags = inputs()
    label, twin = (ids[:, 1] % 2).float(), copy.deepcopy(model)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(ids, tags), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0]
    assert not torch.equal(twin(ids, tags), model(ids, tags))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(ids, tags), model(ids, tags))
    other = Clicks()
    compress(other, SMALL)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(ids, tags), model(ids, tags))


@pytest.mark.parametrize("method", [name for name in METHODS.own if name != "hot"])
@pytest.mark.parametrize("share", [True, False])
def test_vectors_are_pooled_as_pytorch_pools_those_of_a_table(method: str, share: bool) -> None:
    """Every method; the swapped modules against PyTorch's own on the vectors that they give, and their gradients."""
    for mode, padding, last, weighted in (
        ("sum", None, False, True), ("sum", 3, True, True), ("mean", 3, False, False), ("max", 3, True, False),
    ):  # fmt: skip
        model = nn.ModuleDict(
            {
                "bag": nn.EmbeddingBag(50, 4, mode=mode, padding_idx=padding, include_last_offset=last),
                "one": nn.Embedding(60, 4, padding_idx=padding),
            }
        )
        compress(model, {"method": method, "memory_budget": 1_500, "share": share})
        ids = torch.tensor([3, 7, 7, 3, 49, 0, 12])
        offsets = torch.tensor([0, 3, 3, 5, 7] if last else [0, 3, 3, 5])
        weights = torch.linspace(0.5, 2, 7) if weighted else None
        table = model["bag"].vectors(torch.arange(50)).detach().requires_grad_()
        expected = nn.functional.embedding_bag(
            ids, table, offsets, mode=mode, padding_idx=padding, include_last_offset=last, per_sample_weights=weights
        )  # fmt: skip
        found = model["bag"](input=ids, offsets=offsets, per_sample_weights=weights)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
        every = model["bag"].vectors(torch.arange(50))
        upstream = torch.linspace(-1, 1, found.numel()).view_as(found)
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad((found * upstream).sum(), parameters, allow_unused=True)
        (of_table,) = torch.autograd.grad((expected * upstream).sum(), table)
        through = torch.autograd.grad((every * of_table).sum(), parameters, allow_unused=True)
        for mine, theirs in zip(gradients, through, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
        vectors = model["one"](ids.view(7, 1))
        assert vectors.shape == (7, 1, 4)
        assert bool((vectors[0] == 0).all()) == (padding == 3)
        assert model["bag"](ids[:6].view(3, 2)).shape == (3, 4)
        empty = torch.tensor([0, 0]) if last else torch.tensor([0])
        assert torch.equal(model["bag"](ids[:0], empty), torch.zeros(1, 4))


class Scaled(nn.Embedding):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(ids)


class Decoder(nn.Module):
    """A table that is a layer's weight, too."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 8)
        self.out = nn.Linear(8, 100)
        self.out.weight = self.words.weight


def tied() -> nn.Module:
    model = nn.ModuleDict({"one": nn.Embedding(100, 8), "other": nn.Embedding(100, 8)})
    model["other"].weight = model["one"].weight
    return model


def hooked() -> nn.Module:
    table = nn.Embedding(100, 8)
    table.register_forward_hook(lambda *_: None)
    return nn.Sequential(table)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (Decoder(), SMALL, r"'words' cannot be compressed: its weight is also out.weight, of a Linear"),
        (
            nn.Sequential(Scaled(100, 8)),
            SMALL,
            r"'0' cannot .*it is a Scaled that computes something of its own",
        ),
        (hooked(), SMALL, "it has hooks"),
        (nn.Sequential(nn.Embedding(100, 8, max_norm=1.0)), SMALL, "use max_norm=None"),
        (nn.Sequential(nn.Embedding(100, 8, scale_grad_by_freq=True)), SMALL, "scale_grad_by_freq"),
        (nn.Sequential(nn.Embedding.from_pretrained(torch.ones(100, 8))), SMALL, "its weights are frozen"),
        (nn.Sequential(nn.Linear(3, 3)), SMALL, "its tables: 'none'"),
        (nn.Embedding(100, 8), SMALL, "the model is a table itself"),
        (nn.Sequential(nn.Embedding(100, 8)), {"method": "hash"}, "memory_budget: give the bytes"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "memory_budget": "much"}, "no number of bytes"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "memory_budget": "1000x"}, "too small"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "method": "hot"}, "use another, such as robe"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "method": "hsh"}, "did you mean hash"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "blocklen": 3}, "blocklen"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "only": "user*"}, "its tables: '0'"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "only": 3}, "compress: only"),
        (
            nn.Sequential(nn.Embedding(100, 8)),
            {**SMALL, "seed": "one"},
            "compress: seed: Input should be a valid int",
        ),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "share": "yes"}, "compress: share"),
        (nn.Sequential(nn.Embedding(100, 8)), {**SMALL, "method": None}, "compress: method"),
        (
            nn.Sequential(nn.Embedding(100, 8)),
            {**SMALL, "dim": 4},
            "dim is no setting, for the tables have it",
        ),
        (nn.Sequential(nn.Embedding(100, 8)), None, "settings are a dictionary"),
        (tied(), {**SMALL, "only": "one"}, "its weight is also that of other: name both, or none"),
    ],
)
def test_what_cannot_be_swapped_is_refused_and_nothing_changes(
    model: nn.Module, settings: Any, message: str
) -> None:
    before = dict(model.named_modules())
    with pytest.raises(InputError, match=message) as caught:
        compress(model, settings)
    assert len(str(caught.value)) < 300
    assert dict(model.named_modules()) == before


def test_tied_tables_stay_tied_and_others_stay_what_they_are() -> None:
    model = nn.ModuleDict({name: nn.Embedding(1_000, 8) for name in ("clicked", "shown", "words")})
    model["shown"].weight = model["clicked"].weight
    model["again"] = model["clicked"]
    report = compress(model, {**SMALL, "only": ["clicked", "shown"]})  # `again` is `clicked`
    assert report.before == 32_000
    assert type(model["words"]) is nn.Embedding
    ids = torch.arange(50)
    assert torch.equal(model["clicked"](ids), model["shown"](ids))
    assert model["again"] is model["clicked"]
    with pytest.raises(AttributeError, match="has no weight of rows"):
        _ = model["clicked"].weight
    with pytest.raises(InputError, match=r"ids span \[0, 1000\], and this embedding has 1000 rows"):
        model["clicked"](torch.tensor([0, 1_000]))


def test_sparse_gradients_become_dense_and_half_stays_half() -> None:
    model = nn.Sequential(nn.Embedding(1_000, 8, sparse=True)).to(torch.bfloat16)
    report = compress(model, SMALL)
    assert "SparseAdam" in str(report)
    found = model(torch.arange(3))
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert all(not p.grad.is_sparse for p in model.parameters() if p.grad is not None)


def test_vectors_have_the_type_that_a_model_is_changed_to() -> None:
    model = nn.Sequential(nn.Embedding(1_000, 8), nn.Linear(8, 1))
    compress(model, SMALL)
    names, ids = list(model.state_dict()), torch.arange(30)
    for dtype in (torch.bfloat16, torch.float64, torch.float32):
        model.to(dtype)
        model(ids).sum().backward()
        assert model[0](ids).dtype == dtype
        assert all(p.grad is not None and bool(p.grad.any()) for p in model[0].parameters())
        model.zero_grad()
    assert list(model.state_dict()) == names
    with pytest.raises(InputError, match=r"ids have dtype torch\.float32"):
        model[0](torch.ones(3))


class Bags(nn.Module):
    """As TorchRec's EmbeddingBagCollection holds its tables and calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding_bags = nn.ModuleDict(
            {f"t{n}": nn.EmbeddingBag(500, 8, mode="sum", include_last_offset=True) for n in range(2)}
        )

    def forward(self, values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        pooled = [
            bag(input=values, offsets=offsets, per_sample_weights=None).float()
            for bag in self.embedding_bags.values()
        ]
        return torch.cat(pooled, dim=1)


def test_a_collection_of_bags_keeps_its_own_forward() -> None:
    model = nn.Sequential()
    model.add_module("ebc", Bags())
    report = compress(model, SMALL)
    assert [table.name for table in report.tables] == ["ebc.embedding_bags.t0", "ebc.embedding_bags.t1"]
    found = model.ebc(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 1, 3]))
    assert found.shape == (3, 16)
    assert torch.equal(found[1], torch.zeros(16))
    assert not torch.equal(found[0, :8], found[0, 8:])  # tables of their own, though they share a pool


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_collections_of_torchrec_are_swapped_within(weighted: bool) -> None:
    """The real ones, where TorchRec is installed; a table that two features read, weights, and lists that are empty."""
    configs = pytest.importorskip("torchrec.modules.embedding_configs")
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    tables = [
        configs.EmbeddingBagConfig(name=name, embedding_dim=8, num_embeddings=rows, feature_names=features)
        for name, rows, features in (("item", 1_000, ["seen", "bought"]), ("user", 500, ["user"]))
    ]
    model = nn.Sequential(EmbeddingBagCollection(tables=tables, is_weighted=weighted))
    assert [table.name for table in compress(model, SMALL).tables] == [
        "0.embedding_bags.item",
        "0.embedding_bags.user",
    ]
    given = KeyedJaggedTensor(
        keys=["seen", "user", "bought"],
        values=torch.tensor([1, 2, 3, 4, 5, 6]),
        lengths=torch.tensor([2, 0, 1, 1, 0, 2]),
        weights=torch.full((6,), 0.5) if weighted else None,
    )
    found = model(given).to_dict()
    bag, times = model[0].embedding_bags["item"], 0.5 if weighted else 1.0
    torch.testing.assert_close(found["seen"][0], bag.vectors(torch.tensor([1, 2])).sum(0) * times)
    torch.testing.assert_close(found["bought"][1], bag.vectors(torch.tensor([5, 6])).sum(0) * times)
    assert not found["seen"][1].any()
