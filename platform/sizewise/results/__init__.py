"""A study's folder read as two tables, and the answers that they hold.

    study = load(Path("runs"), "quickstart")
    study.trials, study.evaluations     # Polars tables: a row a trial, a row an evaluation
    study.front                         # the Pareto front over evaluations
    answer(study).sentence              # "The smallest model within 0.002 AUC of the best ..."
    choose(study, max_bytes=100_000)    # the best model that fits

Reading never changes a study and never fails on a damaged file: what could not be read is a line in
`study.problems`. Every choice here rests on the validation split; test scores are only a column.

`files` and `columns` have what `reading` puts into the tables, `decision` says which model to take, and `quality` how
good the search was.
"""

from sizewise.results.decision.answering import Answer, answer, lost
from sizewise.results.decision.choosing import Choice, Limits, choose
from sizewise.results.files.finding import names
from sizewise.results.quality.hypervolume import Hypervolume, hypervolume
from sizewise.results.reading import Study, TrialReport, fingerprint, load, trial_report
from sizewise.results.status import Point, Status, isolated, status, studies

__all__ = [
    "Answer",
    "Choice",
    "Hypervolume",
    "Limits",
    "Point",
    "Status",
    "Study",
    "TrialReport",
    "answer",
    "choose",
    "fingerprint",
    "hypervolume",
    "isolated",
    "load",
    "lost",
    "names",
    "status",
    "studies",
    "trial_report",
]
