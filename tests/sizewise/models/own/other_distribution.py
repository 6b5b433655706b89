"""A tiny distribution that provides one embedding method and one model, as somebody else would write it."""

from collections.abc import Mapping
from pathlib import Path

MODULE = '''
import torch
from pydantic import Field
from sizewise.embedding import Embedding, Options
from sizewise.embedding.storage.table import Table
from sizewise.models import Floats, Model, ModelOptions


class ModuloOptions(Options):
    shift: int = Field(0, ge=0)


class Modulo(Embedding):
    """The id modulo the number of rows."""

    options = ModuloOptions

    def __init__(self, cardinalities, dim, memory_budget, seed, options):
        super().__init__(cardinalities, dim, seed)
        self.shift = options.shift
        self.table = Table((memory_budget // (4 * dim), dim), seed)

    @classmethod
    def smallest_budget(cls, cardinalities, dim, options):
        return 4 * dim

    def lookup(self, ids):
        table = self.table()
        return torch.nn.functional.embedding((ids.to(torch.int64) + self.shift) % len(table), table)


class ShallowOptions(ModelOptions):
    hidden: int = Field(8, ge=1, le=1000)


class Shallow(Model):
    """One hidden layer over everything."""

    options = ShallowOptions

    def __init__(self, embedding, dense_features, hidden):
        super().__init__(embedding, dense_features)
        generator = torch.Generator().manual_seed(embedding.seed)
        width = dense_features + embedding.features * embedding.dim
        self.first = torch.nn.Parameter(0.1 * torch.randn(width, hidden, generator=generator))
        self.second = torch.nn.Parameter(0.1 * torch.randn(hidden, generator=generator))

    @classmethod
    def create(cls, embedding, dense_features, options, precision):
        return cls(embedding, dense_features, options.hidden)

    @classmethod
    def floats(cls, features, dense_features, dim, options):
        width = dense_features + features * dim
        return Floats(parameters=(width + 1) * options.hidden, per_row=2 * width + 2 * options.hidden)

    def forward(self, dense, ids):
        row = torch.cat([dense, self.embedding(ids).flatten(1)], dim=1)
        return torch.sinh(row @ self.first) @ self.second


class HalfDone(Embedding):
    """Without a lookup."""

    @classmethod
    def smallest_budget(cls, cardinalities, dim, options):
        return 4
'''
METHODS = {"modulo": "someones:Modulo"}
MODELS = {"shallow": "someones:Shallow"}


def install(
    folder: Path,
    methods: Mapping[str, str] = METHODS,
    models: Mapping[str, str] = MODELS,
    name: str = "someones",
) -> Path:
    """Lay the distribution's files into a folder, as pip does; it is installed for whoever has that on the path.

    Args:
        folder: to make or add to.
        methods: entry points of `sizewise.methods`.
        models: entry points of `sizewise.models`.
        name: of the distribution.
    """
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "someones.py").write_text(MODULE)
    (folder / "someones_broken.py").write_text("import a_library_that_is_not_installed\n")
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = {"sizewise.methods": methods, "sizewise.models": models}
    lines = [
        line
        for group, points in groups.items()
        for line in [f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), ""]
    ]
    (information / "entry_points.txt").write_text("\n".join(lines))
    return folder
