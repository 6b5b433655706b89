"""A teacher that is a trained model of Sizewise's own: a trial's weights, wherever they are kept.

teacher = model_teacher("criteo/0007", config, place("runs/criteo/checkpoints/0007-1f2e/best-000000000860.safetensors"))
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sizewise.config.trial import TrialConfig
from sizewise.models import is_own
from sizewise.store import code
from sizewise.store.study_folder import StudyFolder
from sizewise.training.building import build_model
from sizewise.training.checkpoints import checkpoint
from sizewise.training.input.batches import Split
from sizewise.training.scoring.predicting import evaluation_rows, predict
from sizewise.training.teachers.teacher import Numbers, Scorer, Teacher, replaced
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.storage import Place
from sizewise_prep.shards.manifest import Manifest


def model_teacher(
    name: str,
    config: TrialConfig,
    weights: Place,
    digest: str,
    data: Path,
    device: torch.device | None = None,
) -> Teacher:
    """The teacher that a trained model is.

    Args:
        name: what messages call it.
        config: of the trial.
        weights: a file of weights, or a checkpoint.
        digest: of the weights (`checkpoint.digest_of`).
        data: the shards whose rows it scores, on this machine.
        device: where it computes; the CPU where it is left out.
    """
    where = device or torch.device("cpu")

    def load() -> Scorer:
        if is_own(config.model.kind):
            code.use(StudyFolder.of_weights(weights).path)
        # Its own data may lie elsewhere by now; the student's are the same rows.
        model = build_model(config.model_copy(update={"data": str(data)}), Manifest.load(data))
        try:
            if checkpoint.digest_of(weights) != digest:
                raise replaced(weights)
            model.load_state_dict(_weights(weights, checkpoint.identity(config)))
        except (DamagedError, RuntimeError) as error:
            what = (
                error if isinstance(error, DamagedError) else f"{weights}: holds the weights of another model"
            )
            raise InputError(f"distill.teacher: {name}: {what}: use another teacher") from None
        model.to(where)
        rows = evaluation_rows(where)

        def score(shard: Split, first: int) -> Numbers:
            with _one_thread():
                return predict(model, shard.in_order(rows), where)[1]

        return score

    return Teacher(name, digest, load)


def _weights(path: Place, of: str) -> dict[str, torch.Tensor]:
    if path.suffix != ".ckpt":
        return checkpoint.load_weights(path, of)
    model = dict(checkpoint.load(path, of)["model"])
    return model


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, so that the last bits are the same however many CPUs a process has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
