"""How much memory training a configuration takes, and what share of a GPU that is. No Ray, no GPU needed.

Computed from shapes: parameters, their gradients and the optimizer's state, and the activations that a step keeps
for its backward pass (or that scoring a batch takes, where that is more). tests/sizewise/training/test_footprint.py
holds it against what PyTorch really keeps, method by method, on the CPU.
"""

import math

from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS
from sizewise.embedding.ids.multi_hot import VALUES
from sizewise.models import find
from sizewise.training.scoring.predicting import EVALUATION_BATCH
from sizewise_prep.shards.manifest import Manifest

FLOAT, INDEX = 4, 8  # bytes
# Tensors that an optimizer keeps beside a parameter.
STATES = {"sgd": 0, "adagrad": 1, "adam": 2, "rowwise_adagrad": 1}
CONTEXT_BYTES = (
    1_000_000_000  # CUDA's own, libraries' workspaces, what PyTorch holds in reserve: of every process
)
SPARE = 1.25  # the allocator's rounding, temporary results
SHARES = (1, 2, 4, 8, 16)  # trials that share a card: few sizes, so that worker groups fit the next trial too


def values_looked_up(manifest: Manifest) -> float:
    """Values of a row that have vectors: one of a token column, those of a list of the mean length."""
    lists = manifest.lists
    return len(manifest.cardinalities) - len(lists) + sum(column.mean_length for column in lists)


def training_bytes(config: TrialConfig, features: int, dense: int, looked_up: float | None = None) -> int:
    """Bytes of tensors while training, on each worker, without CUDA's own.

    Args:
        config: the trial.
        features: categorical features, each of which gives one vector of `config.model.dim`.
        dense: dense values a row.
        looked_up: values a row whose vectors are looked up (`values_looked_up`); None: one a feature.
    """
    method, model = METHODS[config.embedding.method], find(config.model.kind)
    options = method.options(**config.embedding.options).fitted(config.model.dim)
    around = model.floats(features, dense, config.model.dim, model.options(**config.options_of_model()))
    tables = method.trained_bytes(config.search.memory_budget, options)
    parameters = (2 + STATES[config.train.optimizer]) * (FLOAT * around.parameters + tables)
    # Row-wise: one number a row.
    if config.train.optimizer == "rowwise_adagrad":
        row_length = getattr(options, "width", None) or config.model.dim // getattr(options, "chunks", 1)
        parameters -= tables - tables // max(row_length, 1)
    # What dropout has drawn, and what it has made, for every number of a layer.
    kept = around.per_row * (2 if config.train.dropout else 1)
    if config.embedding.multi_hot != "none":
        looked_up = VALUES
    read = math.ceil(features if looked_up is None else looked_up)
    row = FLOAT * (kept + method.floats_per_row(read, config.model.dim, options))
    row += FLOAT * around.per_value * read
    row += INDEX * 2 * read * config.model.dim  # where each number of the vectors lies
    if looked_up is not None and looked_up > features:  # and the vectors of lists, before they are pooled
        row += FLOAT * 2 * read * config.model.dim
    at_once = -(-config.train.batch_size // config.train.accumulate)
    rows = max(at_once, EVALUATION_BATCH / 2)  # scoring keeps nothing for a backward pass
    return int(parameters + rows * row)


def gpu_share(needed: int, card_bytes: int) -> float | None:
    """The share of a card for a trial of `needed` bytes of tensors; None where the card is too small for it."""
    needed = int(needed * SPARE) + CONTEXT_BYTES
    sharing = [count for count in SHARES if needed * count <= card_bytes]
    return 1 / max(sharing) if sharing else None
