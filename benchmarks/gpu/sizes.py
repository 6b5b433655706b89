"""What is measured, and what it should reach: MLPerf's model as the seed paper's line of work trains it."""

from dataclasses import dataclass, field

RATE = 1e-6  # so small that numbers stay finite where a way runs hundreds of times on one batch


@dataclass(frozen=True)
class Sizes:
    """Of the model, the batches and the run; batches are named by MLPerf's, whatever they are here."""

    features: int = 26
    dim: int = 128
    dense: int = 13
    pool_bytes: int = 10_000_000
    block_len: int = 32
    bottom: tuple[int, ...] = (512, 256, 128)
    top: tuple[int, ...] = (1024, 1024, 512, 256)
    batches: dict[int, int] = field(default_factory=lambda: {2_048: 2_048, 16_384: 16_384, 65_536: 65_536})
    check_batch: int = 4_096
    rounds: int = 30
    warm_up: int = 5

    @property
    def pairs(self) -> int:
        """Dot products of a sample."""
        return self.features * (self.features + 1) // 2

    @property
    def width(self) -> int:
        """Columns of the interaction's result."""
        return -(-(self.dim + self.pairs) // 16) * 16


SMOKE = Sizes(
    features=3,
    dim=16,
    dense=4,
    pool_bytes=512,
    block_len=8,
    bottom=(16,),
    top=(16,),
    batches={2_048: 2, 16_384: 3, 65_536: 4},
    check_batch=5,
    rounds=1,
    warm_up=0,
)

FULL, POOL = "full tables, fused gather and update", "shared pool 10 MB, block 32 aligned"
PLAIN, FUSED = "full tables fused, then PyTorch interaction", "shared pool 10 MB fused with the interaction"
SAME = "full tables through the very same fused kernels"
BAGS, BAGS_DOTS = "reference path, embeddings alone", "reference path with its interaction"

REFERENCE = "reference path, eager"
PLAIN_STEP = "full tables fused + PyTorch interaction, CUDA graph, bf16"
PLAIN_STEP_BF16 = "the same, its interaction in bf16 too"
SAME_STEP = "full tables, same fused kernels, CUDA graph, bf16"
POOL_STEP = "10 MB pool fused, CUDA graph, bf16"
ROUNDED_STEP = "10 MB pool stored as bfloat16, fused, CUDA graph, bf16"
MLPS = "MLPs alone, CUDA graph, bf16"

# Milliseconds of the prototype on one H200, by (batch, variant).
PROTOTYPE = {
    (65_536, FULL): 1.07,
    (65_536, POOL): 0.81,
    (65_536, PLAIN): 3.26,
    (65_536, FUSED): 0.80,
    (16_384, BAGS): 11.9,
    (16_384, FUSED): 0.25,
    (2_048, REFERENCE): 5.98,
    (2_048, PLAIN_STEP): 0.87,
    (2_048, POOL_STEP): 0.65,
    (2_048, MLPS): 0.44,
    (16_384, REFERENCE): 6.64,
    (16_384, PLAIN_STEP): 4.41,
    (16_384, POOL_STEP): 2.93,
    (16_384, MLPS): 1.34,
    (65_536, PLAIN_STEP): 16.5,
    (65_536, POOL_STEP): 10.6,
    (65_536, MLPS): 4.3,
}

# By (batch, variant): at most this share of the time of another variant in the same run.
GOALS: dict[tuple[int, str], list[tuple[float, str]]] = {
    (65_536, POOL): [(0.75, FULL)],
    (16_384, POOL): [(0.75, FULL)],
    (65_536, FUSED): [(0.25, PLAIN)],
    (16_384, FUSED): [(0.28, PLAIN), (0.02, BAGS_DOTS)],
    (2_048, POOL_STEP): [(1 / 10, REFERENCE), (1 / 1.4, PLAIN_STEP)],
    (16_384, POOL_STEP): [(1 / 3.5, REFERENCE), (1 / 2.3, PLAIN_STEP)],
    (65_536, POOL_STEP): [(1 / 2.8, PLAIN_STEP)],
}
