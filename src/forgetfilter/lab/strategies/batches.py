"""Safe rows drawn again and again, for ways of training that need them beside noisy ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from forgetfilter.data.records import EncodedRow


class Endless(Iterator[list[EncodedRow]]):
    """Batches of ``size`` rows, or of all where there are fewer.

    Every row comes up once before any comes up again, in a new order each time. ``taken`` says how
    many batches have been drawn before.
    """

    def __init__(self, rows: Sequence[EncodedRow], size: int, seed: int, taken: int = 0) -> None:
        self._rows, self.size, self.taken = rows, size, 0
        self._rng = np.random.default_rng(seed)
        self._waiting: list[int] = []
        for _ in range(taken):
            next(self)

    def __next__(self) -> list[EncodedRow]:
        """The next batch."""
        size = min(self.size, len(self._rows))
        while len(self._waiting) < size:
            self._waiting += self._rng.permutation(len(self._rows)).tolist()
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        self.taken += 1
        return [self._rows[index] for index in batch]

    def state(self) -> dict[str, int]:
        """By which `resumed` goes on."""
        return {"size": self.size, "taken": self.taken}


def endless(rows: Sequence[EncodedRow], size: int, seed: int) -> Endless:
    """Batches of ``size`` rows without end; see `Endless`."""
    return Endless(rows, size, seed)


def resumed(rows: Sequence[EncodedRow], state: Mapping[str, int], seed: int) -> Endless:
    """The batches that come after those that were drawn when ``state`` was asked for."""
    return Endless(rows, state["size"], seed, state["taken"])


def drawn(rows: Sequence[EncodedRow], count: int, seed: int) -> list[EncodedRow]:
    """``count`` rows, in which each comes up as often as any other, or once more."""
    singles = endless(rows, 1, seed)
    return [batch[0] for batch in islice(singles, count)]
