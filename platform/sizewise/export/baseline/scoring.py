"""Scores of the validation rows by what runs today, and how good they are: computed once for each study."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sizewise.export.baseline import files, programs
from sizewise.export.deployed import DESCRIPTION, PROGRAM, Deployed
from sizewise.metrics.errors import error_parts
from sizewise.metrics.scores import evaluate_scores
from sizewise.results import Study
from sizewise.results.data import data_of
from sizewise.results.decision.baseline import of_figures
from sizewise.store import baselines
from sizewise.store.baselines import BaselineAsked
from sizewise.store.data_identity import fingerprint
from sizewise.store.records import BaselineRecord
from sizewise.store.study_folder import MOST_YAML_BYTES, StudyFolder
from sizewise.training.input.batches import Split
from sizewise.training.scoring.predicting import EVALUATION_BATCH, EVALUATION_BATCH_CPU
from sizewise_core.errors import InputError
from sizewise_core.files.yaml_files import YamlError, parse_yaml
from sizewise_core.stores.storage import Place, read
from sizewise_prep.shards.cache import local_shards
from sizewise_prep.shards.files import digest
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.vocabulary import Vocabulary

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]
Scale = Literal["log-odds", "probabilities", "unknown"]
_VERSION = 1  # of how scores are computed: a later one is scored again
_LEAST = 1e-15  # the smallest probability that is not taken for 0


@dataclass(frozen=True)
class Where:
    """The study that something is compared with.

    Attributes:
        folder: the study's, which keeps what was scored; None: nothing is kept.
        data: its shards.
        size: what it means by size, embedding_bytes or model_bytes.
        workers: of a trial, each of which scores a share of every batch.
        on_gpus: whether they have GPUs, where batches are larger.
        known: a baseline that it has already.
    """

    folder: "Place | None"
    data: Place
    size: str
    workers: int = 1
    on_gpus: bool = False
    known: BaselineRecord | None = None

    @classmethod
    def of_study(cls, study: Study, runs: Place) -> "Where":
        """Of a study that has been read.

        Args:
            study: it.
            runs: the folder of studies, beside which the data may lie.
        """
        workers, on_gpus = _workers(study.folder)
        return cls(
            study.folder, data_of(study, runs).folder, study.size, workers, on_gpus, study.record.baseline
        )


class _Scored(NamedTuple):
    """Scores of the validation rows in their order, and what goes with them."""

    scores: Floats
    scale: Scale
    bytes: int | None


def recorded(asked: BaselineAsked, at: Where, programs_too: bool = True) -> BaselineRecord:
    """What is known of a baseline; its scores are computed unless the study has kept what they came to.

    Args:
        asked: what runs today.
        at: the study that it is compared with.
        programs_too: load programs of others, which can run any code; else only what is kept of them.

    Raises:
        InputError: there is no such file, it is no model, or its scores are not those of the validation rows.
    """
    if asked.path is None:
        return of_figures(asked)
    path = _path(asked.path)
    folder = local_shards(at.data)
    manifest = Manifest.load(folder)
    key = _key(path, manifest, at)
    found = at.known if at.known and at.known.digest == key else None
    found = found or (baselines.kept(at.folder, key) if at.folder is not None else None)
    if found is None:
        if path.is_file() and path.suffix.lower() in programs.ENDINGS and not programs_too:
            raise InputError(f"{path}: programs can run code: only `run` and --baseline load one")
        found = _measured(path, _scored(path, folder, manifest, at), folder, at, key)
        if at.folder is not None:
            baselines.keep(at.folder, found)
    given = {
        name: value for name in ("bytes", "p99_ms", "cost") if (value := getattr(asked, name)) is not None
    }
    return found.model_copy(update={"name": path.name, **given})


def _path(text: str) -> Path:
    """The folder or file that is named. Raises InputError where there is none."""
    path = Path(text)
    if path.name == PROGRAM and (path.parent / DESCRIPTION).is_file():
        path = path.parent  # what `sizewise export` wrote, which takes raw rows
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder: {baselines.HOW}")
    if path.is_dir() and not (path / DESCRIPTION).is_file():
        raise InputError(f"{path}: is a folder, and no exported model: {baselines.HOW}")
    known = (*programs.ENDINGS, *files.ENDINGS)
    if path.is_file() and path.suffix.lower() not in known:
        raise InputError(
            f"{path}: ends as no model and no file of scores does, which is in {', '.join(known)}"
        )
    return path


def _key(path: Path, manifest: Manifest, at: Where) -> str:
    """What the scores depend on, as one digest."""
    try:
        content = digest(path / PROGRAM if path.is_dir() else path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    parts = (_VERSION, content, path.suffix.lower(), fingerprint(manifest), at.workers, at.on_gpus, at.size)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _scored(path: Path, folder: Path, manifest: Manifest, at: Where) -> _Scored:
    """Scores of the validation rows, in their order."""
    split = Split.open(folder, "validation")
    if path.is_dir():
        deployed = Deployed.open(path)
        if wrong := deployed.misfit(manifest):
            raise InputError(f"{path}: {wrong}")
        known = Vocabulary.load(folder) if manifest.settings.tokens == "contiguous" else None
        parts = [deployed.of_shard(split.stored(n), manifest, known) for n in range(len(split.files))]
        every = np.concatenate(parts).astype(np.float64)
        if not np.isfinite(every).all():
            raise InputError(f"{path}: gives numbers that are not finite: export another model")
        return _Scored(every, "log-odds", getattr(deployed.description, at.size))
    if path.suffix.lower() in programs.ENDINGS:
        every = programs.scores(path, split)
        shares = len(every) > 0 and every.min() >= 0 and every.max() <= 1
        if shares:
            log.info("%s: all of its scores lie between 0 and 1: taken for probabilities", path)
        return _Scored(every, "probabilities" if shares else "log-odds", path.stat().st_size)
    every, column = files.read(path, split.rows)
    scale: dict[str, Scale] = {"log_odds": "log-odds", "probability": "probabilities"}
    return _Scored(every, scale.get(column, "unknown"), None)


def _measured(path: Path, scored: _Scored, folder: Path, at: Where, key: str) -> BaselineRecord:
    """How good the scores are, and what their errors are made of, as trials' evaluations keep it."""
    split = Split.open(folder, "validation")
    stored = [split.stored(number) for number in range(len(split.files))]
    order = _order([len(rows) for rows in stored], at)
    labels = np.concatenate([rows.labels for rows in stored])[order]
    weights = None
    if stored and stored[0].weights is not None:
        weights = np.concatenate([np.asarray(rows.weights) for rows in stored])[order]
    scores = scored.scores[order]
    if scored.scale == "probabilities":
        if scores.min() < 0 or scores.max() > 1:
            raise InputError(f"{path}: column probability has values that are not between 0 and 1")
        clipped = np.clip(scores, _LEAST, 1 - _LEAST)
        scores = np.log(clipped) - np.log1p(-clipped)
    figures, parts = evaluate_scores(labels, scores, weights), error_parts(labels, scores, weights)
    if not np.isfinite(figures.auc):
        raise InputError(f"{path}: {figures.undefined}: prepare more validation rows")
    is_known = scored.scale != "unknown" and np.isfinite(figures.logloss)
    return BaselineRecord(
        name=path.name,
        auc=figures.auc,
        logloss=figures.logloss if is_known else None,
        bytes=scored.bytes,
        digest=key,
        auc_parts=parts.get("auc_parts", ""),
        logloss_parts=parts.get("logloss_parts", "") if is_known else "",
    )


def _order(rows_per_shard: list[int], at: Where) -> npt.NDArray[np.int64]:
    """The order in which a trial's workers score the rows, by which errors are grouped: see `InOrder`."""
    size = EVALUATION_BATCH if at.on_gpus else EVALUATION_BATCH_CPU
    before = np.cumsum([0, *rows_per_shard])
    found = [
        before[shard] + np.arange(low + rank, min(low + size, rows))[:: at.workers]
        for rank in range(at.workers)
        for shard, rows in enumerate(rows_per_shard)
        for low in range(0, rows, size)
    ]
    return np.concatenate([np.empty(0, np.int64), *found])


def _workers(folder: Place) -> tuple[int, bool]:
    """How many workers a study's trials have, and whether these have GPUs, as its file says."""
    try:
        document = parse_yaml(read(StudyFolder(folder).study_yaml, MOST_YAML_BYTES))
        resources = document["resources"]
        return max(1, int(resources["workers"])), resources["gpus_per_worker"] not in (0, 0.0)
    except (OSError, YamlError, KeyError, TypeError, ValueError):
        return 1, False
