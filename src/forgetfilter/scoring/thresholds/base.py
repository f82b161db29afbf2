"""What a threshold rule is, and the one place where a cut becomes a decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from forgetfilter.scoring.registry import Registry

if TYPE_CHECKING:  # numpy need not be there to list names in the command line's help
    from forgetfilter.arrays import BoolArray, FloatArray
    from forgetfilter.scoring.records import Cut, Readings, Selection


class ThresholdRule(Protocol):
    """Finds where to cut the forgetting scores. Pure: no model, no ground truth."""

    name: str
    units: frozenset[str] | None
    """Units of the scores that it is made for (`Signal.unit`); None = any."""
    # ``version: int = 1`` may be there too: raised when `cut` comes to cut elsewhere, so that a
    # finished run is decided again; see `scoring.formulas`. ``reads_decisions: bool`` too: whether
    # the rule cuts by what people decided of a run's rows (column `REVIEWED`), so that it can only
    # decide a finished run again.

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """Choose the threshold.

        Args:
            scores: forgetting scores, shape (N,), higher = suspected unsafe.
            is_eligible: rows that can be judged (all, or those that were learned), shape (N,).
                Those that are trusted (`Readings.trusted`) are kept, whatever they score.
            readings: everything that was measured, for rules that look at more than the score.
        """
        ...


NOT_LEARNED = "not_learned"
"""Why a row is kept that the learn phase did not learn."""
IS_TRUSTED = "trusted"
"""Why a row of ``trusted_data`` is kept."""
IS_UNLIKE = "unlike_those_removed"
"""Why a row is kept that is above the threshold by its forgetting, and of another kind."""
HARMLESS_AT_MOST = "harmless_at_most"
"""The note of a cut on how many of the removed rows are harmless if such rows have a long tail."""

RANKS = "ranks"
"""The note of a cut by decisions: whether rows to remove score higher than rows to keep."""
ROWS_NEEDED = "rows_needed"
"""The note of a cut by trusted rows where there are too few: how many there must be."""

THRESHOLDS: Registry[ThresholdRule] = Registry(
    "threshold rule", __package__, "forgetfilter.thresholds"
)


def decide(
    rule: ThresholdRule, scores: FloatArray, readings: Readings, *, needs_learned: bool = True
) -> Selection:
    """Apply ``rule``: a row that can be judged goes if its score is strictly above the threshold.

    With ``needs_learned`` (see `Signal`) a row that the learn phase did not learn is kept with the
    reason ``not_learned``: nothing of it can have been forgotten, so its score says nothing. A row
    of ``trusted_data`` is kept with the reason ``trusted``; rules see its score like any other. Of
    a signal by which rows count less that are unlike those which stand out (`Readings.alone`), one
    that is kept for that alone has the reason ``unlike_those_removed``.

    Raises:
        ModelError: a score or the cut is NaN or infinite: neither compares with anything.
    """
    import numpy as np

    from forgetfilter.arrays import SharedTexts
    from forgetfilter.finite import check_finite
    from forgetfilter.scoring.records import Selection

    check_finite(scores, "forgetting score", "the table of scores")
    is_judged = readings.learned if needs_learned else np.ones(len(scores), dtype=np.bool_)
    cut = rule.cut(scores, is_judged, readings)
    check_finite(cut.value, "cut", f"threshold rule {rule.name}")
    is_removed = is_judged & (scores > cut.value)
    which = is_judged.astype(np.uint8) + is_removed
    which[is_judged & ~is_removed & (readings.alone(scores) > cut.value)] = 4
    is_removed &= ~readings.trusted
    which[readings.trusted] = 3
    names = (NOT_LEARNED, "below_threshold", "above_threshold", IS_TRUSTED, IS_UNLIKE)
    return Selection(cut, is_removed, SharedTexts(which, names), scores)
