"""One's own model: any `torch.nn.Module`, named by where it is imported from, `model: {kind: "mypackage.nets:MyNet"}`.

    class MyNet(nn.Module):
        def __init__(self, embedding, dense_features, hidden=64): ...
        def forward(self, dense, ids): ...       # (batch, dense_features), int64 (batch, features) -> (batch,)

It is called as `MyNet(embedding, dense_features, **options)`, or, where it has a parameter `options`, with all of them
in one dictionary. What Sizewise has to know of a model is found out by building it and by running it once, rather than
asked of whoever wrote it. Nothing is imported to read a study: only where a model is built.
"""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from sizewise.embedding import Bags, Embedding, build
from sizewise.embedding.ids.hashing import derived_seed
from sizewise.embedding.storage.table import StateDict
from sizewise.models.base import Floats, Model, ModelOptions, Precision
from sizewise.models.foreign import foreign
from sizewise_core.errors import InputError, shown

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
FLOAT_BYTES = 4
IMPORT_SEED = 0  # of what a module draws when it is imported: once a process, and the same in all
Factory = Callable[..., nn.Module]


def is_own(kind: object) -> bool:
    """Whether a model is named by where it is imported from, rather than registered."""
    return isinstance(kind, str) and ":" in kind


def path_fault(kind: str) -> str:
    """What is wrong with the name of one's own model; nothing where it can be one.

    Args:
        kind: as the study file has it, with a colon or dots in it.
    """
    if PATH.fullmatch(kind) and not kind.partition(":")[0].endswith(".py"):
        return ""
    before, colon, name = kind.rpartition(":") if ":" in kind else kind.rpartition(".")
    file = re.split(r"[/\\]", before)[-1].removesuffix(".py")
    if colon == "." and name == "py":
        file, name = re.split(r"[/\\]", before)[-1], "MyNet"
    like = f"{file}:{name}" if PATH.fullmatch(f"{file}:{name}") else "mypackage.nets:MyNet"
    return f"{shown(kind)} is no package.module:Class: write it like {like}, with the module beside the study file"


def own_model(kind: str) -> type["OwnModel"]:
    """The class of such a model.

    Raises:
        InputError: it cannot be imported.
    """
    return type(kind, (OwnModel,), {"path": kind, "factory": staticmethod(_imported(kind))})


class AnyOptions(ModelOptions):
    """Options of one's own model: it takes them or does not, which the dry step finds out."""

    model_config = ConfigDict(frozen=True, extra="allow")


class OwnModel(Model):
    """A module of somebody's own, with what Sizewise asks of a model around it."""

    options = AnyOptions
    path: ClassVar[str]
    factory: ClassVar[Factory]

    def __init__(self, embedding: Embedding, dense_features: int, module: nn.Module) -> None:
        super().__init__(embedding, dense_features)
        self.module = module
        if any(part is embedding for part in module.modules()):
            # Registered once, by the module: a state has every tensor once.
            del self.embedding
            object.__setattr__(self, "embedding", embedding)
        first: dict[int, str] = {}
        self.aliases = {
            name: first[id(parameter)]
            for name, parameter in (
                *self.named_parameters(remove_duplicate=False),
                *self.named_buffers(remove_duplicate=False),
            )
            if first.setdefault(id(parameter), name) != name
        }
        """Names under which a tensor is there again, as tied weights are, and its first name."""
        self.register_state_dict_post_hook(_without_aliases)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_aliases)  # type: ignore[no-untyped-call]

    @classmethod
    def create(
        cls, embedding: Embedding, dense_features: int, options: ModelOptions, precision: Precision
    ) -> Self:
        """The module, whose weights PyTorch draws from the embedding's seed.

        Args: as for `Model.create`.

        Raises:
            InputError: it takes other arguments, raises, or gives no module.
        """
        given = options.model_dump()
        call = _bound(cls.path, cls.factory, embedding, dense_features, given)
        on_meta = torch.empty(0).device.type == "meta"
        try:
            module = _built(cls.path, call, embedding.seed)
        except Exception as error:
            if not on_meta:
                raise own_fault(cls.path, f"raises when it is built ({short(error)}): fix it") from error
            try:  # it needs numbers, which tensors on the meta device do not have
                with torch.device("cpu"):
                    module = _built(cls.path, call, embedding.seed)
            except Exception as again:
                raise own_fault(cls.path, f"raises when it is built ({short(again)}): fix it") from again
        if not isinstance(module, nn.Module):
            raise own_fault(cls.path, f"gives a {type(module).__name__}, not a torch.nn.Module")
        return cls(embedding, dense_features, module)

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Memory that training takes, measured on a few rows.

        Args: as for `Model.floats`.
        """
        return _measured(cls.path, features, dense_features, dim, json.dumps(options.model_dump()))

    def forward(self, dense: Tensor, ids: Tensor, bags: Bags | None = None) -> Tensor:
        """Logits of the module, in float32.

        Args:
            dense: float32 (batch, dense_features), already transformed.
            ids: int64 or uint32 (batch, features); the module gets int64, which PyTorch can compute with.
            bags: the lists of values of all other features; where there are some, the module's third argument.

        Returns:
            (batch,) log-odds of a click.
        """
        ids = ids.to(torch.int64)
        logits: Tensor = self.module(dense, ids) if bags is None else self.module(dense, ids, bags)
        return logits if logits.dtype == torch.float32 else logits.float()

    def own_tables(self) -> Iterator[tuple[str, nn.Embedding | nn.EmbeddingBag | Embedding]]:
        """Tables of the module's own, by name: embeddings that no memory budget counts."""
        inside = set(self.embedding.modules())
        for name, part in self.module.named_modules():
            if isinstance(part, nn.Embedding | nn.EmbeddingBag | Embedding) and part not in inside:
                yield name, part

    @property
    def embedding_bytes(self) -> int:
        """Bytes of the embedding, and of tables of the module's own."""
        tables = [table for _, table in self.own_tables()]
        weights = {id(t.weight): t.weight for t in tables if not isinstance(t, Embedding)}
        own = sum(weight.numel() * weight.element_size() for weight in weights.values())
        small = sum(table.embedding_bytes for table in tables if isinstance(table, Embedding))
        return self.embedding.embedding_bytes + own + small


def short(error: BaseException, most: int = 100) -> str:
    """An error in one line of so many characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def own_fault(kind: str, what: str) -> InputError:
    """An error that says what is wrong with one's own model."""
    return InputError(f"model.kind: {shown(kind)} {what}")


def _imported(kind: str) -> Factory:
    if fault := path_fault(kind):
        raise InputError(f"model.kind: {fault}")
    module, _, name = kind.partition(":")
    try:
        with foreign(f"model {kind}: its module has been imported", IMPORT_SEED):
            found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever a stranger's module does when it is imported
        fix = "put the module beside the study file, install its package, or fix it"
        raise own_fault(kind, f"cannot be imported ({short(error)}): {fix}") from error
    if found is None:
        file = getattr(sys.modules[module], "__file__", None)
        which = shown(file, 90) if file else "a module of Python's"
        renamed = "" if module.partition(".")[0] not in sys.stdlib_module_names else ": rename your module"
        raise own_fault(kind, f"cannot be imported: {module} has no {name} (it is {which}){renamed}")
    if not callable(found) or (isinstance(found, type) and not issubclass(found, nn.Module)):
        raise own_fault(kind, "is no subclass of torch.nn.Module")
    factory: Factory = found
    return factory


def _bound(
    kind: str, factory: Factory, embedding: Embedding, dense_features: int, options: Mapping[str, Any]
) -> Callable[[], nn.Module]:
    """The call that builds the module. Raises InputError where it takes other arguments."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # compiled code that says nothing of itself
        return lambda: factory(embedding, dense_features, **options)
    parameter = signature.parameters.get("options")
    as_one = parameter is not None and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    given: Mapping[str, Any] = {"options": dict(options)} if as_one and "options" not in options else options
    try:
        signature.bind(embedding, dense_features, **given)
    except TypeError as error:
        takes = shown(f"{kind.rpartition(':')[2]}{signature}", 90)[1:-1]
        raise own_fault(kind, f"takes other arguments ({error}): it is {takes}") from None
    return lambda: factory(embedding, dense_features, **given)


def _built(kind: str, call: Callable[[], nn.Module], seed: int) -> nn.Module:
    with foreign(f"model {kind} has been built", derived_seed(seed, 0)):
        return call()


@lru_cache(maxsize=64)
def _measured(kind: str, features: int, dense_features: int, dim: int, options: str) -> Floats:
    """Parameters, and what the backward pass needs of a row: what more rows keep, over their number."""
    with torch.device("cpu"), foreign(f"model {kind} has been measured"):
        embedding = build("hash", [2] * features, dim, 4 * dim * 2 * features, 1)
        embedding.fused = False
        given = AnyOptions(**json.loads(options))
        model = own_model(kind).create(embedding, dense_features, given, "float32")
        lists = _lists_that_it_takes(model)
        few, many = (_kept(model, _rows(model, rows, lists)) for rows in (8, 72))
        longer = _kept(model, _rows(model, 72, lists, values=3)) - many if lists else 0
    inside = {id(parameter) for parameter in embedding.parameters()}
    around = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in inside)
    looked_up = features * dim  # which joining them does not keep
    values = 72 * 2 * max(lists, 1)
    return Floats(
        around,
        max(0, many - few) // (64 * FLOAT_BYTES) + looked_up,
        # Beside what any list's values take: their vectors twice, and two indices of 8 bytes for each number.
        max(0, longer // (values * FLOAT_BYTES) - 6 * dim),
    )


def _lists_that_it_takes(model: OwnModel) -> int:
    """How many of the last features may be lists: 0 where single values do, else the fewest."""
    for lists in range(model.embedding.features):
        try:
            model(*_rows(model, 2, lists))
        except Exception:  # the dry step has run it, with the data's own lists
            continue
        return lists
    return model.embedding.features


def _rows(model: OwnModel, rows: int, lists: int, values: int = 1) -> tuple[Any, ...]:
    """So many rows, whose lists have so many values each."""
    dense = torch.rand(rows, model.dense_features)
    ids = torch.zeros(rows, model.embedding.features - lists).long()
    if not lists:
        return dense, ids
    ends = torch.arange(rows * lists + 1) * values
    return dense, ids, Bags(torch.zeros(rows * lists * values).long(), ends)


def _kept(model: OwnModel, rows: tuple[Any, ...]) -> int:
    """Bytes that a forward pass keeps beside parameters."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(*rows)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = sum(size for pointer, size in kept.items() if pointer not in weights)
    del logits  # alive until here: memory of what is freed would be counted once for many tensors
    return found


def _without_aliases(model: nn.Module, state: StateDict, prefix: str, metadata: object) -> None:
    assert isinstance(model, OwnModel)
    for name in model.aliases:
        state.pop(prefix + name, None)


def _with_aliases(model: nn.Module, state: StateDict, prefix: str, *others: object) -> None:
    assert isinstance(model, OwnModel)
    for name, first in model.aliases.items():
        if prefix + first in state:
            state[prefix + name] = state[prefix + first]
