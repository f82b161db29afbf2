"""Learning on a sample: which rows the learn phase is given where ``learn.max_rows`` bounds them.

The seed draws rows by their places, each with the same probability: what a row says does not move
whether it is drawn, so that nobody can write rows that are left out, and rows of ``trusted_data``
are drawn as the others are, for a rule that compares them with these holds only then. With another
bound and the same seed the smaller sample is part of the larger one.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.state import phase_seed
from forgetfilter.scoring.records import SAMPLED, Readings


def rows_to_learn(rows: Sequence[EncodedRow], most: int | None, seed: int) -> Sequence[EncodedRow]:
    """The rows that the learn phase is given, in their order; ``rows`` itself where that is all.

    Args:
        rows: all rows that can be scored.
        most: how many may be learned; None: all.
        seed: of the screen; draws them.
    """
    if most is None or most >= len(rows):
        return rows
    order = np.random.default_rng(phase_seed(seed, "sample")).permutation(len(rows))
    return chosen(rows, np.sort(order[:most]))


def with_sample(readings: Readings, learned: Sequence[EncodedRow]) -> Readings:
    """The same with the column ``is_sampled``, where fewer rows than these were learned.

    Args:
        readings: of all rows.
        learned: the rows that the learn phase was given.
    """
    if len(learned) == len(readings):
        return readings
    drawn = np.fromiter((row.row for row in learned), np.int64, len(learned))
    column = {SAMPLED: np.isin(readings.row, drawn)}
    return Readings(readings.row, ChainMap(column, cast(Any, readings.columns)))


def learned_of(readings: Readings) -> dict[str, int]:
    """How many rows the learn phase was given, as the summary says it; nothing where all were."""
    return {"learned_rows": int(readings.was_given.sum())} if SAMPLED in readings else {}
