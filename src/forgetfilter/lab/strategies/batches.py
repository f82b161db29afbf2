"""Safe rows drawn again and again, for ways of training that need them beside noisy ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from forgetfilter.data.records import EncodedRow


def endless(rows: Sequence[EncodedRow], size: int, seed: int) -> Iterator[list[EncodedRow]]:
    """Batches of ``size`` rows, or of all where there are fewer.

    Every row comes up once before any comes up again, in a new order each time.
    """
    rng = np.random.default_rng(seed)
    size = min(size, len(rows))
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += rng.permutation(len(rows)).tolist()
        yield [rows[index] for index in waiting[:size]]
        del waiting[:size]


def drawn(rows: Sequence[EncodedRow], count: int, seed: int) -> list[EncodedRow]:
    """``count`` rows, in which each comes up as often as any other, or once more."""
    singles = endless(rows, 1, seed)
    return [batch[0] for batch in islice(singles, count)]
