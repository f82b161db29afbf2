"""A threshold that follows from the scores alone: the emptiest place between kept and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import Cut, Readings
from forgetfilter.scoring.signals.base import NATS_PER_TOKEN
from forgetfilter.scoring.thresholds.base import HARMLESS_AT_MOST, THRESHOLDS

_BANDWIDTH = 0.15
"""Width of the density's kernel in log units: a score counts for places within about 15% of it."""
_GRID = 400
_PLACES_TOGETHER = 20
_HILL = 0.2
"""Share of the rows above a place from which on they are no tail of harmless ones."""
_PASSED = 0.05
"""Share of the rows that a hill has at least before the emptiest place: fewer are a few harmless
ones."""
_LEAST_BELOW = 0.25
"""Share of the judged rows below the cut from which on false removals are estimated."""


@THRESHOLDS.add("auto")
class Auto:
    """Cut where fewest rows are, between a score that is surely noise and one that surely is not.

    The density of the log-scores of learned rows is estimated with a Gaussian kernel, and the cut
    is its lowest place between ``low`` and ``high``. Where unsafe rows are, they form a second
    hill and the cut falls into the valley before it, wherever that hill begins. Where there are
    none, the density only falls, the cut is ``high`` (``low`` where no score comes near either),
    and next to nothing is removed: the rule knows when there is nothing to do because the score has
    a natural unit. In nats per token, 0.1 means that every token has become 10% less likely.

    No label is read and no share of unsafe rows is assumed. There is no guarantee; the measured
    error stands in docs/lab/signals.md. The expected number of false removals carries the tail
    of the kept rows on beyond the cut; a note says how many it would be with a longer tail.

    Args:
        low: scores up to this are never removed, in nats per token.
        high: scores above this are always removed, in nats per token.
    """

    name = "auto"
    units = frozenset({NATS_PER_TOKEN})

    def __init__(self, low: float = 0.05, high: float = 0.15) -> None:
        if not 0 < low < high < np.inf:
            raise ConfigError(
                f"auto: low is {low} and high is {high}; expected 0 < low < high, "
                "for example auto:low=0.05,high=0.15."
            )
        self.low, self.high = low, high

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """The lowest place of the density between ``low`` and ``high``."""
        is_open = is_eligible & ~readings.trusted
        return emptiest_cut(scores, is_eligible, self.low, self.high, is_open=is_open)


def emptiest_cut(
    scores: FloatArray,
    is_eligible: BoolArray,
    low: float,
    high: float,
    notes: Mapping[str, float] | None = None,
    reach: float = 0.0,
    placed_by: FloatArray | None = None,
    is_open: BoolArray | None = None,
    floor: float = 0.0,
) -> Cut:
    """The lowest place of the density of the log-scores between ``low`` and ``high``.

    Where that is ``high`` itself the cut goes on up as long as rows thin out, at most to ``reach``.
    Where a fifth of the rows or more are above ``low`` and the density rises from there, that is
    the hill of the unsafe rows, and the cut lies before its top; where the hill begins below
    ``low``, the cut goes on down as long as rows thin out, at most to ``floor``. Less than a
    twentieth of the rows, with a lower place beyond them, are no hill.

    Args:
        scores: forgetting scores, shape (N,).
        is_eligible: rows that place it, shape (N,).
        low: above 0, in the scores' unit, as ``high`` is.
        high: above ``low``.
        notes: what else is to be said about the cut.
        reach: in the scores' unit; nothing beyond ``high`` is looked at where it is no more.
        placed_by: the scores that place it, where these are others, shape (N,).
        is_open: the rows that may be removed, whose false removals are expected, where these are
            fewer, shape (N,).
        floor: in the scores' unit; 0: a hill is not looked for.
    """
    placed = (scores if placed_by is None else placed_by)[is_eligible]
    rising = placed[placed > 0]
    places = np.linspace(np.log(low), np.log(high), _GRID)  # (G,)
    density = _density(rising, places)
    at, top = int(np.argmin(density)), int(np.argmax(density))
    ends = (low, high)
    is_hill = floor > 0 and top > 0 and len(placed) and np.mean(placed > low) >= _HILL
    passed = (placed > low) & (placed <= np.exp(places[at]))
    if is_hill and (at == 0 or np.mean(passed) >= _PASSED):
        at = int(np.argmin(density[: top + 1]))
        if at == 0 and floor < low:
            ends = (floor, low)
            places, at = _onwards(rising, low, floor)
    elif at == _GRID - 1 and reach > high:
        ends = (low, reach)
        places, at = _onwards(rising, high, reach)
    # Rounding must not carry it outside.
    value = min(max(float(np.exp(places[at])), ends[0]), ends[1])
    judged = scores[is_eligible if is_open is None else is_open]
    rising = judged[judged > 0]
    # The tail is carried on from the rows below the cut; from hardly any nothing follows.
    lacks_estimate = bool(np.mean(judged <= value) < _LEAST_BELOW) if len(judged) else False
    told = {**(notes or {}), "searched_from": ends[0], "searched_to": ends[1]}
    if lacks_estimate:
        return Cut(value=value, lacks_estimate=True, notes=told)
    expected = _expected_above(rising, value)
    at_most = max(expected, _most_above(rising, value))
    return Cut(value, expected, notes={**told, HARMLESS_AT_MOST: at_most})


def _onwards(scores: FloatArray, start: float, end: float) -> tuple[FloatArray, int]:
    """Places from one to another, either way, and up to which of them rows thin out."""
    places = np.linspace(np.log(start), np.log(end), _GRID)
    is_down = end < start
    density = _density(scores, places[::-1])[::-1] if is_down else _density(scores, places)
    grows = np.diff(density) >= 0
    return places, int(np.argmax(grows)) if grows.any() else _GRID - 1


def _density(scores: FloatArray, places: FloatArray) -> FloatArray:
    """How many log-scores lie about each of some places, which are logarithms too, shape (G,)."""
    # Rows outside of the kernel's reach don't matter; a limit keeps the table small.
    low, high = np.exp(places[0]), np.exp(places[-1])
    near = np.log(scores[(scores > low / 4) & (scores < high * 8)])
    density = np.zeros(len(places))
    for part in np.array_split(near, len(near) // 10_000 + 1):
        for some in range(0, len(places), _PLACES_TOGETHER):  # the table of all of them is 32 MB
            own = slice(some, some + _PLACES_TOGETHER)
            far = (places[own, None] - part) / _BANDWIDTH
            density[own] += np.exp(-0.5 * far**2).sum(axis=1)
    return density


def _expected_above(scores: FloatArray, cut: float) -> float:
    """How many clean rows are above the cut, if their tail falls on as it falls up to it.

    The three quarters of the way up to the cut, past the first, are counted in three windows; their
    counts fall by a factor q from one to the next, and so does what lies beyond.
    """
    counts, _ = np.histogram(scores, bins=cut * np.array([0.25, 0.5, 0.75, 1.0]))
    return _beyond(counts, scores, cut)


def _most_above(scores: FloatArray, cut: float) -> float:
    """The same if the tail falls as a power does: by a factor from each doubling to the next.

    Requests that only look dangerous have such a tail: few rows, far out.
    """
    counts, _ = np.histogram(scores, bins=cut * np.array([0.125, 0.25, 0.5, 1.0]))
    return _beyond(counts, scores, cut)


def _beyond(counts: Any, scores: FloatArray, cut: float) -> float:
    """How many scores are above the cut if three counts before it go on falling as they fell."""
    first, second, third = (float(count) for count in counts)
    q = min((second + third + 0.5) / (first + second + 0.5), 0.9)
    start = counts.sum() / (1 + q + q**2)
    return float(min(start * q**3 / (1 - q), np.count_nonzero(scores > cut)))
