"""The model of a trial's configuration, and its size."""

from collections.abc import Mapping
from typing import Any

import torch

from sizewise import models
from sizewise.config import StudySpec
from sizewise.config.fields import bytes_of, ends_of
from sizewise.config.resolving import column_number
from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS, FeatureCounts, build, full_bytes, smallest_budget
from sizewise.models import Model
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.counts import training_counts


def build_model(config: TrialConfig, manifest: Manifest) -> Model:
    """The model of a configuration, with its initial weights; equal configurations give equal models."""
    options = dict(config.embedding.options)
    if "contiguous_ids" in METHODS[config.embedding.method].options.model_fields:
        # What the ids are is the data's to say; a study file may still say otherwise.
        options.setdefault("contiguous_ids", manifest.settings.tokens == "contiguous")
    embedding = build(
        config.embedding.method,
        manifest.cardinalities,
        config.model.dim,
        config.search.memory_budget,
        config.seed,
        pooling=config.embedding.pooling,
        multi_hot=config.embedding.multi_hot,
        **options,
    )
    if embedding.needs_counts:
        embedding.assign_rows([FeatureCounts(*counts) for counts in training_counts(config.data)])
    dense = len(manifest.dense_missing)
    around = _with_column_numbers(config, manifest)
    return models.build(config.model.kind, embedding, dense, around, config.train.precision)


def _with_column_numbers(config: TrialConfig, manifest: Manifest) -> Mapping[str, Any]:
    """The options of the model, with numbers for the columns that they name."""
    kind, options = config.model.kind, config.options_of_model()
    columns = {} if models.is_own(kind) else models.find(kind).columns
    return {**options, **{c: column_number(kind, c, options.get(c), manifest) for c in columns}}


def model_sizes(config: TrialConfig, manifest: Manifest) -> dict[str, int]:
    """Bytes of a configuration's model, without making it.

    Raises:
        InputError: there is no such model, for its budget is too small or its options do not go together.
    """
    with torch.device("meta"):  # tensors without memory
        model = build_model(config, manifest)
    return {"embedding_bytes": model.embedding_bytes, "model_bytes": model.model_bytes}


def check_counts(spec: StudySpec, manifest: Manifest, source: str = "study file") -> None:
    """Have the counts of values at hand where a method of a study needs them: made now, if need be, for all trials.

    Args:
        spec: the study.
        manifest: of its data.
        source: the study file's name, for messages.

    Raises:
        InputError: they are damaged, or an option leaves nothing to do with them.
    """
    try:
        _check_counts(spec, manifest)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _check_counts(spec: StudySpec, manifest: Manifest) -> None:
    if any(METHODS[name].needs_counts for name in spec.train.distill_teacher if name in METHODS):
        training_counts(spec.data)
    for method in (m for m in spec.embedding.methods if METHODS[m].needs_counts):
        counts = [FeatureCounts(*counts) for counts in training_counts(spec.data)]
        dim, options = spec.model.largest_dim, spec.embedding.options_of(method)
        tables = full_bytes(manifest.cardinalities, dim)
        budget = max(bytes_of(end, tables) for end in ends_of(spec.search.memory_budget))
        fitting = {name: _fitting(name, ends_of(field), dim) for name, field in options.items()}
        last = {name: ends[-1] for name, ends in fitting.items() if ends}
        ends = [(name, end) for name, possible in fitting.items() for end in possible]
        for name, end in ends or [("seed", spec.seed)]:
            if (
                smallest_budget(method, manifest.cardinalities, dim, **{**last, name: end} if ends else {})
                > budget
            ):
                continue  # set aside when it is suggested
            with torch.device("meta"):
                sketch = build(
                    method, manifest.cardinalities, dim, budget, **{"seed": spec.seed, **last, name: end}
                )
                sketch.assign_rows(counts)


def _fitting(option: str, ends: list[Any], dim: int) -> list[Any]:
    """Those of an option's values that go with the longest vectors; a width may be for shorter ones alone."""
    return [end for end in ends if option != "width" or end is None or dim % end == 0]
