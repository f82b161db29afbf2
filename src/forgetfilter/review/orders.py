"""Orders in which a reviewer reads rows, beside those by a column; shape (N,), lower = earlier."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.runs.file_names import READINGS_FILE
from forgetfilter.runs.parquet_parts import names_in
from forgetfilter.scoring.thresholds.reviewed import spread_over_scores
from forgetfilter.scoring.unlike_first import unlike_first
from forgetfilter.screening.deciding.tables import read_readings

_NEIGHBOURS_IN = "base"
"""The state in which rows are compared."""


def spread(score: FloatArray) -> FloatArray:
    """Each row's place in an order whose first rows are spread over the upper half of the scores.

    NaN where there is no score.
    """
    scored = np.flatnonzero(np.isfinite(score))
    return _places(scored[spread_over_scores(score[scored])], len(score))


def unlike(run: Path, row: IntArray, score: FloatArray) -> FloatArray:
    """Each row's place in an order of high scores that are unlike each other; see `unlike_first`.

    By score alone where the run's signal doesn't compare rows. NaN where there is no score.

    Args:
        run: a run folder.
        row: numbers of its rows, ascending, shape (N,).
        score: what is cut, NaN where there is none, shape (N,).
    """
    if not compares_rows(run):
        scored = np.flatnonzero(np.isfinite(score))
        return _places(scored[np.argsort(-score[scored], kind="stable")], len(score))
    readings = read_readings(run)
    at = np.searchsorted(row, readings.row)
    return _places(at[unlike_first(score[at], readings.neighbours(_NEIGHBOURS_IN))], len(score))


def compares_rows(run: Path) -> bool:
    """Whether a run knows which rows are alike."""
    return f"neighbour_0_{_NEIGHBOURS_IN}" in names_in(run / READINGS_FILE)


def _places(order: IntArray, rows: int) -> FloatArray:
    places = np.full(rows, np.nan)
    places[order] = np.arange(len(order))
    return places
