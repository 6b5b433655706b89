"""One trial's configuration: every setting that decides what is trained, and nothing else."""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from sizewise.embedding import METHODS
from sizewise.models import DEFAULT, MODELS


class TrialConfig(BaseModel):
    """All settings of one trial. Two equal configurations train equal models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str  # folder of shards
    dim: int
    bottom_mlp: list[int]
    top_mlp: list[int]
    method: str
    options: dict[str, Any]  # of the embedding method
    memory_budget: int  # bytes of embedding parameters
    learning_rate: float
    epochs: int
    batch_size: int
    optimizer: str
    evaluate_every: float | int  # epochs, or iterations when an integer
    checkpoint_seconds: float
    seed: int
    model: str = DEFAULT
    model_options: dict[
        str, Any
    ] = {}  # of another model than DLRM; those that are fields above are none of these
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # that the MLPs compute in; their weights stay float32
    )

    def flat(self) -> dict[str, Any]:
        """The settings as one level of names, for tables."""
        fields = self.model_dump(exclude={"options", "model_options"})
        return {**fields, **self.options, **self.model_options}

    @model_serializer(mode="wrap")
    def _as_before_there_were_models(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is newer than many records of trials, where it says nothing."""
        written: dict[str, Any] = handler(self)
        if self.model == DEFAULT:
            written = {k: v for k, v in written.items() if k not in ("model", "model_options")}
        return written

    def options_of_model(self) -> dict[str, Any]:
        """All options of the model, the widths of hidden layers among them where it has such."""
        declared = MODELS[self.model].options.model_fields
        widths = {"bottom_mlp": self.bottom_mlp, "top_mlp": self.top_mlp}
        return {**{name: value for name, value in widths.items() if name in declared}, **self.model_options}

    @classmethod
    def from_flat(cls, settings: dict[str, Any]) -> "TrialConfig":
        """The configuration that `flat` wrote; what is no field of a trial is an option of its model or method."""
        fields = {name: value for name, value in settings.items() if name in cls.model_fields}
        others = {name: value for name, value in settings.items() if name not in cls.model_fields}
        of_model = MODELS[fields.get("model", DEFAULT)].options.model_fields
        return cls.model_validate(
            {
                **fields,
                "options": {name: value for name, value in others.items() if name not in of_model},
                "model_options": {name: value for name, value in others.items() if name in of_model},
            }
        )

    def curve(self) -> str:
        """What tells this configuration's learning curve from others, whatever its length.

        A step does not depend on how many steps there will be, so one configuration with fewer epochs has the
        first part of the same curve; unless its method has a schedule that does (`Options.depends_on_epochs`).
        """
        exclude = {"checkpoint_seconds"}
        if not METHODS[self.method].options(**self.options).depends_on_epochs:
            exclude.add("epochs")
        return json.dumps(self._told(exclude=exclude), sort_keys=True)

    def digest(self) -> str:
        """Eight hex digits that tell this configuration from others."""
        text = json.dumps(self._told(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _told(self, exclude: set[str] | None = None) -> dict[str, Any]:
        """All settings but those left at a default, which are newer than some digests: these stay what they were."""
        return self.model_dump(exclude=exclude, exclude_defaults=True)
