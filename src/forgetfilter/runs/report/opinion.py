"""Where a second opinion and the forgetting scores agree: a plot's geometry, and lists of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import BoolArray, FloatArray, SharedTexts
from forgetfilter.runs.reading import ScoreTable
from forgetfilter.runs.report.histogram import nice_step
from forgetfilter.runs.report.shown_rows import highest
from forgetfilter.runs.report.shown_text import Clip, clip, number
from forgetfilter.runs.schema import Opinion, Summary

ROWS_LISTED = 10
"""Rows that only one of the two suspects, in each list."""
LEFT, RIGHT, TOP, BOTTOM = 54.0, 548.0, 26.0, 322.0
"""Edges of the plot inside a drawing of 560 by 380."""

_ACROSS, _DOWN = 60, 40
_LIMIT = 1e100


@dataclass(frozen=True, slots=True)
class Dot:
    """Rows of one decision that lie close together, in the drawing's own units."""

    x: float
    y: float
    radius: float
    group: str
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row in a list; no text of it."""

    row: int
    id: Clip
    forgetting: str
    opinion: str
    decision: str


@dataclass(frozen=True)
class OpinionView:
    """What the page shows of a second opinion."""

    given: Opinion
    dots: tuple[Dot, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]
    cut: Mark | None
    """Where the rule cuts the forgetting scores alone; None beyond the axis."""
    above: float
    """The height from which the second opinion suspects a row."""
    joint: tuple[float, float, float, float] | None
    """Ends of the line at which the joint score is cut: x and y of both."""
    beyond: int
    """Rows whose score lies beyond the axis; they are drawn at its end."""
    only_opinion: tuple[ListedRow, ...]
    only_forgetting: tuple[ListedRow, ...]
    positions: npt.NDArray[np.int64]
    """Of the listed rows in the table of scores."""


def opinion_view(summary: Summary, table: ScoreTable) -> OpinionView | None:
    """The plot and the lists; None where there is no second opinion."""
    opinion = table.quantities.get("second_opinion")
    if summary.second_opinion is None or opinion is None:
        return None
    given, score = summary.second_opinion, table.quantities["forgetting_score"]
    is_drawn = np.isfinite(score) & np.isfinite(opinion)
    cut = given.cut
    is_judged = table.is_learned | (not summary.needs_learned)
    ours = is_drawn & is_judged & (score > (math.inf if cut is None else cut))
    theirs = is_drawn & (opinion > given.above)
    low, high = _range(score[is_drawn], cut)
    lists = [
        _first(theirs & ~ours, np.where(is_drawn, opinion, 0.0)),
        _first(ours & ~theirs, np.where(is_drawn, score, 0.0)),
    ]
    told = [tuple(_listed(table, int(at)) for at in places) for places in lists]
    shown = np.clip(score, -_LIMIT, _LIMIT)
    is_inside = cut is not None and low <= cut <= high
    return OpinionView(
        given=given,
        dots=_dots(shown, opinion, table.decision, is_drawn, low, high),
        x_marks=_x_marks(low, high),
        y_marks=tuple(Mark(round(_y(share / 4), 2), f"{share / 4:g}") for share in range(5)),
        cut=Mark(round(_x(cut, low, high), 2), number(cut)) if cut and is_inside else None,
        above=round(_y(given.above), 2),
        joint=_joint_line(summary.threshold.value, summary.joint, low, high),
        beyond=int(np.sum(is_drawn & ((score < low) | (score > high)))),
        only_opinion=told[0],
        only_forgetting=told[1],
        positions=np.concatenate(lists).astype(np.int64),
    )


def _first(chosen: BoolArray, by: FloatArray) -> npt.NDArray[np.int64]:
    """Positions of the chosen rows with the largest values, largest first."""
    return highest(np.where(chosen, by, np.nan), ROWS_LISTED)


def _listed(table: ScoreTable, at: int) -> ListedRow:
    return ListedRow(
        int(table.row[at]),
        clip(str(table.example_id[at]), 80),
        number(float(table.quantities["forgetting_score"][at])),
        number(float(table.quantities["second_opinion"][at])),
        str(table.decision[at]),
    )


def _dots(
    score: FloatArray,
    opinion: FloatArray,
    decision: SharedTexts,
    is_drawn: BoolArray,
    low: float,
    high: float,
) -> tuple[Dot, ...]:
    """One dot for all rows of a decision in one cell of a grid, so that their number is bounded."""
    dots: list[Dot] = []
    for group in ("kept", "undecided", "removed"):  # the removed ones on top
        at = np.flatnonzero(is_drawn & (decision == group))
        if not len(at):
            continue
        x = np.clip((score[at] - low) / (high - low), 0.0, 1.0)
        y = np.clip(opinion[at], 0.0, 1.0)
        cell = np.minimum((x * _ACROSS).astype(np.int64), _ACROSS - 1) * _DOWN
        cell += np.minimum((y * _DOWN).astype(np.int64), _DOWN - 1)
        counts = np.bincount(cell, minlength=_ACROSS * _DOWN)
        there = np.flatnonzero(counts)
        counts = counts[there]
        means = [
            np.bincount(cell, weights=values, minlength=_ACROSS * _DOWN)[there] / counts
            for values in (x, y)
        ]
        for across, up, count in zip(*means, counts, strict=True):
            rows = f"{int(count):,} {group} {'row' if count == 1 else 'rows'}"
            about = f"forgetting {number(low + float(across) * (high - low))}"
            dots.append(
                Dot(
                    round(LEFT + float(across) * (RIGHT - LEFT), 2),
                    round(_y(float(up)), 2),
                    round(2.6 + 1.6 * math.log10(float(count)), 2),
                    group,
                    f"{rows}: {about}, second opinion {number(float(up))}",
                )
            )
    return tuple(dots)


def _range(score: FloatArray, cut: float | None) -> tuple[float, float]:
    """The axis: all but far outliers, with the cut where that is near, and never a single point."""
    if not len(score):
        return 0.0, 1.0
    values = np.clip(score, -_LIMIT, _LIMIT)
    low, high = (float(value) for value in np.quantile(values, (0.005, 0.995)))
    span = high - low
    if cut is not None and low - span <= cut <= high + span:
        low, high = min(low, cut), max(high, cut)
    pad = 0.04 * (high - low) or max(abs(low), 1.0) * 0.5
    return low - pad, high + pad


def _joint_line(
    cut: float | None, weight: float, low: float, high: float
) -> tuple[float, float, float, float] | None:
    """The line at which forgetting + weight * opinion is the cut, as far as it is on the plot."""
    if cut is None or not weight:
        return None
    first, last = (min(max((cut - edge) / weight, 0.0), 1.0) for edge in (high, low))
    if first >= last:
        return None
    ends = [(round(_x(cut - weight * up, low, high), 2), round(_y(up), 2)) for up in (first, last)]
    return (*ends[0], *ends[1])


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (RIGHT - LEFT) * (value - low) / (high - low)


def _y(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value


def _x_marks(low: float, high: float) -> tuple[Mark, ...]:
    step = nice_step(high - low, 6)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(
        Mark(round(_x(step * k, low, high), 2), number(float(f"{step * k:.10g}") + 0.0))
        for k in range(first, last + 1)
    )
