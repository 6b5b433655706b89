"""What `truth.json` says: how logs were made, and the best that any model can do on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sizewise_core.errors import InputError, first_problem
from sizewise_core.names import PlainName
from sizewise_prep.planted.bayes import BayesMeter
from sizewise_prep.planted.columns.crosses import cross_names
from sizewise_prep.planted.columns.numbers import Numbers
from sizewise_prep.planted.columns.users import LIKED, LIKED_SHARE, Users
from sizewise_prep.planted.dials import TOPICS, Dials
from sizewise_prep.planted.output import Format
from sizewise_prep.planted.world import Chunk, World


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LogFile(_Frozen):
    """One raw file, by its name in the folder."""

    name: PlainName
    rows: int
    bytes: int
    sha256: str


class SplitTruth(_Frozen):
    """The figures of some consecutive rows.

    `bayes_*` are expectations under the true probabilities, `realised_*` their values on the labels as drawn.
    AUC is None where it is undefined (no rows, or only one kind of label); log-losses are in nats.
    """

    rows: int
    click_rate: float | None
    bayes_auc: float | None
    bayes_logloss: float | None
    realised_auc: float | None
    realised_logloss: float | None

    @staticmethod
    def measured(meter: BayesMeter) -> SplitTruth:
        """The figures of a meter."""
        return SplitTruth(
            rows=meter.rows,
            click_rate=meter.clicks / meter.rows if meter.rows else None,
            bayes_auc=meter.bayes_auc,
            bayes_logloss=meter.bayes_logloss,
            realised_auc=meter.realised_auc,
            realised_logloss=meter.realised_logloss,
        )


class CrossTruth(_Frozen):
    """A pair of token columns whose combination moves a click, and the deviation of that effect in the log-odds."""

    columns: tuple[str, str]
    deviation: float


class NumberTruth(_Frozen):
    """A real-valued column, whose effect is `linear * t + square * (t^2 - 1) / sqrt(2)`.

    `t` is the value, or its logarithm less `centre`; where the value is missing there is no effect.
    """

    of: Literal["value", "logarithm"]
    centre: float
    linear: float
    square: float


class ListTruth(_Frozen):
    """What a column of lists holds in all rows."""

    values: int
    longest: int
    empty: int


class UserTruth(_Frozen):
    """The population of users, and when their first and last rows are, in milliseconds since 1970."""

    users: int
    items: int
    topics: int
    liked_topics: int
    liked_share: float
    first_time: int
    last_time: int


class AddedTruth(_Frozen):
    """What dials added.

    Attributes:
        auc_without: by effect, the AUC that is to be expected of the true log-odds less this effect: what a model
            can reach that does not see it.
        crosses, numbers, lists, users: what there is to know of each; numbers and lists by the column's name.
    """

    auc_without: dict[str, float]
    crosses: list[CrossTruth]
    numbers: dict[str, NumberTruth]
    lists: dict[str, ListTruth]
    users: UserTruth | None


class Truth(_Frozen):
    """`truth.json`: how a folder of planted logs was made, and the best that any model can do on it.

    Attributes:
        intercept: the logit's constant, found from the click rate asked for.
        split: fractions of rows, in time order, that `splits` speaks of.
        bayes_auc, bayes_logloss: Bayes-optimal over all rows.
        splits: the same for each split, by name.
        format: of the files.
        added: what dials added, if anything.
    """

    schema_version: Literal[1] = 1
    seed: int
    rows: int
    dials: Dials
    compress: bool
    split: tuple[float, float, float]
    intercept: float
    click_rate: float
    bayes_auc: float
    bayes_logloss: float
    realised_auc: float | None
    realised_logloss: float
    splits: dict[str, SplitTruth]
    files: list[LogFile]
    # Left out where they say nothing, so that a log without them has the truth that it always had.
    format: Annotated[Format, Field(exclude_if=lambda form: form == "text")] = "text"
    added: Annotated[AddedTruth | None, Field(exclude_if=lambda added: added is None)] = None

    @staticmethod
    def load(folder: Path) -> Truth:
        """Read `folder/truth.json`. Raises InputError when it is absent or not what `generate` writes."""
        path = folder / "truth.json"
        try:
            return Truth.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path}: not found; it is beside logs made by `sizewise generate`") from None
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}; generate the logs anew") from None


class AddedMeter:
    """Watches what dials add while rows are made."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._without: dict[str, BayesMeter] = {}
        self._lists: dict[str, ListTruth] = {}
        self._times: list[int] = []

    def add(self, chunk: Chunk) -> None:
        """Count rows, which come in the order of the log."""
        for name, probability in chunk.without.items():
            meter = self._without.setdefault(name, BayesMeter())
            meter.add(chunk.probability, chunk.labels, ranked_by=probability)
        for name, column in chunk.added.items():
            if column.offsets is not None:
                lengths = np.diff(column.offsets)
                before = self._lists.get(name, ListTruth(values=0, longest=0, empty=0))
                self._lists[name] = ListTruth(
                    values=before.values + int(lengths.sum()),
                    longest=max(before.longest, int(lengths.max(initial=0))),
                    empty=before.empty + int((lengths == 0).sum()),
                )
        if "time" in chunk.added and len(chunk.labels):
            times = chunk.added["time"].values
            self._times = [*self._times[:1], int(times[0]), int(times[-1])]

    def truth(self) -> AddedTruth | None:
        """What was added; None where nothing was."""
        world, dials = self._world, self._world.dials
        if not dials.adds:
            return None
        pairs = cross_names(dials.crosses).values()
        numbers = [column for part in world.parts if isinstance(part, Numbers) for column in part.columns]
        users = next((part for part in world.parts if isinstance(part, Users)), None)
        return AddedTruth(
            auc_without={name: meter.bayes_auc or 0.5 for name, meter in self._without.items()},
            crosses=[CrossTruth(columns=(a, b), deviation=dials.cross_signal) for a, b in pairs],
            numbers={
                column.name: NumberTruth(
                    of=column.of, centre=column.centre, linear=column.linear, square=column.square
                )
                for column in numbers
            },
            lists=self._lists,
            users=users
            and UserTruth(
                users=users.users,
                items=users.items,
                topics=TOPICS,
                liked_topics=LIKED,
                liked_share=LIKED_SHARE,
                first_time=self._times[0],
                last_time=self._times[-1],
            ),
        )
