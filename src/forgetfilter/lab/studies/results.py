"""What the cells of a comparison hold, as one tidy table, and its means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from forgetfilter.lab.metrics import Estimate, mean_over_seeds, paired_difference
from forgetfilter.lab.studies.cells import Cell

RESULTS_FILE = "results.parquet"
REFERENCES = ("none", "oracle_removal")
"""Strategies that the others are compared with, prompt by prompt, where the grid has them."""
FAILED = "failed"
"""The metric that every cell has: 1 where it failed, else 0."""

COLUMNS = (
    "strategy",
    "dataset",
    "seed",
    "metric",
    "group",
    "value",
    "low",
    "high",
    "unit",
    "direction",
    "n",
)

Result = Mapping[str, Any]
_Names = tuple[str, str, str, str, str, str]
_MORE_SECONDS = "difference; seconds"
_NOTHING = Estimate(math.nan, math.nan, math.nan)


def collect(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per strategy, data set, seed and metric, in the order of the grid; see `COLUMNS`.

    ``low`` and ``high`` are the 95% interval over prompts, NaN where there is none. Beside what the
    cells hold there are:

    - ``<metric>_minus_<reference>``: paired differences on the same prompts, for the metrics that
      are kept prompt by prompt;
    - ``seconds_beyond_none``: seconds minus those of the plain fine-tune;

    both NaN for the reference itself, whose difference from itself says nothing;

    - ``failed``: for every cell, and the only row of a failed one.
    """
    results = {(cell.dataset, cell.seed, cell.strategy): cell.result() for cell in cells}
    rows: list[dict[str, Any]] = []
    for cell in cells:
        result = results[cell.dataset, cell.seed, cell.strategy]
        own = named(cell)
        references = {
            name: other
            for name in REFERENCES
            if (other := results.get((cell.dataset, cell.seed, name)))
        }
        rows.append(own | failed_row(result is None))
        if result is not None:
            rows += [own | row for row in metric_rows(cell.strategy, result, references)]
    return frame_of(rows, COLUMNS)


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """``rows`` as a table of ``columns``, numbers as such even where there is no row."""
    frame = pd.DataFrame([dict(row) for row in rows], columns=list(columns))
    kinds = {"seed": "int64", "value": "float64", "low": "float64", "high": "float64"}
    return frame.astype({**kinds, "n": "int64"})


def named(cell: Cell) -> dict[str, Any]:
    """The columns that say which cell a row is of."""
    return {"strategy": cell.strategy, "dataset": cell.dataset, "seed": cell.seed}


def failed_row(is_failed: bool) -> dict[str, Any]:
    """The row that every cell has: whether it failed."""
    return _row(FAILED, "detail", float(is_failed), unit="0 or 1", direction="lower", n=1)


def metric_rows(
    strategy: str, result: Result, references: Mapping[str, Result]
) -> list[dict[str, Any]]:
    """The metrics of ``result``, each followed by its differences from the references.

    Args:
        strategy: whose result it is; its differences from itself are NaN.
        result: holds ``metrics`` and ``per_prompt``.
        references: the same of others, by what they are called in the name of a difference.
    """
    rows: list[dict[str, Any]] = []
    headline = next((m["name"] for m in result["metrics"] if m["group"] == "utility"), None)
    for metric in result["metrics"]:
        name = metric["name"]
        rows.append(_row(metric=name, **{key: metric[key] for key in COLUMNS[4:]}))
        for reference, other in references.items():
            if name == "seconds" and reference == "none":
                extra = metric["value"] - _value(other, "seconds") if strategy != "none" else None
                rows.append(_row("seconds_beyond_none", "cost", extra, _MORE_SECONDS, "lower", n=1))
            mine = result["per_prompt"].get(name)
            theirs = other["per_prompt"].get(name)
            if mine is not None and theirs is not None and len(mine) == len(theirs) > 0:
                found = (
                    paired_difference(mine, theirs, metric["unit"])
                    if strategy != reference
                    else _NOTHING
                )
                rows.append(
                    _row(
                        f"{name}_minus_{reference}",
                        metric["group"] if name == headline else "detail",
                        found.value,
                        f"difference; {metric['unit']}",
                        metric["direction"],
                        len(mine),
                        found.low,
                        found.high,
                    )
                )
    return rows


def _row(
    metric: str,
    group: str,
    value: float | None,
    unit: str,
    direction: str,
    n: int,
    low: float | None = None,
    high: float | None = None,
) -> dict[str, Any]:
    # A single prompt bounds nothing: its interval is endless, and is written as none.
    bounds = [None if b is None or not math.isfinite(b) else b for b in (low, high)]
    return {
        "metric": metric,
        "group": group,
        "value": math.nan if value is None else value,
        "low": math.nan if bounds[0] is None else bounds[0],
        "high": math.nan if bounds[1] is None else bounds[1],
        "unit": unit,
        "direction": direction,
        "n": n,
    }


def _value(result: Result, name: str) -> float:
    return next(float(m["value"]) for m in result["metrics"] if m["name"] == name)


@dataclass(frozen=True)
class Mean:
    """One metric of one strategy on one data set, over seeds."""

    dataset: str
    strategy: str
    metric: str
    group: str
    unit: str
    direction: str
    seeds: int
    """How many seeds have a number."""
    of: int
    """How many seeds were measured; of some the metric may be undefined."""
    value: float
    """The mean; NaN where no seed has a number."""
    low: float
    high: float
    """95% interval over seeds, within the range that the unit names; NaN for fewer than two."""


def summarise(results: pd.DataFrame) -> list[Mean]:
    """Means over seeds, in the order of the grid."""
    found: dict[_Names, list[tuple[float, int]]] = {}
    for row in records_of(results):
        dataset, strategy, metric = str(row["dataset"]), str(row["strategy"]), str(row["metric"])
        kind = str(row["group"]), str(row["unit"]), str(row["direction"])
        found.setdefault((dataset, strategy, metric, *kind), []).append(
            (float(row["value"]), int(row["n"]))
        )
    return [_mean(names, values) for names, values in found.items()]


def records_of(results: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of `collect` as mappings."""
    return cast(list[dict[str, Any]], results.to_dict(orient="records"))


def _mean(names: _Names, values: Sequence[tuple[float, int]]) -> Mean:
    """The mean of values that come with how many cases each is made from."""
    finite = [(value, cases) for value, cases in values if math.isfinite(value)]
    n, of, nan = len(finite), len(values), math.nan
    unit = names[4]
    if not n:
        return Mean(*names, 0, of, nan, nan, nan)
    cases = sum(cases for _, cases in finite)
    mean = mean_over_seeds([value for value, _ in finite], unit, cases)
    if n == 1:
        return Mean(*names, 1, of, mean.value, nan, nan)
    return Mean(*names, n, of, mean.value, mean.low, mean.high)
