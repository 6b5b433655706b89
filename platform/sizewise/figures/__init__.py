"""A study as Plotly figures, for the dashboard and the report alike.

    accuracy_against_size(study).show()
    accuracy_against_iterations(study)
    tradeoff_3d(study)

Each figure is a pair: `_..._info(study)` gathers what is shown into a NamedTuple of tables, and
`_draw_...(info)` draws it, so that the data is tested without rendering. Every point carries
(trial_id, iteration) as customdata. `tradeoffs` has size, iterations and both; `searches` how a search went; `paper`
the report and figures for print; `elements` what figures share.
"""

from sizewise.figures.elements.axes import EFFORTS, SCORES, SIZES, Axes, Metric
from sizewise.figures.elements.chosen import chosen
from sizewise.figures.elements.style import CONFIG
from sizewise.figures.tradeoffs.iterations import accuracy_against_iterations
from sizewise.figures.tradeoffs.size import accuracy_against_size
from sizewise.figures.tradeoffs.tradeoff import tradeoff_3d
from sizewise.figures.trials import learning_curves, throughput

__all__ = [
    "CONFIG",
    "EFFORTS",
    "SCORES",
    "SIZES",
    "Axes",
    "Metric",
    "accuracy_against_iterations",
    "accuracy_against_size",
    "chosen",
    "learning_curves",
    "throughput",
    "tradeoff_3d",
]
