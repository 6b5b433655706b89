"""Small embeddings in a model that is there already: its tables are swapped in place.

    print(compress(model, {"method": "robe", "memory_budget": "100x"}))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)     # afterwards: the parameters are others

`nn.Embedding` and `nn.EmbeddingBag` are swapped wherever they are, so also within TorchRec's `EmbeddingBagCollection`.
Everything around them stays: names of modules, arguments, shapes. What the tables had learnt is lost, so the model has
to be trained (again); tables may be left out by name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, NoReturn, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn.functional import embedding_bag
from torch.nn.utils.parametrize import is_parametrized

from sizewise.embedding.base import Embedding
from sizewise_core.errors import InputError, first_problem, shown
from sizewise_core.units import format_bytes, parse_bytes

TIMES = re.compile(r"\s*([0-9]+\.?[0-9]*)\s*x\s*")
ORDINARY = (nn.Embedding.forward, nn.EmbeddingBag.forward)
OF_THE_TABLES = ("cardinalities", "dim", "pooling", "multi_hot")
"""What `build` takes that tables say themselves, or that is no concern of them."""
Swappable = nn.Embedding | nn.EmbeddingBag


@dataclass(frozen=True)
class Swapped:
    """A table that was swapped.

    Attributes:
        name: of its module.
        kind: its class.
        rows, dim: what it had.
        before: bytes that it had.
        pool: which of `Compression.pools` has its vectors now.
    """

    name: str
    kind: str
    rows: int
    dim: int
    before: int
    pool: int


@dataclass(frozen=True)
class Compression:
    """What `compress` did; as text, a table.

    Attributes:
        tables: those that were swapped.
        pools: bytes of the embeddings that took their place; several tables may share one.
        before: bytes of all tables, each tied weight once.
        notes: what there is to know about it.
    """

    tables: tuple[Swapped, ...]
    pools: tuple[int, ...]
    before: int
    notes: tuple[str, ...] = ()

    @property
    def after(self) -> int:
        """Bytes of what took their place."""
        return sum(self.pools)

    def __str__(self) -> str:
        lines = [("table", "class", "rows", "dim", "before", "after")]
        for number, pool in enumerate(self.pools):
            for place, table in enumerate(one for one in self.tables if one.pool == number):
                after = format_bytes(pool) if not place else "shares it"
                sizes = f"{table.rows:,}", str(table.dim), format_bytes(table.before)
                lines.append((table.name, table.kind, *sizes, after))
        ratio = f"{self.before / self.after:.1f}x"
        lines.append(("all", ratio, "", "", format_bytes(self.before), format_bytes(self.after)))
        wide = [max(len(line[column]) for line in lines) for column in range(6)]
        text = ["  ".join(cell.ljust(wide[n]) for n, cell in enumerate(line)).rstrip() for line in lines]
        return "\n".join([*text, *self.notes])


def compress(model: nn.Module, settings: Mapping[str, Any]) -> Compression:
    """Swap a model's tables for small ones, in place.

    Args:
        model: any module; it must not be a table itself. Optimizers are to be made afterwards.
        settings: `method` (robe), and its options; `memory_budget` of all together, in bytes (1_000_000, "1MB") or as
            compression ("100x"); `share` (True): tables of equal width share one embedding, else each has its own;
            `only`: names of modules, which may have wildcards ("user_*"), else all; `seed` (1).

    Returns:
        What was swapped, with bytes before and after.

    Raises:
        InputError: a table cannot be swapped, there is none, or a setting is wrong. Nothing was swapped then.
    """
    from sizewise.embedding import METHODS, build  # which imports this module

    asked = _Settings.read(settings)
    method = asked.method
    if method in METHODS and METHODS[method].needs_counts:
        raise InputError(f"method {method} needs to know how often values occur: use another, such as robe")
    tables = dict(_tables(model, [asked.only] if isinstance(asked.only, str) else asked.only))
    groups = _groups(tables, asked.share)
    total = sum(_bytes(group) for group in groups)
    one_size = method in METHODS and METHODS[method].has_one_size
    wanted = total if one_size else _budget(asked.memory_budget, total)
    made, pools = dict[str, nn.Module](), list[int]()
    for number, group in enumerate(groups):
        part = wanted * _bytes(group) // total
        rows = [weights[0].num_embeddings for weights in group]
        dim, options = group[0][0].embedding_dim, asked.model_extra or {}
        pool = build(method, rows, dim, part, asked.seed + number, **options)
        pool = pool.to(group[0][0].weight.device)
        pools.append(pool.embedding_bytes)
        for feature, weights in enumerate(group):
            for table in weights:
                made |= {name: _small(table, pool, feature) for name, one in tables.items() if one is table}
    of_pool = {id(table): number for number, group in enumerate(groups) for same in group for table in same}
    swapped = [
        Swapped(name, type(one).__name__, one.num_embeddings, one.embedding_dim, _size(one), of_pool[id(one)])
        for name, one in tables.items()
    ]
    notes = [
        f"{name}: its gradients are dense now, which torch.optim.SparseAdam does not take"
        for name, one in tables.items()
        if one.sparse
    ]
    _put(model, tables, made)
    return Compression(tuple(swapped), tuple(pools), total, tuple(notes))


class _Settings(BaseModel):
    """Settings of `compress`; what else is given is an option of the method."""

    model_config = ConfigDict(extra="allow", strict=True)

    method: str = "robe"
    memory_budget: Any = None
    share: bool = True
    only: str | list[str] = ["*"]
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 1

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """Checked ones. Raises InputError for others."""
        if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
            raise InputError(
                'compress: settings are a dictionary, such as {"method": "robe", "memory_budget": "100x"}'
            )
        if wrong := [name for name in OF_THE_TABLES if name in settings]:
            raise InputError(f"compress: {wrong[0]} is no setting, for the tables have it: leave it out")
        try:
            return cls(**settings)
        except ValidationError as error:
            raise InputError(f"compress: {first_problem(error)}") from None


class SmallEmbedding(nn.Module):
    """In place of an `nn.Embedding`: one feature of an embedding that others may share.

    Args:
        table: what it takes the place of.
        pool: has its vectors.
        feature: which of the pool's features it is.
    """

    # For code that asks a table.
    sparse, max_norm, scale_grad_by_freq = False, None, False

    like: Tensor

    def __init__(self, table: Swappable, pool: Embedding, feature: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        self.padding_idx = table.padding_idx
        self.pool, self.feature = pool, feature
        # Of the type that vectors are to have, which `model.bfloat16()` and the like change as they do a weight's.
        self.register_buffer("like", table.weight.new_empty(0), persistent=False)

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            raise AttributeError(
                "a compressed embedding has no weight of rows: look vectors up by calling it with ids"
            )
        return super().__getattr__(name)

    def vectors(self, ids: Tensor) -> Tensor:
        """Vectors of ids, (n,) -> (n, dim). Raises InputError for ids that the table did not have."""
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"ids have dtype {ids.dtype}, expected int64 or int32: convert with ids.long()")
        ids = ids.to(torch.int64)
        if ids.device.type == "cpu" and not torch.compiler.is_compiling() and ids.numel():
            low, high = (int(bound) for bound in torch.aminmax(ids))
            if low < 0 or high >= self.num_embeddings:
                raise InputError(
                    f"ids span [{low}, {high}], and this embedding has {self.num_embeddings} rows"
                )
        if self.pool.features == 1:
            found: Tensor = self.pool(ids.unsqueeze(1)).squeeze(1)
        else:
            found = self.pool.lookup_flat(ids, torch.full_like(ids, self.feature))
        return found.to(self.like.dtype)

    def forward(self, input: Tensor) -> Tensor:  # as nn.Embedding calls it
        """(...) ids -> (..., dim); zeros, and no gradient, for the padding."""
        found = self.vectors(input.flatten())
        if self.padding_idx is not None:
            found = found * (input.flatten() != self.padding_idx).unsqueeze(1)
        return found.view(*input.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class SmallEmbeddingBag(SmallEmbedding):
    """In place of an `nn.EmbeddingBag`, with its mode, weights and offsets."""

    def __init__(self, table: Swappable, pool: Embedding, feature: int) -> None:
        super().__init__(table, pool, feature)
        assert isinstance(table, nn.EmbeddingBag)
        self.mode, self.include_last_offset = table.mode, table.include_last_offset

    def forward(
        self,
        input: Tensor,  # as nn.EmbeddingBag calls it
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        """Pooled vectors of bags.

        Args:
            input: (bags, n) ids, or (n,) with offsets.
            offsets: (bags,), where each bag begins; with `include_last_offset` the end, too.
            per_sample_weights: of the shape of the input, for sums.

        Returns:
            (bags, dim).
        """
        ids = input.flatten()
        found, positions = self.vectors(ids), torch.arange(len(ids), device=ids.device)
        padding: int | None = None
        if self.padding_idx is not None or not len(ids):  # a last row for the padding; and no table is empty
            padding = len(ids)
            found = torch.cat([found, found.new_zeros(1, self.embedding_dim)])
        if self.padding_idx is not None:
            positions = positions.masked_fill(ids == self.padding_idx, len(ids))
        # Looked-up vectors are a table of as many rows: PyTorch's own pooling does the rest.
        return embedding_bag(
            positions.view(input.shape),
            found,
            None if offsets is None else offsets.to(torch.int64),
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=padding,
        )


def _small(table: Swappable, pool: Embedding, feature: int) -> SmallEmbedding:
    kind = SmallEmbeddingBag if isinstance(table, nn.EmbeddingBag) else SmallEmbedding
    return kind(table, pool, feature).train(table.training)


def _tables(model: nn.Module, only: Sequence[str]) -> Iterator[tuple[str, Swappable]]:
    """The tables that are to be swapped, by name; InputError where one cannot be."""
    if not isinstance(model, nn.Module):
        raise InputError(f"compress: a model is a torch.nn.Module, not a {type(model).__name__}")
    if isinstance(model, Swappable):
        raise InputError(
            "the model is a table itself: compress the module that holds it, or use sizewise.embedding.build"
        )
    known = [
        (name, part)
        for name, part in model.named_modules(remove_duplicate=False)
        if isinstance(part, Swappable)
    ]
    chosen = {name: part for name, part in known if any(fnmatchcase(name, wanted) for wanted in only)}
    if not chosen:
        there = ", ".join(name for name, _ in known[:5]) or "none"
        raise InputError(
            f"no nn.Embedding or nn.EmbeddingBag of the model is to be swapped; its tables: {shown(there, 120)}"
        )
    # A module that is there under several names is swapped under all of them.
    chosen |= {name: part for name, part in known if part in chosen.values()}
    weights = {id(part.weight) for part in chosen.values()}
    for name, part in model.named_modules():
        if part in chosen.values():
            continue
        for key, parameter in part.named_parameters(recurse=False):
            if id(parameter) in weights:
                tied = next(n for n, one in chosen.items() if one.weight is parameter)
                if isinstance(part, Swappable):
                    _refuse(tied, f"its weight is also that of {name}: name both, or none")
                _refuse(
                    tied,
                    f"its weight is also {name}.{key}, of a {type(part).__name__}, which needs all rows: untie them",
                )
    for name, part in chosen.items():
        _check(name, part)
        yield name, part


def _check(name: str, table: Swappable) -> None:
    """InputError where a small embedding would not do what this table does."""
    if type(table).forward not in ORDINARY or is_parametrized(table):
        _refuse(name, f"it is a {type(table).__name__} that computes something of its own")
    if table._forward_hooks or table._forward_pre_hooks or table._backward_hooks:
        _refuse(name, "it has hooks, which would be lost: register them afterwards")
    if table.max_norm is not None:
        _refuse(
            name,
            "max_norm rescales rows of the table, which small embeddings have none of: use max_norm=None",
        )
    if table.scale_grad_by_freq:
        _refuse(
            name,
            "scale_grad_by_freq scales gradients of rows, which small embeddings have none of: use False",
        )
    if not table.weight.requires_grad:
        _refuse(
            name, "its weights are frozen, and small ones have to be trained: train them, or leave it out"
        )
    if table.weight.device.type == "meta":
        _refuse(name, "it is on the meta device: move it to a device first")


def _refuse(name: str, why: str) -> NoReturn:
    raise InputError(f"{shown(name)} cannot be compressed: {why} (`only` names the tables to swap)")


def _groups(tables: Mapping[str, Swappable], share: bool) -> list[list[list[Swappable]]]:
    """Tables that share an embedding: each group has its features, each feature the tables of one tied weight."""
    features: dict[int, list[Swappable]] = {}
    for table in {id(table): table for table in tables.values()}.values():
        features.setdefault(id(table.weight), []).append(table)
    groups: dict[Any, list[list[Swappable]]] = {}
    for key, same in features.items():
        weight = same[0].weight
        groups.setdefault((weight.shape[1], weight.device) if share else key, []).append(same)
    return list(groups.values())


def _bytes(group: Sequence[Sequence[Swappable]]) -> int:
    """Of a group's tables, each tied weight once."""
    return sum(_size(same[0]) for same in group)


def _size(table: Swappable) -> int:
    return table.weight.numel() * table.weight.element_size()


def _budget(given: Any, total: int) -> int:
    """Bytes of a memory budget as it is written."""
    if given is None:
        raise InputError(
            'memory_budget: give the bytes of all tables together, such as 1_000_000, "1MB" or "100x"'
        )
    found = TIMES.fullmatch(given) if isinstance(given, str) else None
    try:
        budget = int(total / float(found[1])) if found else parse_bytes(given)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"memory_budget: {shown(str(given))} is no number of bytes, such as 1MB, and no 100x"
        ) from None
    if budget <= 0:
        raise InputError(f"memory_budget: must be above 0 bytes, not {budget}")
    return budget


def _put(model: nn.Module, tables: Mapping[str, Swappable], made: Mapping[str, nn.Module]) -> None:
    """Each new module where the table was; a table that was there under two names has one successor."""
    successors: dict[int, nn.Module] = {}
    for name, table in tables.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, successors.setdefault(id(table), made[name]))
