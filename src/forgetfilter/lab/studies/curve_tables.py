"""What the cells of curves hold: one tidy table, means along each curve, tables, and plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.course import DETAIL, FORGETTING, LEARNING, REFERENCE
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.plots import Plot, lines
from forgetfilter.lab.studies.points import COURSE, Point
from forgetfilter.lab.studies.results import (
    FAILED,
    Mean,
    failed_row,
    frame_of,
    records_of,
    summarise,
)
from forgetfilter.lab.studies.tables import Station, Table, along, failures_of

CURVE_COLUMNS = (
    "dataset",
    "seed",
    "curve",
    "setting",
    "x",
    "line",
    "metric",
    "group",
    "value",
    "low",
    "high",
    "unit",
    "direction",
    "n",
    "cell",
)

_FIT = ("loss", "learned_share")
_RANKING = ("auroc", "average_precision")
_SCREEN = (*_RANKING, "f1", "removed_clean", "seconds")
_SHOWN: Mapping[str, tuple[str, tuple[str, ...]]] = {
    LEARNING: ("steps of learning", _FIT),
    FORGETTING: ("steps of forgetting", (*_FIT, *_RANKING)),
    # A threshold changes no score and costs no time.
    "threshold": ("threshold", ("f1", "precision", "recall", "removed_clean")),
    "forget_steps": ("forgetting steps t", _SCREEN),
    "safe_rows": ("safe rows", _SCREEN),
    "unsafe_fraction": ("unsafe fraction", _SCREEN),
    "model": ("model", _SCREEN),
}
"""What is drawn of each curve, in the order of the page, and what is written below it."""
_TOLD = ("threshold", "learned_share")
"""What has a table for each sweep, and no plot."""


def collect(cells: Sequence[Cell], points: Mapping[str, Point]) -> pd.DataFrame:
    """One row per data set, seed, place on a curve, line and metric; see `CURVE_COLUMNS`.

    - ``curve``: ``learning`` or ``forgetting`` (the course), ``reference`` (signals without a
      forgetting run), or the name of a sweep
    - ``setting``, ``x``: the place in words and as a number; NaN for references
    - ``line``: a kind of row, or a signal
    - ``group``: ``course``, ``detection``, ``cost``, or ``detail`` for what is not drawn
    - ``low``, ``high``: 95% interval over rows, NaN where there is none
    - ``cell``: identifies all that decides the result, so that a kept file can replace the cell

    and, for every cell, ``failed``, which is the only row of a failed one.
    """
    rows: list[dict[str, Any]] = []
    for cell in cells:
        result, point = cell.result(), points[cell.strategy]
        own = {"dataset": cell.dataset, "seed": cell.seed, "cell": cell.fingerprint}
        place = {"curve": point.curve, "setting": point.setting, "x": point.x, "line": point.signal}
        rows.append(own | place | failed_row(result is None))
        found = [] if result is None else result["rows"]
        # A cell outlives the list that its value stood in: the place is that of today's list.
        rows += [own | row | ({} if point.curve == COURSE else place) for row in found]
    return frame_of(rows, CURVE_COLUMNS).astype({"x": "float64"})


def stations_of(results: pd.DataFrame, dataset: str, curve: str) -> list[Station]:
    """The places of a curve from left to right, each with its means over seeds."""
    own = [
        row
        for row in records_of(results)
        if row["dataset"] == dataset and row["metric"] != FAILED and row["group"] != DETAIL
    ]
    on_curve = [row for row in own if row["curve"] == curve]
    references = [row for row in own if row["curve"] == REFERENCE and curve == FORGETTING]
    found: list[Station] = []
    for x, setting in sorted({(float(row["x"]), str(row["setting"])) for row in on_curve}):
        here = [row for row in on_curve if (row["x"], row["setting"]) == (x, setting)]
        # Before the first step of forgetting there is nothing to hold references against.
        found.append(Station(setting, _means([*here, *(references if x > 0 else [])])))
    return found


def _means(rows: Sequence[Mapping[str, Any]]) -> list[Mean]:
    """Means over seeds of each line, which takes the place of a comparison's strategy."""
    return summarise(pd.DataFrame([{**row, "strategy": row["line"]} for row in rows]))


def tables_of(datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
    """For each data set what failed, and a table per curve and metric with the places across."""
    tables: list[Table] = []
    for dataset in datasets:
        failed = _failed(results, dataset.name)
        if failed:
            headings = ["cell", "failed cells"]
            tables.append(Table(dataset.name, FAILED, "Failed cells", headings, failed))
        for curve, (axis, metrics) in _SHOWN.items():
            stations = stations_of(results, dataset.name, curve)
            names = dict.fromkeys(mean.strategy for one in stations for mean in one.means)
            told = () if curve in (LEARNING, FORGETTING) else _TOLD
            for metric in (*metrics, *told):
                table = along(dataset.name, metric, stations, dict.fromkeys(names, ""), "line")
                if table is not None:
                    tables.append(replace(table, title=f"{table.title}, by {axis}"))
    return tables


def plots_of(results: pd.DataFrame, dataset: str) -> Iterator[tuple[str, Plot]]:
    """Every plot of a data set, with the name of its curve and metric.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    for curve, (axis, metrics) in _SHOWN.items():
        stations = stations_of(results, dataset, curve)
        for metric in metrics:
            drawn = lines(stations, metric, axis)
            if drawn is not None:
                yield f"{curve}_{metric}", drawn


def _failed(results: pd.DataFrame, dataset: str) -> list[list[str]]:
    """Which lines of which curves lack how many cells."""
    rows: list[list[str]] = []
    for curve in (COURSE, *_SHOWN):
        own = [
            {**row, "strategy": row["line"]}
            for row in records_of(results)
            if row["curve"] == curve and row["metric"] == FAILED
        ]
        for line, failure in failures_of(pd.DataFrame(own), dataset).items():
            if failure:
                rows.append([f"{curve} {line}".strip(), failure])
    return rows
