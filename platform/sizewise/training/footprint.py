"""How much memory training a configuration takes, and what share of a GPU that is. No Ray, no GPU needed.

Computed from shapes: parameters, their gradients and the optimizer's state, and the activations that a step keeps
for its backward pass (or that scoring a batch takes, where that is more). tests/sizewise/training/test_footprint.py
holds it against what PyTorch really keeps, method by method, on the CPU.
"""

import math
from itertools import pairwise

from sizewise.config.trial import TrialConfig
from sizewise.embedding.tensor_train import TensorTrainOptions
from sizewise.training.loop import EVALUATION_BATCH

FLOAT, INDEX = 4, 8  # bytes
STATES = {"sgd": 0, "adagrad": 1, "adam": 2}  # tensors that an optimizer keeps beside a parameter
CONTEXT_BYTES = 600_000_000  # CUDA's own, with its libraries' workspaces, in every process
SPARE = 1.25  # the allocator's rounding, temporary results
SHARES = (1, 2, 4, 8, 16)  # trials that share a card: few sizes, so that worker groups fit the next trial too


def training_bytes(config: TrialConfig, features: int, dense: int) -> int:
    """Bytes of tensors while training, on each worker, without CUDA's own.

    Args:
        config: the trial.
        features: categorical features, each of which gives one vector of `config.dim`.
        dense: dense values a row.
    """
    vectors = features + 1
    pairs = vectors * (vectors - 1) // 2
    widths = [[dense, *config.bottom_mlp, config.dim], [config.dim + pairs, *config.top_mlp, 1]]
    mlps = FLOAT * sum(a * b + b for mlp in widths for a, b in pairwise(mlp))
    # A table stored in fewer bits trains on numbers of 32: int8 holds four of them to a budget's four bytes.
    packed = {"bfloat16": 2, "int8": 4}.get(str(config.options.get("storage", "float32")), 1)
    parameters = mlps + config.memory_budget * packed
    # Of every row: both MLPs' layers, the vectors looked up and concatenated, their places (64-bit) and the dots.
    layers = 2 * sum(sum(mlp) for mlp in widths)
    row = FLOAT * (layers + 3 * vectors * config.dim + vectors * vectors + 2 * pairs)
    row += INDEX * 2 * features * config.dim
    if config.method == "tt":  # and of every vector the slices of three cores, of at most this rank
        rank = config.options.get("max_rank", TensorTrainOptions().max_rank)
        side = math.ceil(config.dim ** (1 / 3))
        row += FLOAT * features * (side * rank * rank + (2 * side + side * side) * rank)
    rows = max(config.batch_size, EVALUATION_BATCH / 2)  # scoring keeps nothing for a backward pass
    return int(parameters * (2 + STATES[config.optimizer]) + rows * row)


def gpu_share(needed: int, card_bytes: int) -> float | None:
    """The share of a card for a trial of `needed` bytes of tensors; None where the card is too small for it."""
    needed = int(needed * SPARE) + CONTEXT_BYTES
    sharing = [count for count in SHARES if needed * count <= card_bytes]
    return 1 / max(sharing) if sharing else None
