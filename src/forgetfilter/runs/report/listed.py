"""Which rows the page lists: every removed one, the nearest kept ones, and those not used."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import FloatArray
from forgetfilter.runs.reading import ScoreTable
from forgetfilter.runs.report.shown_rows import by_score, highest
from forgetfilter.scoring.thresholds.base import IS_UNLIKE

KEPT_LISTED = 200
"""Rows below the threshold that are listed, nearest first."""
UNLIKE_LISTED = 1000
"""Kept rows that stand out, and are unlike those removed."""
UNDECIDED_LISTED = 1000
"""Where nothing is decided, the most forgotten rows are listed."""
REJECTED_LISTED = 5000
DESCRIBED_LISTED = 10
"""Rows furthest along a harm that was named in words, whatever was decided of them."""
REMOVED_LISTED = 250_000
"""A browser can't scroll further than some 30 million pixels."""


def listed_rows(
    table: ScoreTable, judged: FloatArray, also: Iterable[int] = ()
) -> npt.NDArray[np.int64]:
    """Positions of the listed rows: by score, highest first, then those without one.

    Args:
        table: all rows.
        judged: scores of shape (N,), NaN for rows that could not be judged.
        also: further positions, such as those of rows that a reviewer has overruled.
    """
    score = table.cut_by
    is_listed = np.zeros(len(score), dtype=np.bool_)
    removed = np.flatnonzero(table.decision == "removed")
    is_listed[by_score(score, removed)[:REMOVED_LISTED]] = True
    unlike = np.where(table.reason == IS_UNLIKE, judged, np.nan)
    is_listed[highest(unlike, UNLIKE_LISTED)] = True
    for decision, most in (("kept", KEPT_LISTED), ("undecided", UNDECIDED_LISTED)):
        is_listed[highest(np.where(table.decision == decision, judged, np.nan), most)] = True
    is_listed[np.flatnonzero(table.decision == "rejected")[:REJECTED_LISTED]] = True
    is_listed[list(also)] = True
    return by_score(score, np.flatnonzero(is_listed))


def furthest_along(table: ScoreTable) -> list[int]:
    """Positions of the rows furthest along a harm that was named in words; none where none was."""
    described = table.quantities.get("described_harm")
    if described is None:
        return []
    return highest(described, DESCRIBED_LISTED).tolist()
