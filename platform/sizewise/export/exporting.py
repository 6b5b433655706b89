"""Writes the model of a trial to a folder.

    description = export(Path("runs"), "quickstart", trial_id=7, out=Path("model"))

The weights are those of the trial's best evaluation on the validation split, or of an earlier one that was kept because
it may stand on the front (`results.weights`).
"""

import hashlib
import io
import platform
import shlex
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import polars as pl
import torch

import sizewise
from sizewise import results
from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS, full_bytes
from sizewise.embedding.storage.rounding import Rounded, round_tables, rounds
from sizewise.export import archive
from sizewise.export.deployed import DESCRIPTION, PROGRAM, Deployed, Description, Latency
from sizewise.export.program import to_program
from sizewise.models import MODELS, Model, find, is_own
from sizewise.models.foreign import foreign
from sizewise.results.commands import run_longer
from sizewise.results.weights import kept_weights
from sizewise.store import code
from sizewise.store.data_identity import fingerprint
from sizewise.store.study_folder import StudyFolder
from sizewise.training.building import build_model
from sizewise.training.checkpoints import checkpoint
from sizewise_core.errors import InputError, shown
from sizewise_core.files.atomic import atomic_folder, write_atomic
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.storage import Place
from sizewise_prep.shards.cache import local_shards
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.vocabulary import Vocabulary

LATENCY_ROWS = (1, 128, 4096)
_TURNS = 30
_SCORES = ("auc", "logloss", "normalized_entropy")


def export(
    runs: Place,
    name: str,
    trial_id: int,
    out: Path,
    problems: list[str] | None = None,
    storage: str | None = None,
    iteration: int | None = None,
) -> Description:
    """Write the model of one of a trial's evaluations to a folder, completely or not at all.

    Args:
        runs, name, trial_id: of the trial.
        out: a folder that is not there yet, or empty.
        problems: gets a line for what could not be read of the study.
        storage: round a model that was trained in float32 to it: bfloat16, int8, int4 or int2.
        iteration: of the evaluation; None for the trial's best one on the validation split.

    Raises:
        InputError: no such study or trial, nothing of it to export, its weights are damaged, its data is gone, `out`
            holds something, or there is no such storage, or nothing to round to it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; choose another --out")
    study = results.load(runs, name)
    if problems is not None:
        problems += study.problems
    row = _row(study, trial_id, iteration)
    config = TrialConfig.from_flat(results.trial_report(runs, name, trial_id).record.config)
    if is_own(config.model.kind):
        code.use(study.folder)
    if reason := find(config.model.kind).not_exported:
        raise InputError(f"model {config.model.kind} cannot be exported: {reason}")
    data = local_shards(config.data)
    manifest = Manifest.load(data)
    model = _trained(study, row, config, manifest)
    row = row if storage is None else _rounded(study, row, model, storage, manifest)
    vocabulary = Vocabulary.load(data) if manifest.settings.tokens == "contiguous" else None

    program = _program(config, model, manifest, vocabulary)
    description = _described(name, row, config, manifest, program, storage)
    with atomic_folder(out) as working:
        write_atomic(working / PROGRAM, program)
        write_atomic(working / DESCRIPTION, description.text())
        Deployed.open(working)  # before it gets its name: what cannot be opened here cannot be served
    return description


def _described(
    name: str,
    row: Mapping[str, Any],
    config: TrialConfig,
    manifest: Manifest,
    program: bytes,
    storage: str | None,
) -> Description:
    """What `model.json` says; measures the program's latency."""
    return Description(
        sizewise=sizewise.__version__,
        study=name,
        trial_id=row["trial_id"],
        iteration=row["iteration"],
        config=config.grouped(),
        layout=manifest.layout,
        tokens=manifest.settings.tokens,
        max_list=manifest.settings.max_list,
        validation={score: row[score] for score in _SCORES},
        test={score: row[f"test_{score}"] for score in _SCORES if row[f"test_{score}"] is not None},
        stored_as=storage,
        embedding_bytes=row["embedding_bytes"],
        model_bytes=row["model_bytes"],
        compression_ratio=row["compression_ratio"],
        latency=_latency(program, manifest),
        measured_on=f"{_processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}",
        program_bytes=len(program),
        sha256=hashlib.sha256(program).hexdigest(),
        data_sha256=fingerprint(manifest),
    )


def _trained(study: results.Study, row: Mapping[str, Any], config: TrialConfig, manifest: Manifest) -> Model:
    """The trial's model with its kept weights."""
    model = build_model(config, manifest)
    try:
        model.load_state_dict(_weights(study, row, checkpoint.identity(config)))
    except RuntimeError:  # PyTorch's message lists every tensor
        raise InputError(
            f"{study.folder}: the weights of trial {row['trial_id']} are not those of a model of its configuration"
        ) from None
    return model


def _rounded(
    study: results.Study, row: Mapping[str, Any], model: Model, storage: str, manifest: Manifest
) -> Mapping[str, Any]:
    """Round the model's tables; the trial's line of the table as one of the rounded model.

    Its scores are those that the study measured, if it did at that iteration; there are none on the test split.
    """
    if storage not in get_args(Rounded):
        raise InputError(f"--storage {shown(storage)}: choose one of {', '.join(get_args(Rounded))}")
    if not rounds(model.embedding):
        raise InputError(
            f"trial {row['trial_id']} was not trained in float32, so it is stored as it is: leave out --storage"
        )
    round_tables(model.embedding, storage)  # type: ignore[arg-type]
    size = model.embedding_bytes
    sizes = {
        "embedding_bytes": size,
        "model_bytes": model.model_bytes,
        "compression_ratio": full_bytes(manifest.cardinalities, model.embedding.dim) / size,
    }
    measured: Mapping[str, Any] = {}
    if study.rounded.height:
        same = study.rounded.filter(
            pl.col("trial_id") == row["trial_id"],
            pl.col("iteration") == row["iteration"],
            pl.col("stored_as") == storage,
        )
        measured = same.row(0, named=True) if same.height else {}
    scores = {name: measured.get(name) for name in _SCORES}
    return {**row, **scores, **{f"test_{name}": None for name in _SCORES}, **sizes}


def _program(config: TrialConfig, model: Model, manifest: Manifest, vocabulary: Vocabulary | None) -> bytes:
    """The file of a model's program; InputError where a model or method of another distribution has none."""
    ours = config.model.kind in MODELS.own and config.embedding.method in METHODS.own
    buffer = io.BytesIO()
    try:
        with foreign(f"model {config.model.kind} has been traced"):
            exported = to_program(
                model, manifest.settings.tokens, vocabulary, manifest.layout, len(manifest.lists)
            )
        torch.export.save(exported, buffer)
        problem = archive.fault(buffer.getvalue())
    except Exception as error:  # errors of torch.export have no common class
        if ours:
            raise
        problem = f"torch.export: {' '.join(str(error).split())[:100]}"
    if problem:
        raise InputError(
            f"model {config.model.kind} with embedding.method {config.embedding.method} cannot be exported "
            f"({problem}): programs may hold only operators that are known to keep within their tensors"
        )
    return buffer.getvalue()


def _row(study: results.Study, trial_id: int, iteration: int | None) -> Mapping[str, Any]:
    """The trial's row of the table of trials, at that iteration. Raises InputError if there is nothing to export."""
    found = study.trials.filter(trial_id=trial_id)
    if found.is_empty():
        known = ", ".join(map(str, study.trials["trial_id"].to_list())) or "none yet"
        raise InputError(f"{study.folder}: no trial {trial_id}; its trials: {known}")
    row = found.row(0, named=True)
    if row["state"] == "running":
        raise InputError(f"{study.folder}: trial {trial_id} still runs; export it when it has ended")
    if not row["evaluations"]:
        raise InputError(
            f"{study.folder}: trial {trial_id} ({row['state']}) was never evaluated; choose another --trial"
        )
    if iteration in (None, row["iteration"]):
        return row
    evaluated = study.evaluations.filter(trial_id=trial_id, iteration=iteration)
    if evaluated.is_empty():
        raise InputError(
            f"{study.folder}: trial {trial_id} was not evaluated at iteration {iteration}; `sizewise results "
            f"{study.name} --runs {shlex.quote(str(study.folder.parent))} --table evaluations` has its iterations"
        )
    # The test split was scored with the weights of the best evaluation only.
    return {**row, **evaluated.row(0, named=True), **{f"test_{name}": None for name in _SCORES}}


def _weights(study: results.Study, row: Mapping[str, Any], of: str) -> dict[str, torch.Tensor]:
    """The weights of the evaluation in that row."""
    path = weights_file(study, row)
    try:
        return checkpoint.load_weights(path, of)
    except DamagedError as error:
        raise InputError(f"{error}; {_train_again(study, row)}") from None


def weights_file(study: results.Study, row: Mapping[str, Any]) -> Place:
    """The file of weights of an evaluation: the trial's own, or of the one whose curve it shares.

    Args:
        study: the trial's.
        row: the trial's, of its table, with the iteration that is meant.

    Raises:
        InputError: there is none any more.
    """
    kept = kept_weights(study, row["trial_id"])
    if row["iteration"] in kept:
        return kept[row["iteration"]]
    some = ", ".join(map(str, sorted(kept)[-5:]))
    others = f"; or choose an --iteration whose weights are kept: {some}" if kept else ""
    raise InputError(
        f"{StudyFolder(study.folder).checkpoints}: no weights of trial {row['trial_id']} at iteration "
        f"{row['iteration']}; {_train_again(study, row)}{others}"
    )


def _train_again(study: results.Study, row: Mapping[str, Any]) -> str:
    return f"train the trial again: {run_longer(study, row['trial_id'], 1.0)}"


def _latency(program: bytes, manifest: Manifest) -> list[Latency]:
    """Median of `_TURNS` calls with random rows, lists of the mean length; the first few not counted."""
    module = torch.export.load(io.BytesIO(program)).module()
    found = []
    for rows in LATENCY_ROWS:
        tokens = len(manifest.cardinalities) - len(manifest.lists)
        inputs = [torch.rand(rows, len(manifest.dense_missing)), _random_tokens(rows, tokens)]
        if manifest.lists:
            means = torch.tensor([round(column.mean_length) for column in manifest.lists])
            inputs += [_random_tokens(rows * int(means.sum())), means.repeat(rows, 1)]
        seconds = []
        with torch.inference_mode():
            for _ in range(_TURNS + 3):
                start = time.perf_counter()
                module(*inputs)
                seconds.append(time.perf_counter() - start)
        found.append(Latency(rows=rows, milliseconds=round(1000 * statistics.median(seconds[3:]), 4)))
    return found


def _random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2**32, shape).to(torch.uint32)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
