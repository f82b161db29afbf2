"""A leaderboard's tables: mean ranks over all mixes, and what each scorer finds and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.lab.metrics.intervals import Estimate
from forgetfilter.lab.metrics.ranking import NAMES, percentiles, rank, resampled
from forgetfilter.lab.row_scorers import lowest_first
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.results import Mean, records_of, summarise
from forgetfilter.lab.studies.tables import Table, failures_of, heading, shown, shown_mean
from forgetfilter.runs.report.shown_text import MISSING

TOGETHER = "all data sets"
COSTS = ("forward_passes", "backward_passes", "generated_passes", "seconds")
_REPLICATES = 200
_FEW_CELLS = 5
"""With so many mixes and seeds or more, they are drawn anew in place of their rows."""

Place = tuple[str, int]
"""A data set and a seed."""


@dataclass(frozen=True)
class Scored:
    """What several scorers said of the same rows."""

    is_unsafe: BoolArray
    """Shape (N,)."""
    scores: FloatArray
    """Shape (scorers, N), higher = suspected unsafe."""


def board_tables(
    datasets: Sequence[DataSet], results: pd.DataFrame, cells: Sequence[Cell]
) -> list[Table]:
    """The table of all data sets together, and one of each of them."""
    needs = _needs(cells)
    means = summarise(results)
    rows = _row_intervals(results)
    return [
        _together(results, cells, needs),
        *(_of_dataset(one.name, means, rows, results, needs) for one in datasets),
    ]


def mean_ranks(places: Sequence[Scored], seed: int = 0) -> list[Estimate]:
    """The mean rank of each scorer by average precision, 1 = best, with its 95% interval.

    Equal scorers share the mean of their ranks. Intervals are percentiles of a bootstrap: over
    places where there are at least five, else over the rows of each, which are the same rows for
    every scorer.
    """
    own = np.stack([_ranks(place, np.ones((1, len(place.is_unsafe))))[0] for place in places])
    rng = np.random.default_rng(seed)
    if len(places) >= _FEW_CELLS:
        drawn = own[rng.integers(len(places), size=(_REPLICATES, len(places)))].mean(axis=1)
    else:
        found = [
            _ranks(place, resampled(place.is_unsafe, seed + at, _REPLICATES))
            for at, place in enumerate(places)
        ]
        drawn = np.mean(found, axis=0)  # (replicates, scorers)
    return [percentiles(float(own[:, at].mean()), drawn[:, at]) for at in range(own.shape[1])]


def _ranks(place: Scored, weights: FloatArray) -> FloatArray:
    """Ranks by average precision in each weighting of the rows, shape (R, scorers)."""
    from scipy.stats import rankdata

    found = [rank(place.is_unsafe, own, weights).average_precision for own in place.scores]
    return rankdata(-np.stack(found, axis=1), axis=1)


def _together(results: pd.DataFrame, cells: Sequence[Cell], needs: Mapping[str, str]) -> Table:
    """Mean rank, mean metrics and costs over all data sets and seeds."""
    whole, places = _whole(cells)
    ranks = dict(zip(whole, mean_ranks(places), strict=True)) if places else {}
    over = "mixes and seeds" if len(places) >= _FEW_CELLS else "rows"
    metrics = [*NAMES, *COSTS]
    records = records_of(results)
    table: list[tuple[float, list[str]]] = []
    for scorer in needs:
        texts = [_mean_of(records, scorer, metric) for metric in metrics]
        found = ranks.get(scorer)
        shown_rank = MISSING if found is None else shown(found.value, found.low, found.high, "")
        table.append(
            (
                math.inf if found is None else found.value,
                [scorer, shown_rank, *texts, needs[scorer]],
            )
        )
    table.sort(key=lambda row: row[0])
    titles = ["scorer", "mean rank (lower)", *map(_title, metrics), "needs"]
    title = (
        f"Mean rank by average precision over {len(places)} mixes and seeds "
        f"[95% bootstrap over {over}], and means"
    )
    return Table(TOGETHER, "detection", title, titles, [row for _, row in table])


def _of_dataset(
    name: str,
    means: Sequence[Mean],
    intervals: Mapping[tuple[str, str, str], Estimate],
    results: pd.DataFrame,
    needs: Mapping[str, str],
) -> Table:
    """What each scorer finds and costs on one data set, best first."""
    own = {(mean.strategy, mean.metric): mean for mean in means if mean.dataset == name}
    failed = failures_of(results, name)
    has_failures = any(failed.values())
    table: list[tuple[float, list[str]]] = []
    for scorer, failure in failed.items():
        first = own.get((scorer, NAMES[0]))
        texts = [
            _text(own.get((scorer, metric)), intervals.get((name, scorer, metric)))
            for metric in (*NAMES, *COSTS)
        ]
        cells = [scorer, *([failure or MISSING] if has_failures else []), *texts]
        value = first.value if first and math.isfinite(first.value) else -math.inf
        table.append((-value, [*cells, needs.get(scorer, MISSING)]))
    table.sort(key=lambda row: row[0])
    unsafe = _counts(results, name)
    titles = ["scorer", *(["failed cells"] if has_failures else []), *map(_title, NAMES)]
    titles += [*map(_title, COSTS), "needs"]
    return Table(name, "detection", f"Ranking of {unsafe}", titles, [row for _, row in table])


def _text(mean: Mean | None, of_rows: Estimate | None) -> str:
    """A mean over seeds with its interval; of a single seed the interval over rows."""
    if mean is None:
        return MISSING
    if mean.seeds == 1 and mean.of == 1 and of_rows is not None:
        return shown(mean.value, of_rows.low, of_rows.high, mean.unit)
    return shown_mean(mean)


def _title(metric: str) -> str:
    if metric in NAMES:
        return heading(metric, "0..1", "higher")
    name = metric if metric == "seconds" else f"{metric} a row"
    return heading(name, "", "lower")


def _mean_of(records: Sequence[Mapping[str, Any]], scorer: str, metric: str) -> str:
    """The mean of a metric over all mixes and seeds in which it is defined."""
    values = [
        float(row["value"])
        for row in records
        if row["strategy"] == scorer and row["metric"] == metric and math.isfinite(row["value"])
    ]
    unit = "seconds" if metric == "seconds" else ""
    return shown(float(np.mean(values)), math.nan, math.nan, unit) if values else MISSING


def _counts(results: pd.DataFrame, name: str) -> str:
    """How many rows are unsafe, of how many, in words."""
    own = [
        (int(row["value"]), int(row["n"]))
        for row in records_of(results)
        if row["dataset"] == name and row["metric"] == "unsafe_rows"
    ]
    if not own:
        return "no rows"
    low, high = min(count for count, _ in own), max(count for count, _ in own)
    count = str(low) if low == high else f"{low} to {high}"
    return f"{max(n for _, n in own)} rows, {count} of them unsafe"


def _row_intervals(results: pd.DataFrame) -> dict[tuple[str, str, str], Estimate]:
    """The interval over rows by data set, scorer and metric; the last seed's where several."""
    return {
        (str(row["dataset"]), str(row["strategy"]), str(row["metric"])): Estimate(
            float(row["value"]), float(row["low"]), float(row["high"])
        )
        for row in records_of(results)
    }


def _needs(cells: Sequence[Cell]) -> dict[str, str]:
    """What each scorer needs, in the order of the grid."""
    found: dict[str, str] = {}
    for cell in cells:
        result = cell.result()
        known = found.setdefault(cell.strategy, MISSING)
        if result is not None and known == MISSING:
            found[cell.strategy] = str(result["needs"])
    return found


def _whole(cells: Sequence[Cell]) -> tuple[list[str], list[Scored]]:
    """The scorers without a failed cell, and what they said of each place with unsafe rows."""
    results = {(cell.dataset, cell.seed, cell.strategy): cell.result() for cell in cells}
    scorers = list(dict.fromkeys(cell.strategy for cell in cells))
    places = list(dict.fromkeys((cell.dataset, cell.seed) for cell in cells))
    whole = [name for name in scorers if all(results[*place, name] for place in places)]
    found: list[Scored] = []
    for place in places if whole else []:
        own = [result for name in whole if (result := results[*place, name]) is not None]
        is_unsafe = np.array(own[0]["is_unsafe"], dtype=np.bool_)
        if 0 < is_unsafe.sum() < len(is_unsafe):
            found.append(Scored(is_unsafe, np.stack([lowest_first(one["scores"]) for one in own])))
    return whole, found
