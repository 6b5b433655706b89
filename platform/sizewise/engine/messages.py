"""What a trial's workers report to the driver, one message each. Imports nothing that takes time.

    Waiting                     there is no room for the trial's workers yet
    Started, Resumed            a worker trains, from the beginning or from a checkpoint
    Evaluated                   one more row of its curve: the worker waits for the reply, whether to go on
    Finished or Failed          always the last

A worker sends them through the `Mailbox` of its group; `TrialActor` hands them to Ray Tune, which takes flat
dictionaries only (`to_result`), and `EngineSearcher` reads them there (`from_result`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypedDict

from sizewise.metrics.evaluation import Evaluation, TestScores, as_rows, from_rows
from sizewise.training.how import How
from sizewise_core.files.sealed import JsonObject

_KEY = "message"  # of Tune's results


class Resources(TypedDict):
    """What a trial's workers ask for: the study file's section, with `gpus_per_worker` a number."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float


class Assignment(TypedDict, total=False):
    """What a worker needs to train a trial. Plain values: Tune copies it, and writes it to files of its own."""

    config: Mapping[str, Any]  # a `TrialConfig`
    folder: str
    resources: Resources
    uses: Mapping[str, float]
    how: How
    attempt: str  # names it, as no other attempt was named
    logs: str  # the folder of Ray Train's own files
    credentials: Mapping[str, str]  # environment variables


class Ending(NamedTuple):
    """How a trial ended early, and why, in one line; `failures` says what the kinds mean."""

    kind: Literal["failed", "lost", "paused"]
    reason: str


@dataclass(frozen=True)
class Waiting:
    """A trial's workers have no room on the cluster yet. Sent once for each group of workers."""

    resources: str  # what they ask for, in words


@dataclass(frozen=True)
class Started:
    """The worker of rank 0 has begun a trial."""

    pid: int
    node: str  # Ray's id of its node
    memory_kills: int  # how many processes that machine's kernel had killed for want of memory by then
    # The `TrialActor` that owns the worker, which fills these in.
    actor_pid: int = 0
    actor_node: str = ""


@dataclass(frozen=True)
class Resumed:
    """There was a checkpoint to go on from, or a damaged one."""

    evaluations: Sequence[Evaluation]  # all those in the checkpoint
    damage: Sequence[str]  # what could not be read, a sentence each


@dataclass(frozen=True)
class Evaluated:
    """The model was evaluated."""

    evaluation: Evaluation


@dataclass(frozen=True)
class Finished:
    """The trial was trained to its end, or pruned."""

    evaluations: Sequence[Evaluation]  # all of them
    test: TestScores | None  # scores of its best model
    pruned: str = ""  # why it was stopped before its last iteration, if it was


@dataclass(frozen=True)
class Failed:
    """An error ended the trial, which the engine may start again."""

    ending: Ending
    traceback: str = ""


Message = Waiting | Started | Resumed | Evaluated | Finished | Failed
_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Waiting, Started, Resumed, Evaluated, Finished, Failed)
}


def to_result(message: Message) -> JsonObject:
    """A message as a result of Ray Tune's, which flattens dictionaries and leaves lists as they are."""
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    plain = {name: _WRITTEN[name](value) if name in _WRITTEN else value for name, value in values.items()}
    return {_KEY: [type(message).__name__, plain], "done": isinstance(message, Finished | Failed)}


def from_result(result: Mapping[str, Any] | None) -> Message | None:
    """The message in a result of Ray Tune's; None where there is none, as when an actor died."""
    if not result or _KEY not in result:
        return None
    name, values = result[_KEY]
    return _KINDS[name](**{name: _READ[name](v) if name in _READ else v for name, v in values.items()})


# How fields that are no plain values go into a result, and come out of it.
_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "evaluation": Evaluation.as_row,
    "evaluations": as_rows,
    "test": lambda scores: scores and scores.as_row(),
}
_READ: dict[str, Callable[[Any], Any]] = {
    "evaluation": Evaluation.from_row,
    "evaluations": from_rows,
    "test": lambda row: row and TestScores.from_row(row),
}
