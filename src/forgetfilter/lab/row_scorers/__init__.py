"""Scorers of rows, a file each or a few alike together; the registry finds them by itself."""

from forgetfilter.lab.row_scorers.base import (
    ROW_SCORERS,
    Given,
    Needs,
    Passes,
    RowScorer,
    RowScores,
    build_scorer,
    judged,
    lowest_first,
)

__all__ = [
    "ROW_SCORERS",
    "Given",
    "Needs",
    "Passes",
    "RowScorer",
    "RowScores",
    "build_scorer",
    "judged",
    "lowest_first",
]
