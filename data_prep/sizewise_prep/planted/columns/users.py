"""Users who come back: a `user`, the `item` shown, the `history` of the user's last items, and the `time`.

Users come in tiers: half of them once a round, a quarter twice, and so on up to 16 times; a round is as many rows as
that makes, in an order of its own. So the row of any visit can be computed, and with it the visits before it: a history
is that of the log, though nothing is remembered. Each user likes a few of 40 topics and is shown items of these more
often; an item of a liked topic is clicked more often, too. Times are milliseconds since 1970, from 1 May 2024 on,
and end 30 days later however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sizewise_prep.planted.columns.added import Made, Rows, Values
from sizewise_prep.planted.columns.ranks import Column
from sizewise_prep.planted.dials import TOPICS, Dials
from sizewise_prep.planted.integers import Ints
from sizewise_prep.planted.randomness import Stream, Words, counters, key, normals, uniforms
from sizewise_prep.planted.text import token_key, tokens

TIERS = 5  # of tier t each user comes 2^t times a round
LIKED = 3  # topics that a user likes
LIKED_SHARE = 0.6  # of the items shown are of these
BEGIN, SPAN = 1_714_521_600_000, 30 * 24 * 3_600_000  # milliseconds
USER_EFFECT, ITEM_EFFECT, LIKED_EFFECT = 0.4, 0.5, 1.5
Step = Callable[[Words, npt.NDArray[np.bool_]], Words]


class Users:
    """As many users as the dial says."""

    def __init__(self, seed: int, dials: Dials) -> None:
        self.users, self.items, self.history = dials.users, dials.items // TOPICS * TOPICS, dials.history
        self.signal = dials.user_signal
        self.visits = Visits(dials.users, key(seed, Stream.USERS, 0))
        self._popularity = Column(np.zeros(1), self.items // TOPICS, exponent=1.0, offset=10.0)
        self._of_user = [key(seed, Stream.USERS, use) for use in (1, 2)]
        self._likes = [key(seed, Stream.USERS, 3, which) for which in range(LIKED)]
        self._of_item = [key(seed, Stream.ITEMS, use) for use in range(5)]
        self._time = key(seed, Stream.USERS, 4)
        self._keys = (
            token_key(seed, Stream.USERS, 5, values=self.users),
            token_key(seed, Stream.ITEMS, 5, values=self.items),
        )

    def make(self, rows: Rows) -> Made:
        """The four columns, and the effects of users and items and of what users like."""
        user, visit = self.visits.of(rows.numbers)
        liked = self.liked(user)
        item = self.shown(user, visit, liked)
        likes = (liked == (item - 1) % TOPICS).any(axis=0)
        own = USER_EFFECT * normals(counters(user, self._of_user[1]))
        own += ITEM_EFFECT * normals(counters(item, self._of_item[4]))
        columns = {
            "user": Values(self._tokens(user + 1, 0)),
            "item": Values(self._tokens(item, 1)),
            "history": self._history(user, visit, liked),
            "time": Values(self._times(rows)),
        }
        effects = {"users": own, "interests": LIKED_EFFECT * (likes - LIKED_SHARE)}
        return Made(columns, {name: self.signal * effect for name, effect in effects.items()})

    def liked(self, user: Ints) -> Ints:
        """The topics that users like, (`LIKED`, users)."""
        words = counters(user, self._of_user[0])
        return np.stack([uniforms(words, stream) * TOPICS for stream in self._likes]).astype(np.int64)

    def shown(self, user: Ints, visit: Ints, liked: Ints) -> Ints:
        """The items that users are shown.

        Args:
            user: (visits,), counted from 0.
            visit: (visits,), how many visits the user had before.
            liked: (`LIKED`, visits), what the user likes.

        Returns:
            (visits,), counted from 1, the most popular items of the topics first.
        """
        words = counters(user, self._of_item[0]) ^ counters(visit, self._of_item[1])
        which, rank = uniforms(words, self._of_item[2]), uniforms(words, self._of_item[3])
        of_liked = np.minimum((which / LIKED_SHARE * LIKED).astype(np.int64), LIKED - 1)
        of_any = ((which - LIKED_SHARE) / (1 - LIKED_SHARE) * TOPICS).astype(np.int64)
        chosen = np.take_along_axis(liked, of_liked[None], axis=0)[0]
        topic = np.where(which < LIKED_SHARE, chosen, np.minimum(of_any, TOPICS - 1))
        return np.asarray((self._popularity.ranks(rank) - 1) * TOPICS + topic + 1)

    def _history(self, user: Ints, visit: Ints, liked: Ints) -> Values:
        """The items of the visits before, the latest last."""
        lengths = np.minimum(visit, self.history)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        owner = np.repeat(np.arange(len(user)), lengths)
        earlier = visit[owner] - lengths[owner] + np.arange(offsets[-1]) - offsets[:-1][owner]
        items = self.shown(user[owner], earlier, liked[:, owner])
        return Values(self._tokens(items, 1), offsets=offsets)

    def _tokens(self, ranks: Ints, which: int) -> npt.NDArray[np.uint32]:
        return tokens(ranks[None], np.array([self._keys[which]], np.uint32)).reshape(-1)

    def _times(self, rows: Rows) -> Ints:
        within = uniforms(rows.words, self._time) * 0.999 / rows.count
        return BEGIN + ((rows.time + within) * SPAN).astype(np.int64)


class Visits:
    """Which user comes in a row, and how often before.

    Attributes:
        round: rows of a round.
    """

    def __init__(self, users: int, stream: np.uint64) -> None:
        counts = [users >> tier + 1 for tier in range(TIERS - 1)]
        self._counts = np.array([*counts, users - sum(counts)])
        self._slots = np.concatenate([[0], np.cumsum(self._counts << np.arange(TIERS))])
        self._users = np.concatenate([[0], np.cumsum(self._counts)])
        self.round = int(self._slots[-1])
        self._order = Order(self.round, stream)

    def of(self, numbers: Words) -> tuple[Ints, Ints]:
        """Users and how many visits each had before, both counted from 0, of rows by their numbers."""
        rounds, position = (part.astype(np.int64) for part in np.divmod(numbers, np.uint64(self.round)))
        slot = self._order.slots(position, rounds)
        tier = np.searchsorted(self._slots, slot, side="right") - 1
        times, within = 1 << tier, slot - self._slots[tier]
        user = self._users[tier] + within // times
        visit, first = rounds * times, slot - within % times
        for other in range(1 << (TIERS - 1)):
            also = np.flatnonzero(times > other)
            if also.size:
                positions = self._order.positions(first[also] + other, rounds[also])
                visit[also] += positions < position[also]
        return user, visit


class Order:
    """For each round another order of the numbers below `size`, of which any place can be computed.

    Multiplications by odd numbers, additions and shifts are bijections of the numbers below a power of two; those
    that lead out of the numbers below `size` are repeated until they do not.
    """

    _ODD = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

    def __init__(self, size: int, stream: np.uint64) -> None:
        self.size, self._stream = size, stream
        bits = max((size - 1).bit_length(), 2)
        self._mask, self._half = np.uint64((1 << bits) - 1), np.uint64((bits + 1) // 2)
        self._factors = [np.uint64(odd % (1 << bits)) for odd in self._ODD]
        self._inverses = [np.uint64(pow(odd, -1, 1 << bits)) for odd in self._ODD]

    def positions(self, slots: Ints, rounds: Ints) -> Ints:
        """Where slots come in their rounds."""
        added = self._added(rounds)

        def step(x: Words, which: npt.NDArray[np.bool_]) -> Words:
            for factor, add in zip(self._factors, added, strict=True):
                x = (x * factor + add[which]) & self._mask
                x = x ^ (x >> self._half)
            return x

        return self._walked(slots, step)

    def slots(self, positions: Ints, rounds: Ints) -> Ints:
        """Which slots come at positions of rounds."""
        added = self._added(rounds)

        def step(x: Words, which: npt.NDArray[np.bool_]) -> Words:
            for inverse, add in zip(self._inverses[::-1], added[::-1], strict=True):
                x = x ^ (x >> self._half)
                x = ((x - add[which]) * inverse) & self._mask
            return x

        return self._walked(positions, step)

    def _added(self, rounds: Ints) -> list[Words]:
        return [counters(rounds * 3 + number, self._stream) for number in range(3)]

    def _walked(self, start: Ints, step: Step) -> Ints:
        x = start.astype(np.uint64)
        outside = np.ones(len(x), np.bool_)
        while outside.any():
            x[outside] = step(x[outside], outside)
            outside = x >= np.uint64(self.size)
        return x.astype(np.int64)
