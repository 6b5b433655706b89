"""Somebody's own modules: models, and what is none."""

NETS = '''
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


def not_a_module(embedding, dense_features):
    return 3


number = 3
'''
LAYERS = """
from torch import nn


def hidden_layers(width, hidden):
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
"""
