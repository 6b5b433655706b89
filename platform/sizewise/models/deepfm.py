"""DeepFM: first-order weights, a factorization machine and an MLP, added up.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", 2017, as DeepCTR-Torch has it:
logit = sum of first-order weights + weights of dense values + 1/2 sum over d of ((sum of v)^2 - sum of v^2)
+ MLP(vectors, dense values).

DeepCTR keeps the first-order weight of every value in tables of their own, one number wide. Here the last number of a
value's vector is that weight, and the others are its vector: a model of dim 17 is DeepCTR's with vectors of 16. So the
embedding method holds both, its memory budget counts both, and a compression compresses both.

    embedding = build("robe", cardinalities, dim=17, memory_budget=22_000, seed=1)
    model = DeepFM(embedding, 13, DeepFMOptions(top_mlp=[256, 128]))
    logits = model(dense, ids)
"""

from torch import Tensor

from sizewise.models.base import Floats, ModelOptions
from sizewise.models.wide_deep import WideDeep, WideDeepOptions


class DeepFMOptions(WideDeepOptions):
    """Options of ``deepfm``."""


class DeepFM(WideDeep):
    """Click logits from dense values and ids: `WideDeep` with the products of all pairs of vectors.

    Args: as for `WideDeep`.
    """

    options = DeepFMOptions

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Those of `WideDeep`, and of every row the squared vectors and two sums of vectors.

        Args: as for `Model.floats`.
        """
        without = super().floats(features, dense_features, dim, options)
        return without._replace(per_row=without.per_row + features * dim + 2 * dim)

    def wide(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """First-order weights and the factorization machine.

        Args, Returns: as for `WideDeep.wide`.
        """
        total = vectors.sum(1)
        crosses: Tensor = ((total * total).sum(1) - (vectors * vectors).sum((1, 2))) * 0.5
        return weights.sum((1, 2)) + crosses
