"""Which rows the page lists: every removed one, the nearest kept ones, and those not used."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import FloatArray
from forgetfilter.runs.reading import ScoreTable

KEPT_LISTED = 200
"""Rows below the threshold that are listed, nearest first."""
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
    is_removed = table.decision == "removed"
    order = _by_score(np.where(is_removed, score, np.nan))
    is_listed[order[is_removed[order]][:REMOVED_LISTED]] = True
    for decision, most in (("kept", KEPT_LISTED), ("undecided", UNDECIDED_LISTED)):
        of_these = np.where(table.decision == decision, judged, np.nan)
        order = _by_score(of_these)[:most]
        is_listed[order[~np.isnan(of_these[order])]] = True
    is_listed[np.flatnonzero(table.decision == "rejected")[:REJECTED_LISTED]] = True
    is_listed[list(also)] = True
    order = _by_score(score)
    return order[is_listed[order]]


def furthest_along(table: ScoreTable) -> list[int]:
    """Positions of the rows furthest along a harm that was named in words; none where none was."""
    described = table.quantities.get("described_harm")
    if described is None:
        return []
    order = _by_score(described)[:DESCRIBED_LISTED]
    return order[~np.isnan(described[order])].tolist()


def _by_score(scores: FloatArray) -> npt.NDArray[np.int64]:
    """Positions by score, highest first; ties in file order, NaN last."""
    order: npt.NDArray[np.int64] = np.argsort(-scores, kind="stable")
    return order
