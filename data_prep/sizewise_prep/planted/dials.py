"""What can be turned in a planted world. The defaults behave like a real log of display-advertising clicks.

They decide how compressible the data is: a small pool can replace large tables only where the tables hold little
information for their size.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

TOPICS = 40
"""Of items that users are shown; each item is of one."""
_OPTIONS = {
    "crosses": ("cross_signal",),
    "numbers": ("number_signal",),
    "lists": ("list_signal", "list_length"),
    "users": ("user_signal", "items", "history"),
}
"""What adds columns or effects where it is above 0, and the dials that only then mean something."""


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

    crosses: Annotated[int, Field(ge=0, le=5)] = 0
    """Pairs of token columns whose combination has an effect that neither has alone."""
    cross_signal: Annotated[float, Field(ge=0, le=5)] = 0.8
    """Standard deviation of each pair's effect in the log-odds."""
    numbers: Annotated[int, Field(ge=0, le=100)] = 0
    """Real-valued columns."""
    number_signal: Annotated[float, Field(ge=0, le=5)] = 0.3
    """Strength of the effect of each."""
    lists: Annotated[int, Field(ge=0, le=26)] = 0
    """Columns of lists of tokens."""
    list_signal: Annotated[float, Field(ge=0, le=5)] = 1.0
    """Strength of the effect of each, which is the mean of its values'."""
    list_length: Annotated[int, Field(ge=1, le=200)] = 10
    """Values of the longest lists."""
    users: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Users who come back and like some topics; with them an item, the history of the last items, and the time."""
    user_signal: Annotated[float, Field(ge=0, le=5)] = 1.0
    """Strength of the effects of users, items and what users like."""
    items: Annotated[int, Field(ge=TOPICS, le=100_000_000)] = 10_000
    """Different items, rounded down to a multiple of the 40 topics."""
    history: Annotated[int, Field(ge=1, le=200)] = 20
    """Items of the longest histories."""

    @model_validator(mode="after")
    def _of_use(self) -> Dials:
        for what, options in _OPTIONS.items():
            for option in options:
                if (
                    not getattr(self, what)
                    and getattr(self, option) != type(self).model_fields[option].default
                ):
                    raise ValueError(f"{option} means something only with {what}: give {what}, too")
        return self

    @property
    def adds(self) -> bool:
        """Whether there is anything beside Criteo's columns and their effects."""
        return any(getattr(self, what) for what in _OPTIONS)

    @model_serializer(mode="wrap")
    def _written(self, default: SerializerFunctionWrapHandler) -> dict[str, int | float]:
        """Without what is not used, so that a log without it has the `truth.json` that it always had."""
        written: dict[str, int | float] = default(self)
        if self.vocabulary == 1:
            written.pop("vocabulary", None)
        for what, options in _OPTIONS.items():
            if not getattr(self, what):
                for name in (what, *options):
                    written.pop(name, None)
        return written
