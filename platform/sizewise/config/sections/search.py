"""`search`: what is searched unless another section says so."""

import math

from pydantic import model_validator

from sizewise.config.fields import (
    Choices,
    Range,
    Searchable,
    SearchableSize,
    SizeRange,
    by_default,
    ends_of,
    parse_size,
)
from sizewise.config.sections.section import Section


class SearchSpec(Section):
    """What is searched. Leave a field out for its default; give one value to fix it."""

    memory_budget: SearchableSize = by_default(SizeRange(low="10000x", high="1x"))
    learning_rate: Searchable[float] = by_default(Range(low=0.003, high=0.3, log=True))
    epochs: Searchable[int] = by_default(Range(low=1, high=4))

    @model_validator(mode="after")
    def _possible(self) -> "SearchSpec":
        for field in ("learning_rate", "epochs"):
            for value in ends_of(getattr(self, field)):
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                    raise ValueError(f"{field}: must be a number above 0, not {value!r}")
                if field == "epochs" and not isinstance(value, int):
                    raise ValueError(f"epochs: must be a whole number, not {value!r}")
        if isinstance(self.memory_budget, Choices):
            for value in self.memory_budget.choices:
                parse_size(value)
        return self
