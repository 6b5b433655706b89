"""The study's answer in words: which model, against what, and how sure that is."""

import math

import polars as pl

from sizewise.metrics.scores import SMALL
from sizewise.results.decision.choosing import EPSILON, Point, failed_seeds, iterations_text, near
from sizewise.results.decision.intervals import Interval
from sizewise.results.decision.more_rows import MoreRows
from sizewise.results.reading import Study
from sizewise_core.units import format_auc, format_bytes, format_ratio


def lost_text(loss: Interval) -> str:
    """A difference in words, and what its interval rests on where that is not the usual."""
    how = {"paired": "", "independent": ", the two taken for independent", "unknown": ""}[loss.basis]
    seeds = f", seeds differing by {loss.seeds_error:.4f}" if loss.seeds_error else ""
    return f"AUC {loss.text}{how}{seeds}"


def uncertainty(
    study: Study, loss: Interval, tolerance: float, more: MoreRows, confident: bool = False
) -> str:
    """That the validation split is too small for the answer to be taken at its word, where it is.

    Args:
        study: the answer's.
        loss: what it loses.
        tolerance: what it may lose.
        more: whether more validation rows would tell.
        confident: whether the answer had to be sure, so that it allows for chance by itself.
    """
    rows = study.record.data.rows.validation
    it = "it" if more.loss == loss else "a smaller one"
    unsure = f" {rows:,} validation rows do not tell whether {it} loses more than {tolerance:g}"
    if more.enough:
        return f"{unsure}: about {more.enough:,} would be enough."
    if more.hindrance == "seeds":
        return f"{unsure}, and more of them would not: more replicates are what would tell."
    if more.hindrance == "estimate":
        way = "more than that" if more.loss.value < -tolerance - EPSILON else "as much as that"
        return f"{unsure}, and no number of them would: by the estimate {it} loses {way}."
    if loss.basis == "paired" and (loss.rows_error or confident):
        return ""  # the answer's own interval has said it; without one, where the answer is the best, this is left
    error = study.record.data.auc_error
    if not SMALL < error < math.inf:
        return ""
    return (
        f" With {rows:,} validation rows, differences below about {error:.2g} may be chance: that is the standard "
        "error of an AUC."
    )


def sentence_within(
    study: Study, best: Point, found: Point, tolerance: float, wanted: str, confident: bool, met: bool
) -> str:
    """The sentence of an answer that has to keep to limits, or be sure.

    Args:
        study: the answer's.
        best: the model of the highest AUC.
        found: the answer.
        tolerance: what it may lose.
        wanted: the limits in words; "" for none.
        confident: whether it has to be sure.
        met: whether it loses so little.
    """
    size = format_bytes(found.size) + (f" in {found.stored_as}" if found.stored_as else "")
    against = f"the best ({format_auc(best.auc)}, {format_bytes(best.size)})"
    among = f" with {wanted}" if wanted else ""
    surely = "surely " if confident else ""
    if not met:
        return (
            f"No model{among} {surely}loses at most {tolerance:g} AUC to {against}. The most accurate one is {size} "
            f"(AUC {format_auc(found.auc)})."
        )
    if confident and found == best:
        return f"No smaller model{among} surely loses at most {tolerance:g} AUC to {against}: it is the answer itself."
    smaller = f": {_smaller(best.size / found.size)}" if best.size > found.size else ""
    return (
        f"The smallest model{among} that {surely}loses at most {tolerance:g} AUC to {against} is {size} "
        f"(AUC {format_auc(found.auc)}){smaller}."
    )


def sentence(study: Study, best: Point, smallest: Point, tolerance: float) -> str:
    """The sentence of the usual answer.

    Args:
        study: the answer's.
        best: the model of the highest AUC.
        smallest: the answer.
        tolerance: what it may lose.
    """
    weight, auc = format_bytes(smallest.size), format_auc(smallest.auc)
    weight += f" in {smallest.stored_as}" if smallest.stored_as else ""
    full = study.record.data.full_bytes
    against_full = ""
    if full and full > smallest.size:
        against_full = f", {format_ratio(full / smallest.size)} smaller than the full tables"
    alone = ""
    if study.candidates["trial_id"].n_unique() == 1:
        alone = f"Only one trial has been evaluated{'' if study.state == 'finished' else ' so far'}: "
    if alone and smallest == best:
        found = f"AUC {auc} at {weight} after {iterations_text(best.iteration)}"
        return f"{alone}{found}{against_full}."
    if smallest == best:
        others = near(study.candidates, tolerance)
        rest = "no other model" if others["trial_id"].n_unique() == 1 else "no smaller model"
        said = (
            f"The best model (AUC {format_auc(best.auc)}, {weight}) is also the smallest: {rest} comes "
            f"within {tolerance:g} AUC of it{against_full.replace(', ', '; it is ', 1)}."
        )
    else:
        said = (
            f"The smallest model within {tolerance:g} AUC of the best ({format_auc(best.auc)}, "
            f"{format_bytes(best.size)}) is {weight} (AUC {auc}): {_smaller(best.size / smallest.size)}"
            f"{_for_iterations(smallest, best)}"
        )
        # Where the best model is about as large as the full tables, it has been said already.
        said += f"{against_full.replace(', ', ', and ', 1)}." if full and full > 1.1 * best.size else "."
    if failed := failed_seeds(study, smallest):
        said = f"{said[:-1]}{failed}."
    if alone:
        return f"{alone}{said[0].lower()}{said[1:]}"
    if study.state == "finished":
        return said
    done = study.trials.filter(pl.col("state").is_in(["finished", "pruned"])).height
    asked = study.record.trials or study.trials.height
    return f"So far, with {done} of {asked} trials finished, {said[0].lower()}{said[1:]}"


def _for_iterations(smallest: Point, best: Point) -> str:
    """How many iterations the smaller one took; nothing where the learning rate of only one of both had fallen."""
    if smallest.cooled_down != best.cooled_down:
        return ""
    iterations = smallest.iteration / best.iteration if best.iteration else 1.0
    cost = "the same number of" if f"{iterations:.3g}" == "1" else f"{_short(iterations)} the"
    return f", for {cost} iterations"


def _smaller(ratio: float) -> str:
    """How much smaller a model is; one that is nearly as large by its percent."""
    return f"{_short(ratio)} smaller" if ratio >= 1.095 else f"{100 - 100 / ratio:.2g} % smaller"


def _short(ratio: float) -> str:
    """Two significant digits up to ten: one run of a stochastic search does not support a third."""
    return format_ratio(float(f"{ratio:.2g}") if ratio < 10 else ratio)
