"""What the cells of an interleaved study hold: a table, and its means at each phase boundary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.plots import Plot, lines
from forgetfilter.lab.studies.results import (
    COLUMNS,
    REFERENCES,
    Result,
    failed_row,
    frame_of,
    metric_rows,
    named,
    summarise,
)
from forgetfilter.lab.studies.tables import Station, Table, along, failures_of

START, NOISY, SAFE = "start", "noisy", "safe"
"""Phases: before the first round; the noisy or kept rows; what the strategy does after them."""
FIRST_ROUND = "first_round"
"""Of a difference: from the same phase of the first round, same strategy, same prompts."""
BOUNDARY_COLUMNS = (*COLUMNS[:3], "round", "phase", "boundary", *COLUMNS[3:])

ALONG = "phase boundary"
"""What the stations are."""
_DETECTION = ("precision", "recall")


def place(number: int, phase: str) -> dict[str, Any]:
    """The columns that say where a boundary lies.

    ``boundary`` orders them: 0 is the start, 2r - 1 the end of round r's noisy phase, 2r that of
    its safe phase, which only some strategies have.
    """
    boundary = {START: 0, NOISY: 2 * number - 1, SAFE: 2 * number}[phase]
    return {"round": number, "phase": phase, "boundary": boundary}


def collect(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per strategy, data set, seed, boundary and metric; see `BOUNDARY_COLUMNS`.

    As `results.collect`, with the references at the same boundary, and beside them:

    - ``<metric>_minus_first_round``: how far a strategy has drifted since the same phase of the
      first round, on the same prompts;
    - ``failed`` is at the start, once per cell.
    """
    results = {(cell.dataset, cell.seed, cell.strategy): cell.result() for cell in cells}
    rows: list[dict[str, Any]] = []
    for cell in cells:
        result = results[cell.dataset, cell.seed, cell.strategy]
        own = named(cell)
        rows.append(own | place(0, START) | failed_row(result is None))
        others = {name: results.get((cell.dataset, cell.seed, name)) for name in REFERENCES}
        for one in _boundaries(result):
            references = {
                name: found
                for name, other in others.items()
                if (found := _at(other, one["boundary"])) is not None
            }
            first = _at(result, place(1, one["phase"])["boundary"]) if one["round"] > 1 else None
            if first is not None:
                references[FIRST_ROUND] = first
            where = {name: one[name] for name in ("round", "phase", "boundary")}
            rows += [own | where | row for row in metric_rows(cell.strategy, one, references)]
    return frame_of(rows, BOUNDARY_COLUMNS)


def stations_of(results: pd.DataFrame, dataset: str) -> list[Station]:
    """The boundaries of a data set in order, each with its means over seeds."""
    own: pd.DataFrame = results.loc[results["dataset"] == dataset]
    columns = (own[name].tolist() for name in ("boundary", "round", "phase"))
    places = sorted(set(zip(*columns, strict=True)))
    return [
        Station(_name(int(number), str(phase)), summarise(own.loc[own["boundary"] == boundary]))
        for boundary, number, phase in places
    ]


def tables_of(datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
    """For each data set a table per metric: strategies down, boundaries across."""
    tables: list[Table] = []
    for dataset in datasets:
        stations = stations_of(results, dataset.name)
        failed = failures_of(results, dataset.name)
        headlines = _headlines(dataset, stations)
        drifts = [f"{name}_minus_{FIRST_ROUND}" for name in headlines]
        for metric in (*headlines, *drifts, *_DETECTION, "seconds"):
            table = along(dataset.name, metric, stations, failed)
            # Failures are listed even where nothing else can be.
            is_first = metric == next(iter(headlines), "seconds")
            if table is not None or (is_first and any(failed.values())):
                tables.append(table or _failures_alone(dataset.name, failed))
    return tables


def plots_of(dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
    """Each headline of a data set over the boundaries, a line per strategy.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    stations = stations_of(results, dataset.name)
    return (lines(stations, name, ALONG) for name in _headlines(dataset, stations))


def _boundaries(result: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [] if result is None else result["boundaries"]


def _at(result: Mapping[str, Any] | None, boundary: int) -> Result | None:
    return next((one for one in _boundaries(result) if one["boundary"] == boundary), None)


def _name(number: int, phase: str) -> str:
    return phase if phase == START else f"{number} {phase}"


def _headlines(dataset: DataSet, stations: Sequence[Station]) -> list[str]:
    """The metrics that are drawn: the data set's safety metrics, and the headline of utility."""
    found = [mean for station in stations for mean in station.means]
    measured = {mean.metric for mean in found}
    utility = next((mean.metric for mean in found if mean.group == "utility"), None)
    return [
        *(name for name in dataset.plotted if name in measured),
        *([utility] if utility is not None else []),
    ]


def _failures_alone(dataset: str, failed: Mapping[str, str]) -> Table:
    rows = [[strategy, failure] for strategy, failure in failed.items() if failure]
    return Table(dataset, "safety", "Nothing was measured", ["strategy", "failed cells"], rows)
