"""The model of a trial's configuration, and its size."""

import torch

from sizewise import models
from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS, FeatureCounts, build
from sizewise.models import Model
from sizewise_prep.shards.counts import training_counts
from sizewise_prep.shards.manifest import Manifest


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
        **options,
    )
    if embedding.needs_counts:
        embedding.assign_rows([FeatureCounts(*counts) for counts in training_counts(config.data)])
    dense = len(manifest.dense_missing)
    return models.build(
        config.model.kind, embedding, dense, config.options_of_model(), config.train.precision
    )


def model_sizes(config: TrialConfig, manifest: Manifest) -> dict[str, int]:
    """Bytes of a configuration's model, without making it.

    Raises:
        InputError: there is no such model, for its budget is too small or its options do not go together.
    """
    with torch.device("meta"):  # tensors without memory
        model = build_model(config, manifest)
    return {"embedding_bytes": model.embedding.embedding_bytes, "model_bytes": model.model_bytes}
