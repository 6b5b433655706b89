"""Logs in Criteo's layout with planted truth: every row's click probability is known, so every claim can be
tested.

    truth = generate(Path("data/planted"), rows=1_000_000, seed=1)
    truth.bayes_auc         # what the best possible model would reach on these rows

The rows behave like a real log of display-advertising clicks: marginals, missing values, dependence between
columns, and the way accuracy falls with the size of a model. `world` makes the rows; `Dials` are
what can be turned, and what columns and effects can be added.
"""

from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.generate import LogOptions, generate
from sizewise_prep.planted.output.schema_file import NAME as SCHEMA
from sizewise_prep.planted.output.truth import LogFile, SplitTruth, Truth
from sizewise_prep.planted.world import Chunk, World

__all__ = ["SCHEMA", "Chunk", "Dials", "LogFile", "LogOptions", "SplitTruth", "Truth", "World", "generate"]
