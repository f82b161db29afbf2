"""The geometry of the report's charts: pure numbers, drawn by the page's template."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray, IntArray
from forgetfilter.runs.report.shown_text import count, number

_BINS, _TOGETHER = 60, 2**16
_LIMIT = 1e100
"""Scores are drawn as if no further from 0 than this, so that no difference overflows."""
_LEAST_HEIGHT = 1.0
"""Percent of the plot's height that a bar of a single row has at least."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in percent of its length."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Block:
    """One group's part of a bin; ``top`` and ``height`` in percent of the plot."""

    group: str
    top: float
    height: float


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of the histogram; ``left`` and ``width`` in percent of the plot."""

    left: float
    width: float
    interval: str
    counts: Mapping[str, int]
    blocks: tuple[Block, ...]

    @property
    def label(self) -> str:
        """What a pointer over the bin is told."""
        parts = [f"{value:,} {group}" for group, value in self.counts.items() if value]
        return f"{self.interval}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Stacked counts of scores. A bin holds the scores above its left and up to its right edge."""

    bins: tuple[Bin, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    threshold: Tick | None
    threshold_side: str | None
    """``left`` or ``right`` where the threshold lies beyond that end of the axis."""
    outside: int
    """How many scores lie beyond the axis; they are counted in its first and last bin."""
    not_drawn: int
    """How many scores are no finite number."""


def histogram(
    scores: FloatArray, groups: Mapping[str, BoolArray], threshold: float | None
) -> Histogram | None:
    """Bin ``scores``, stacked by ``groups``, with a bin edge on the threshold.

    Because of that edge no bin mixes scores from both sides of the threshold. A few far outliers
    don't stretch the axis. None where there is no finite score.

    Args:
        scores: shape (N,); those that are no finite number are counted, not drawn.
        groups: name to mask of shape (N,), bottom of the stack first.
        threshold: drawn as a line; None or not finite draws none.
    """
    is_finite = np.isfinite(scores)
    values = np.clip(scores[is_finite], -_LIMIT, _LIMIT)
    if len(values) == 0:
        return None
    cut = threshold if threshold is not None and math.isfinite(threshold) else None
    low, high = _range(values)
    side = None
    if cut is not None:
        span = high - low
        if low - span <= cut <= high + span:
            low, high = min(low, cut), max(high, cut)
        else:
            side = "left" if cut < low else "right"
    edges = _edges(low, high, anchor=0.0 if cut is None or side else cut)
    counts = {
        group: _counts_in_bins(values, mask[is_finite], edges) for group, mask in groups.items()
    }
    top = _axis_top(int(np.sum(list(counts.values()), axis=0).max()))
    width = 100 / (len(edges) - 1)
    bins = tuple(
        _bin(index, width, edges, {group: int(n[index]) for group, n in counts.items()}, top)
        for index in range(len(edges) - 1)
    )
    return Histogram(
        bins=bins,
        x_ticks=_x_ticks(float(edges[0]), float(edges[-1])),
        y_ticks=_y_ticks(top),
        threshold=None if cut is None else Tick(_position(cut, edges), number(cut)),
        threshold_side=side,
        outside=int(np.count_nonzero((values < edges[0]) | (values > edges[-1]))),
        not_drawn=int(np.count_nonzero(~is_finite)),
    )


def _counts_in_bins(values: FloatArray, is_counted: BoolArray, edges: FloatArray) -> IntArray:
    """How many of the counted values each bin holds; those beyond the edges in the outer bins."""
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for start in range(0, len(values), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        own = values[part][is_counted[part]]
        at = np.clip(np.searchsorted(edges, own, side="left") - 1, 0, len(edges) - 2)
        counts += np.bincount(at, minlength=len(counts))
    return counts


def nice_step(span: float, most: int) -> float:
    """The smallest round step (1, 2 or 5 times a power of ten) that needs ``most`` at most."""
    least = max(span / most, 1e-12)
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999999)


def _range(values: FloatArray) -> tuple[float, float]:
    """The axis: all scores, or all but far outliers, and never a single point."""
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(value) for value in np.quantile(values, (0.005, 0.995)))
    if inner_high > inner_low and high - low > 3 * (inner_high - inner_low):
        low, high = inner_low, inner_high
    pad = max(abs(low) * 1e-3, 1e-6)
    if high - low < pad:
        low, high = low - 0.5 * max(1.0, pad), high + 0.5 * max(1.0, pad)
    return low, high


def _edges(low: float, high: float, anchor: float) -> FloatArray:
    """Edges in round steps from ``anchor`` that span the range."""
    step = nice_step(high - low, _BINS)
    first = math.ceil((low - anchor) / step) - 1
    last = max(math.ceil((high - anchor) / step), first + 1)
    return anchor + step * np.arange(first, last + 1, dtype=np.float64)


def _bin(index: int, width: float, edges: FloatArray, counts: Mapping[str, int], top: float) -> Bin:
    blocks: list[Block] = []
    ceiling = 100.0
    for group, value in counts.items():
        if value:
            height = max(100 * value / top, _LEAST_HEIGHT)
            ceiling -= height
            blocks.append(Block(group, ceiling, height))
    interval = f"{number(float(edges[index]))} to {number(float(edges[index + 1]))}"
    return Bin(index * width, width, interval, dict(counts), tuple(blocks))


def _position(value: float, edges: FloatArray) -> float:
    share = (value - float(edges[0])) / float(edges[-1] - edges[0])
    return 100 * min(max(share, 0.0), 1.0)


def _x_ticks(low: float, high: float) -> tuple[Tick, ...]:
    step = nice_step(high - low, 6)
    first = math.ceil(low / step - 1e-9)
    values = [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return tuple(
        Tick(100 * (value - low) / (high - low), _axis_label(value, digits)) for value in values
    )


def _axis_label(value: float, digits: int) -> str:
    if abs(value) >= 1e6 or digits > 5:
        return f"{value:.1e}".replace("-", "−", 1) if value else "0"
    # Adding zero turns the negative zero of rounding into zero.
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")


def _axis_top(highest: int) -> float:
    """The count at the upper end of the axis: round, and a little above the highest bar."""
    step = max(nice_step(highest, 6), 1)
    return step * max(math.ceil(highest * 1.04 / step), 1)


def _y_ticks(top: float) -> tuple[Tick, ...]:
    step = max(nice_step(top, 6), 1)
    return tuple(
        Tick(100 - 100 * step * k / top, count(step * k)) for k in range(int(top / step + 1e-9) + 1)
    )
