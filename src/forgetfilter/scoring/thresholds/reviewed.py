"""A cut where a row is unsafe with a given probability, by what people decided of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray, IntArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.decided_curve import DecidedCurve
from forgetfilter.scoring.records import REVIEWED, Cut, Readings
from forgetfilter.scoring.thresholds.base import RANKS, THRESHOLDS

FEWEST_DECISIONS = 10
"""Decisions without which nothing is fitted."""
_NAMED = 10
"""Rows that are named to be read."""


@THRESHOLDS.add("reviewed")
class Reviewed:
    """Cut where a row is unsafe with a probability of ``probability``, by what people decided.

    A logistic curve of the score is fitted to the rows that reviewers kept and removed
    (`DecidedCurve`). Rows above the score at which it has reached ``probability`` go. Whoever
    chooses rows to read by their scores, the highest or those nearest the cut, doesn't bend the
    curve; whoever searches for words does. The expected number of false removals is that of the
    curve, over the removed rows that nobody decided; so few decisions leave many curves possible,
    and the note ``harmless_range`` says between which numbers it lies with a probability of 0.9.

    With a joint score whose second opinion is the likeness to rows that were removed from this very
    run, decisions from before that likeness was measured don't count: those rows made the score.

    Where decided rows with higher scores aren't unsafe more often, nothing is removed.

    Args:
        probability: that a row at the cut is unsafe, above 0 and below 1.
    """

    name = "reviewed"
    units = None
    reads_decisions = True

    def __init__(self, probability: float = 0.7) -> None:
        if not 0 < probability < 1:
            raise ConfigError(
                f"reviewed: probability is {probability:g}; expected a number above 0 and below 1, "
                "for example reviewed:probability=0.7."
            )
        self.probability = probability

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """The score at which the curve through the decided rows reaches the probability.

        Raises:
            ConfigError: too few rows were decided, or all of them alike.
        """
        decided = np.full(len(scores), -1)
        if REVIEWED in readings:
            decided = np.where(is_eligible, readings[REVIEWED], -1)
        known, is_open = decided >= 0, is_eligible & (decided < 0) & ~readings.trusted
        is_unsafe = decided[known] == 1
        notes: dict[str, Any] = {"decided": int(known.sum())}
        notes["decided_unsafe"] = int(is_unsafe.sum())
        if notes["decided"] < FEWEST_DECISIONS or len(set(is_unsafe.tolist())) < 2:
            raise _too_few(notes, _to_read(scores, is_open, is_unsafe, readings.row))
        curve = DecidedCurve.through(scores[known], is_unsafe)
        if curve.slope <= 0:
            highest = float(scores[is_eligible].max())
            return Cut(value=highest, lacks_estimate=True, notes={**notes, RANKS: False})
        judged = scores[is_eligible]
        least = np.nextafter(judged.min(), -np.inf)
        value = float(np.clip(curve.score_at(self.probability), least, judged.max()))
        gone = scores[is_open & (scores > value)]
        notes["harmless_range"] = curve.range_among(gone)
        return Cut(value, expected_false_removals=curve.harmless_among(gone), notes=notes)


def spread_over(count: int) -> IntArray:
    """All places 0 to ``count - 1``, so ordered that the first few are spread over all of them.

    The bits of each place are read backwards (a van der Corput sequence).
    """
    bits = int(max(count - 1, 1)).bit_length()
    places = np.arange(count, dtype=np.int64)
    backwards = np.zeros(count, dtype=np.int64)
    for bit in range(bits):
        backwards |= ((places >> bit) & 1) << (bits - 1 - bit)
    return np.argsort(backwards, kind="stable")


def spread_over_scores(scores: FloatArray) -> IntArray:
    """Places of rows: the upper half first, and the first few of each half spread over it."""
    ranked = np.argsort(-scores, kind="stable")
    half = (len(ranked) + 1) // 2
    halves = (ranked[:half], ranked[half:])
    return np.concatenate([part[spread_over(len(part))] for part in halves])


def _to_read(
    scores: FloatArray, is_open: BoolArray, is_unsafe: BoolArray, row: IntArray
) -> list[int]:
    """Numbers of rows to be read first: spread over the scores, where both kinds may be."""
    places = np.flatnonzero(is_open)
    order, half = places[spread_over_scores(scores[places])], (len(places) + 1) // 2
    is_upper_unsafe = len(is_unsafe) >= FEWEST_DECISIONS and is_unsafe.all()
    part = order[half:] if is_upper_unsafe else order[:half]
    return [int(row[at]) for at in part[:_NAMED]]


def _too_few(notes: dict[str, Any], named: list[int]) -> ConfigError:
    unsafe, decided = notes["decided_unsafe"], notes["decided"]
    rows = ", ".join(f"#{row}" for row in named)
    message = (
        f"The rule reviewed cuts by what people decided of this run's rows, and {decided} of their "
        f"decisions can be used ({unsafe} to remove, {decided - unsafe} to keep). Expected "
        f"{FEWEST_DECISIONS} or more, of both kinds. Read some with `forgetfilter review`, in the "
        "order 'Spread over the scores', and decide them"
    )
    message += f" (for example {rows})" if rows else ""
    if decided >= FEWEST_DECISIONS and not unsafe:
        message += "; if the highest are harmless too, --threshold fraction:0 keeps all"
    return ConfigError(f"{message}, or name another rule.")
