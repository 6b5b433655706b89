"""How a trial is trained, beside its configuration, as plain values. Imports nothing that takes time."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class How(TypedDict, total=False):
    """Further arguments of `training.loop.train`: plain values, for they pass through Ray.

    continues: the checkpoints of a shorter trial of the same curve, to begin with.
    stable: the checkpoints of trials that train alike until the learning rate falls, to begin with what they kept.
    lengths: the epochs of trials that may go on from this one, which keeps its state where their rate begins to fall.
    pruning: when to stop early: a `search.pruning.Comparison`.
    teacher: what a student learns from: a `teacher_sources.Source` each.
    """

    continues: str | None
    stable: Sequence[str]
    lengths: Sequence[int]
    pruning: Mapping[str, Any] | None
    teacher: Sequence[Mapping[str, Any]]
