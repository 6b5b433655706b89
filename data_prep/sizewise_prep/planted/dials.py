"""What can be turned in a planted world. The defaults behave like a real log of display-advertising clicks.

They decide how compressible the data is: a small pool can replace large tables only where the tables hold little
information for their size.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class Dials(BaseModel):
    """The settings of a planted world; each default is the calibrated one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zipf: Annotated[float, Field(ge=0, le=3)] = 1.0
    """Power of every token column's frequency curve: above 1 fewer values carry more rows; 0: all alike."""
    rarity_decay: Annotated[float, Field(ge=0, le=2)] = 0.0
    """A rare value's click effect shrinks as its frequency to this power. 0: rare values count in full."""
    factor_rank: Annotated[int, Field(ge=1, le=64)] = 4
    """Dimension of the latent factors behind pairwise interactions."""
    interactions: Annotated[float, Field(ge=0, le=5)] = 0.35
    """Strength of the pairwise interactions (their standard deviation in the logit is 0.6 of it)."""
    token_signal: Annotated[float, Field(ge=0, le=5)] = 0.79
    """Strength of the tokens' own effects."""
    integer_signal: Annotated[float, Field(ge=0, le=5)] = 1.0
    """Strength of the integers' own effects."""
    drift: Annotated[float, Field(ge=0, le=3.2)] = 0.0
    """Radians by which every token's effect has turned into an unrelated one at the end of the log."""
    missing: Annotated[float, Field(ge=0, le=1.3)] = 1.0
    """Factor on every column's share of missing values."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of labels drawn without a look at the row."""
    click_rate: Annotated[float, Field(gt=0, lt=1)] = 0.2565
    """Expected share of clicks."""
    vocabulary: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Factor on the number of values of every token column that has a million or more: longer or shorter tails."""

    @model_serializer(mode="wrap")
    def _written(self, default: SerializerFunctionWrapHandler) -> dict[str, int | float]:
        """Left out where it is 1, so that a log of these settings has the `truth.json` that it always had."""
        written: dict[str, int | float] = default(self)
        if self.vocabulary == 1:
            written.pop("vocabulary", None)
        return written
