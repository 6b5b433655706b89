"""A training step of dcn and deepfm on a CPU beside TorchRec's and DeepCTR-Torch's own; and of one's own model.

    pip install torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 deepctr-torch==0.3.0      # in an environment of its own
    python -m benchmarks.model_steps
    python -m benchmarks.model_steps --own        # one's own model alone, for which neither is needed

All take the same batches, in turns: forward, backward, a step of SGD. Theirs have a table a feature, as these libraries
make them by themselves: dense gradients, `torch.optim.SGD`. Ours have the same tables in one (`full`), or one pool a
hundredth of their size (`robe`), stepped in the backward pass, as a study trains. The last pair is a plain module, once
in a loop of PyTorch alone and once as a study trains it, around the same embedding. Below it is what a dry step of that
module takes, which comes before a study starts.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.timing import machine, take_turns
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise import models
from sizewise.embedding import build, full_bytes
from sizewise.models.base import Model
from sizewise.models.dry_step import dry_step
from sizewise.models.own import OwnModel
from sizewise.training.input.batches import Batch
from sizewise.training.steps.optimizers import build_optimizer
from sizewise.training.steps.step import Step

DENSE, FEATURES, DIM = 13, 26, 16
BOTTOM, TOP, LAYERS, RANK = [128, 64], [256, 128], 3, 64
RATE = 0.01


class Plain(nn.Module):
    """What somebody's own module may look like."""

    def __init__(self, embedding: nn.Module, dense_features: int) -> None:
        super().__init__()
        self.embedding = embedding
        width = dense_features + FEATURES * DIM
        self.layers = nn.Sequential(
            nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1)
        )

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        """Logits."""
        return self.layers(torch.cat([dense, self.embedding(ids).flatten(1)], dim=1)).squeeze(1)


def torchrec_dcn(cardinalities: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """TorchRec's DLRM_DCN on its KeyedJaggedTensors, which cost nothing here: ids are transposed outside."""
    from torchrec.models.dlrm import DLRM_DCN
    from torchrec.modules.embedding_configs import EmbeddingBagConfig
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    names = [f"f{n}" for n in range(FEATURES)]
    tables = [
        EmbeddingBagConfig(name=name, embedding_dim=DIM, num_embeddings=count, feature_names=[name])
        for name, count in zip(names, cardinalities, strict=True)
    ]
    bags = EmbeddingBagCollection(tables=tables)
    model = DLRM_DCN(bags, DENSE, [*BOTTOM, DIM], [*TOP, 1], LAYERS, RANK)

    def forward(dense: Tensor, ids: Tensor) -> Tensor:
        offsets = torch.arange(ids.numel() + 1)
        keyed = KeyedJaggedTensor.from_offsets_sync(keys=names, values=ids.T.flatten(), offsets=offsets)
        return model(dense, keyed).squeeze(1)

    forward.model = model  # type: ignore[attr-defined]
    return forward


def deepctr_deepfm(cardinalities: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """DeepCTR-Torch's DeepFM, which reads ids out of floats; vectors of one number less, as ours."""
    from deepctr_torch.inputs import DenseFeat, SparseFeat
    from deepctr_torch.models import DeepFM

    columns: list[Any] = [
        SparseFeat(f"f{n}", count, embedding_dim=DIM - 1) for n, count in enumerate(cardinalities)
    ]
    columns += [DenseFeat(f"d{n}", 1) for n in range(DENSE)]
    model = DeepFM(columns, columns, dnn_hidden_units=TOP, task="regression")

    def forward(dense: Tensor, ids: Tensor) -> Tensor:
        return model(torch.cat([ids.float(), dense], dim=1)).squeeze(1)

    forward.model = model  # type: ignore[attr-defined]
    return forward


def plain_step(
    forward: Callable[[Tensor, Tensor], Tensor], model: nn.Module, batch: Batch
) -> Callable[[], None]:
    """A step in a loop of PyTorch alone."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    ids = batch.ids.long()

    def step() -> None:
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(forward(batch.dense, ids), batch.label).backward()
        optimizer.step()

    return step


def our_step(model: Model, batch: Batch) -> Callable[[], None]:
    """A step as a study takes it."""
    optimizer = build_optimizer("sgd", model, RATE, in_backward=True)
    step = Step(model, optimizer, len(batch.label), torch.device("cpu"))
    return lambda: step(batch, len(batch.label))


def ours(kind: str, method: str, cardinalities: list[int]) -> Model:
    """A model around full tables, or a pool of a hundredth."""
    budget = full_bytes(cardinalities, DIM) // (1 if method == "full" else 100)
    options: dict[str, Any] = {"top_mlp": TOP}
    if kind == "dcn":
        options |= {"bottom_mlp": BOTTOM, "layers": LAYERS, "rank": RANK}
    return models.build(kind, build(method, cardinalities, DIM, budget, 1), DENSE, options)


def main() -> None:
    """Time all of them and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000, help="of a table")
    parser.add_argument("--batch", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--own", action="store_true", help="only one's own model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    cardinalities = [arguments.rows] * FEATURES
    ids = torch.randint(0, arguments.rows, (arguments.batch, FEATURES))
    label = torch.randint(0, 2, (arguments.batch,)).float()
    batch = Batch(torch.rand(arguments.batch, DENSE), ids, label)
    theirs = {"dcn": ("TorchRec", torchrec_dcn), "deepfm": ("DeepCTR-Torch", deepctr_deepfm)}
    if arguments.own:
        theirs = {}
    print(
        f"{machine()}; {arguments.batch:,} rows, {FEATURES} tables of {arguments.rows:,} x {DIM}, "
        f"{arguments.threads} threads\n"
    )
    print("| step | ms | ratio to the first |\n| --- | --- | --- |")
    for kind, (library, made) in theirs.items():
        forward = made(cardinalities)
        ways = {f"{kind} of {library}": plain_step(forward, forward.model, batch)}  # type: ignore[attr-defined]
        for method in ("full", "robe"):
            ways[f"{kind}, {method}"] = our_step(ours(kind, method, cardinalities), batch)
        _show(ways, arguments.rounds)
    _own(cardinalities, batch, arguments.rounds)


def _own(cardinalities: list[int], batch: Batch, rounds: int) -> None:
    embeddings = [
        build("robe", cardinalities, DIM, full_bytes(cardinalities, DIM) // 100, 1) for _ in range(2)
    ]
    alone = Plain(embeddings[0], DENSE)
    # The same optimizer on both sides: what is measured is what surrounds the module.
    optimizer = build_optimizer("sgd", alone, RATE, in_backward=True)

    def outside() -> None:
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(alone(batch.dense, batch.ids), batch.label).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    own = OwnModel(embeddings[1], DENSE, Plain(embeddings[1], DENSE))
    _show(
        {"one's own module outside Sizewise": outside, "as a study's model": our_step(own, batch)},
        rounds,
    )
    embedding = build("hash", cardinalities, DIM, full_bytes(cardinalities, DIM) // 100, 1)
    wall, cpu = time.perf_counter(), time.process_time()
    dry_step(f"{Plain.__module__}:{Plain.__name__}", embedding, DENSE, {})
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"\na dry step of it: {wall:.2f} s, {cpu:.2f} s of CPU")


def _show(ways: dict[str, Callable[[], None]], rounds: int) -> None:
    times = take_turns(ways, rounds)
    first = next(iter(times.values()))[0]
    for name, (wall, _) in times.items():
        print(f"| {name} | {wall:.2f} | {first / wall:.2f} |", flush=True)


if __name__ == "__main__":
    main()
