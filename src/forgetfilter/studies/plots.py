"""The geometry of a study's plots: pure numbers, drawn by the page's template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forgetfilter.charts import Tick, nice_step
from forgetfilter.studies.labels import number_places
from forgetfilter.studies.results import Mean
from forgetfilter.studies.tables import heading, is_share, shown_mean

_ROOM = 0.06
"""Share of an axis that stays free beyond the outermost point."""


@dataclass(frozen=True, slots=True)
class Span:
    """A number with its interval on an axis, all in percent of the axis's length."""

    at: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """One strategy; ``y`` counts from the top, as in SVG."""

    number: int
    strategy: str
    x: Span
    y: Span
    label: str
    """What a pointer over the point is told."""
    number_at: tuple[float, float]
    """Middle of its number, pixels from the point."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """One strategy per point, with its 95% intervals over seeds on both axes."""

    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One strategy's length with its interval, in percent of the axis."""

    strategy: str
    span: Span
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """The values between which a plot stands."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Where ``value`` lies, in percent of the axis; its nearer end for one beyond it."""
        share = (value - self.low) / (self.high - self.low)
        return 100 * min(max(share, 0.0), 1.0)


def scatter(summary: Sequence[Mean], x: str, y: str) -> Scatter | None:
    """Two metrics of one data set against each other; None where no strategy has both.

    Args:
        summary: the means of one data set.
        x: the metric that goes to the right.
        y: the metric that goes up.
    """
    across, up = by_strategy(summary, x), by_strategy(summary, y)
    both = [name for name in across if name in up]
    if not both:
        return None
    x_axis = axis_of([across[name] for name in both])
    y_axis = axis_of([up[name] for name in both])
    spans = [(span_of(across[name], x_axis), flipped(span_of(up[name], y_axis))) for name in both]
    beside = number_places([(right.at, down.at) for right, down in spans])
    points = tuple(
        Point(
            number,
            name,
            *own,
            f"{name}: {described(x, across[name])}; {described(y, up[name])}",
            number_at,
        )
        for number, (name, own, number_at) in enumerate(
            zip(both, spans, beside, strict=True), start=1
        )
    )
    first_x, first_y = across[both[0]], up[both[0]]
    return Scatter(
        heading(x, first_x.unit, first_x.direction),
        heading(y, first_y.unit, first_y.direction),
        ticks_of(x_axis, first_x.unit),
        tuple(Tick(100 - tick.at, tick.label) for tick in ticks_of(y_axis, first_y.unit)),
        points,
    )


def bars(summary: Sequence[Mean], metric: str) -> list[Bar]:
    """One metric of one data set as bars from zero; negative values have no length."""
    values = by_strategy(summary, metric)
    longest = max((max(v.value, v.high) for v in values.values()), default=0.0)
    axis = Axis(0.0, longest if longest > 0 else 1.0)
    return [Bar(name, span_of(v, axis), _number(v)) for name, v in values.items()]


def by_strategy(summary: Sequence[Mean], metric: str) -> dict[str, Mean]:
    """The finite means of a metric by strategy; a mean without an interval is its own."""
    found: dict[str, Mean] = {}
    for mean in summary:
        if mean.metric == metric and math.isfinite(mean.value):
            is_known = math.isfinite(mean.low) and math.isfinite(mean.high)
            found[mean.strategy] = (
                mean if is_known else replace(mean, low=mean.value, high=mean.value)
            )
    return found


def axis_of(means: Sequence[Mean]) -> Axis:
    """An axis that holds all means; intervals are cut at 0 and 1 where the metric ends there."""
    values = [mean.value for mean in means]
    lows, highs = [m.low for m in means], [m.high for m in means]
    if means[0].unit in ("share, 0..1", "0..1"):
        lows, highs = [max(v, 0.0) for v in lows], [min(v, 1.0) for v in highs]
    low, high = min(*values, *lows), max(*values, *highs)
    room = _ROOM * (high - low) or max(abs(low), 1.0) * _ROOM
    return Axis(low - room, high + room)


def span_of(mean: Mean, axis: Axis) -> Span:
    """A mean with its interval on an axis."""
    return Span(axis.percent(mean.value), axis.percent(mean.low), axis.percent(mean.high))


def flipped(span: Span) -> Span:
    """The same, counted from the other end: SVG counts from the top."""
    return Span(100 - span.at, 100 - span.high, 100 - span.low)


def ticks_of(axis: Axis, unit: str) -> tuple[Tick, ...]:
    """Round values along an axis; shares as percentages."""
    scale = 100 if is_share(unit) else 1
    step = nice_step(axis.high - axis.low, 6)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step * scale) + 1e-9))
    return tuple(
        Tick(axis.percent(step * k), f"{step * k * scale + 0.0:.{digits}f}")
        for k in range(first, last + 1)
    )


def described(metric: str, mean: Mean) -> str:
    """A mean in words: its metric, its number, its interval."""
    return f"{heading(metric, mean.unit, mean.direction)} {_number(mean)}"


def _number(mean: Mean) -> str:
    is_known = mean.low < mean.high
    return shown_mean(mean if is_known else replace(mean, low=math.nan, high=math.nan))
