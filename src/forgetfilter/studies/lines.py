"""The geometry of lines over stations: a metric of several strategies along a course."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgetfilter.charts import Tick
from forgetfilter.studies.labels import number_places
from forgetfilter.studies.plots import (
    Span,
    axis_of,
    by_strategy,
    described,
    flipped,
    span_of,
    ticks_of,
)
from forgetfilter.studies.results import Mean
from forgetfilter.studies.tables import heading

_SPREAD = 0.5
"""Share of a station's width over which the strategies stand side by side."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One strategy at one station; ``y`` counts from the top, as in SVG."""

    x: float
    """In percent of the width."""
    y: Span
    label: str
    """What a pointer over the mark is told."""


@dataclass(frozen=True, slots=True)
class Line:
    """One strategy along the stations that it comes through."""

    number: int
    strategy: str
    marks: tuple[Mark, ...]
    number_at: tuple[float, float]
    """Middle of its number, pixels from the last mark."""


@dataclass(frozen=True, slots=True)
class Lines:
    """One line per strategy, with its 95% intervals over seeds at each station."""

    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def lines(stations: Sequence[tuple[str, Sequence[Mean]]], metric: str) -> Lines | None:
    """A metric of one data set along its stations; None where no strategy has it.

    Strategies stand a little beside each other, so that no interval hides another. A strategy that
    does not come through a station has no mark there; its line goes straight on.

    Args:
        stations: from left to right, each with its name and the means at it.
        metric: what goes up.
    """
    found = [(name, by_strategy(means, metric)) for name, means in stations]
    strategies = list(dict.fromkeys(one for _, means in found for one in means))
    every = [mean for _, means in found for mean in means.values()]
    if not every:
        return None
    axis, width = axis_of(every), 100 / len(found)
    courses: list[tuple[Mark, ...]] = []
    for at, strategy in enumerate(strategies):
        beside = _SPREAD * ((at + 0.5) / len(strategies) - 0.5)
        courses.append(
            tuple(
                Mark(
                    width * (place + 0.5 + beside),
                    flipped(span_of(means[strategy], axis)),
                    f"{strategy}, {name}: {described(metric, means[strategy])}",
                )
                for place, (name, means) in enumerate(found)
                if strategy in means
            )
        )
    ends = number_places([(marks[-1].x, marks[-1].y.at) for marks in courses])
    return Lines(
        heading(metric, every[0].unit, every[0].direction),
        tuple(Tick(width * (place + 0.5), name) for place, (name, _) in enumerate(found)),
        tuple(Tick(100 - tick.at, tick.label) for tick in ticks_of(axis, every[0].unit)),
        tuple(
            Line(number, strategy, marks, end)
            for number, (strategy, marks, end) in enumerate(
                zip(strategies, courses, ends, strict=True), start=1
            )
        ),
    )
