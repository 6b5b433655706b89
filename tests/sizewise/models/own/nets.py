"""Somebody's own modules: models, and what is none."""

NETS = '''
import copy
import random
import sys

import numpy
import torch
from torch import nn
from nets_layers import hidden_layers


class Net(nn.Module):
    """Two layers over everything, with options by name."""

    def __init__(self, embedding, dense_features, hidden=8):
        super().__init__()
        self.embedding = embedding
        self.layers = hidden_layers(dense_features + embedding.features * embedding.dim, hidden)

    def forward(self, dense, ids):
        return self.layers(torch.cat([dense, self.embedding(ids).flatten(1)], dim=1)).squeeze(1)


class AllOptions(Net):
    def __init__(self, embedding, dense_features, options):
        super().__init__(embedding, dense_features, **options)


class Fft(Net):
    """With an operator that no export may call."""

    def forward(self, dense, ids):
        return super().forward(torch.fft.fft(dense).real, ids)


class Lists(Net):
    """Lists pooled, and their values one by one."""

    def forward(self, dense, ids, bags):
        single, several = self.embedding.unpooled(ids, bags)
        gate = torch.sigmoid(several).sum(1)
        rows = bags.rows(self.embedding.features - ids.shape[1], ids.shape[0])
        per_row = torch.zeros_like(dense[:, 0]).index_add(0, rows, gate)
        joined = torch.cat([dense, self.embedding(ids, bags).flatten(1)], dim=1)
        return self.layers(joined).squeeze(1) + per_row


class FftLists(Lists):
    def forward(self, dense, ids, bags):
        return super().forward(torch.fft.fft(dense).real, ids, bags)


class OwnTable(Net):
    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.first = nn.Embedding(100, 4)

    def forward(self, dense, ids):
        return super().forward(dense, ids) + self.first(ids[:, 0] % 100).sum(1)


class Tied(Net):
    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.again = self.layers
        self.everything = nn.ModuleList([embedding])


class Wrong(Net):
    def forward(self, dense, ids):
        return self.wrong(super().forward(dense, ids))


class Column(Wrong):
    wrong = staticmethod(lambda logits: logits[:, None])


class Half(Wrong):
    wrong = staticmethod(lambda logits: logits[::2])


class Scalar(Wrong):
    wrong = staticmethod(lambda logits: logits.squeeze())


class Nan(Wrong):
    wrong = staticmethod(lambda logits: (logits - logits).log() * 0)


class NanGradient(Wrong):
    wrong = staticmethod(lambda logits: logits + (logits - logits.detach()).sqrt())


class Pair(Wrong):
    wrong = staticmethod(lambda logits: (logits, logits))


class Detached(Wrong):
    wrong = staticmethod(lambda logits: logits.detach())


class Raises(Wrong):
    wrong = staticmethod(lambda logits: logits @ torch.zeros(3, 3))


class RaisesEarly(Net):
    def __init__(self, embedding, dense_features):
        raise RuntimeError("no weights file\\nat /nowhere")


class NeedsMore(Net):
    def __init__(self, embedding, dense_features, heads):
        pass


class Reads(Net):
    """Looks at its numbers while it is built, which the meta device has none of."""

    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        assert self.layers[0].weight.std().item() > 0


class Probabilities(Wrong):
    wrong = staticmethod(lambda logits: logits[:, None].sigmoid().squeeze(1))


class Exits(Wrong):
    wrong = staticmethod(lambda logits: sys.exit(4))


class RowOfTable(Net):
    """Takes ids for rows of a table of its own."""

    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.first = nn.Embedding(embedding.cardinalities[0], 4)

    def forward(self, dense, ids):
        return super().forward(dense, ids) + self.first(ids[:, 0]).sum(1)


class Sparse(Net):
    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.first = nn.Embedding(100, 4, sparse=True)

    def forward(self, dense, ids):
        return super().forward(dense, ids) + self.first(ids[:, 0] % 100).sum(1)


class Lazy(Net):
    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.layers = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 1))


class Grows(Net):
    def forward(self, dense, ids):
        if not hasattr(self, "late"):
            self.late = nn.Linear(1, 1)
        return self.late(super().forward(dense, ids)[:, None]).squeeze(1)


class Doubled(Net):
    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.double()


class Frozen(Net):
    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        embedding.requires_grad_(False)


class Normalized(Net):
    """Batch norm in training; and the root of a dense value."""

    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.norm = nn.BatchNorm1d(dense_features)

    def forward(self, dense, ids):
        return super().forward(self.norm(dense.sqrt()), ids)


class Careless(Net):
    """Prints, draws from elsewhere, redraws the embedding, and has layers and tensors that are in no use."""

    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.unused, self.scale = nn.Linear(2, 2), torch.ones(1)
        for parameter in embedding.parameters():
            nn.init.zeros_(parameter)
        self.start = numpy.random.rand() + random.random()

    def forward(self, dense, ids):
        print("forward")
        return super().forward(dense, ids) * (1 + random.random() / 9)


class Copies(Net):
    def __init__(self, embedding, dense_features):
        super().__init__(embedding, dense_features)
        self.other = copy.deepcopy(embedding)

    def forward(self, dense, ids):
        return super().forward(dense, ids) + self.other(ids).sum((1, 2))


def not_a_module(embedding, dense_features):
    return 3


number = 3
'''
LAYERS = """
from torch import nn


def hidden_layers(width, hidden):
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
"""
