"""What people decided of a run's rows, as a threshold rule reads it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.runs.decisions import Decided
from forgetfilter.scoring.records import REVIEWED, Readings

_MEANT = {"remove": 1, "keep": 0}
_SAME = 0.9999
"""Likeness of a row to itself, up to rounding."""


def with_reviewed(
    readings: Readings, decided: Decided, opinion: FloatArray | None = None
) -> Readings:
    """The same with the column ``reviewed``.

    Args:
        readings: of the rows that were scored.
        decided: what people decided.
        opinion: where the scores to cut hold the likeness to rows known to be unsafe, that
            likeness, shape (N,). A removed row that is wholly like a known one is taken for one.
            It made the score and says nothing of it. Nor does what was decided before it: its
            unsafe rows are the known ones, so that harmless ones alone would be left.
    """
    places = {int(row): at for at, row in enumerate(readings.row)} if decided.latest else {}
    made = {
        places[row]: one for row, one in decided.latest.items() if row in places and one.decision
    }
    since = 0
    if opinion is not None:
        known = [at for at, one in made.items() if one.decision == "remove" and opinion[at] > _SAME]
        since = max((made[at].number for at in known), default=0)
    column: IntArray = np.full(len(readings), -1, dtype=np.int64)
    for at, one in made.items():
        if one.number > since or not one.number:  # without one, it is about to be written
            column[at] = _MEANT.get(str(one.decision), -1)
    columns = ChainMap({REVIEWED: column}, cast(Any, readings.columns))
    return Readings(readings.row, columns, readings.added)


def is_likeness(summary: Mapping[str, Any]) -> bool:
    """Whether the second opinion of a run is the likeness to rows known to be unsafe."""
    opinion = summary.get("second_opinion")
    return bool(opinion and opinion.get("kind") == "known_unsafe")


def has_likeness(summary: Mapping[str, Any]) -> bool:
    """Whether the score that is cut holds the likeness to rows known to be unsafe."""
    return bool(summary.get("joint")) and is_likeness(summary)
