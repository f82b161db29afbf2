"""A study as Markdown tables, which the terminal shows as they are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from forgetfilter.lab.studies.results import FAILED, Mean, records_of, summarise
from forgetfilter.runs.report.shown_text import MISSING
from forgetfilter.text import printable

GROUPS = {
    "safety": "Safety",
    "utility": "Utility",
    "detection": "Removed rows against the ground truth",
    "cost": "Cost",
}
"""The tables of each data set, in order."""

_BETTER = {"higher": "higher", "lower": "lower", "zero": "nearer 0"}


@dataclass(frozen=True)
class Table:
    """Means over seeds of one group of metrics on one data set."""

    dataset: str
    group: str
    title: str
    headings: list[str]
    """Strategy, failed cells where there are any, and the metrics."""
    rows: list[list[str]]


@dataclass(frozen=True)
class Station:
    """A place on a course, such as a phase boundary of one data set, with the means at it."""

    name: str
    means: list[Mean]


def tables_of(results: pd.DataFrame) -> list[Table]:
    """Every table of a comparison, by data set and group."""
    summary = summarise(results)
    tables: list[Table] = []
    for dataset in dict.fromkeys(mean.dataset for mean in summary):
        own = [mean for mean in summary if mean.dataset == dataset]
        failed = failures_of(results, dataset)
        for group, title in GROUPS.items():
            part = [mean for mean in own if mean.group == group]
            if part or group == "safety":
                tables.append(_table(dataset, group, title, part, failed))
    return tables


def markdown(results: pd.DataFrame, tables: Sequence[Table] | None = None) -> str:
    """``tables`` (those of a comparison where not given) as Markdown, their columns aligned."""
    seeds = ", ".join(str(seed) for seed in sorted(set(results["seed"])))
    lines = [f"Mean over seeds ({seeds}) [95% interval over seeds].", ""]
    for table in tables_of(results) if tables is None else tables:
        lines += [f"**{table.dataset}: {table.title}**", "", *_aligned(table), ""]
    return "\n".join(lines)


def shown(value: float, low: float, high: float, unit: str) -> str:
    """A mean with its interval in brackets, where it has one; shares as percentages."""
    if not math.isfinite(value):
        return MISSING
    scale = 100 if is_share(unit) else 1
    digits = (
        1 if is_share(unit) or unit.endswith("seconds") else 0 if unit.startswith("rows") else 3
    )
    text = f"{scale * value:.{digits}f}"
    if math.isfinite(low) and math.isfinite(high):
        text += f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    return text


def shown_mean(mean: Mean) -> str:
    """A mean as `shown`, and of how many seeds it is where some have no number."""
    text = shown(mean.value, mean.low, mean.high, mean.unit)
    return f"{text} ({mean.seeds} of {mean.of} seeds)" if 0 < mean.seeds < mean.of else text


def is_share(unit: str) -> bool:
    """Whether a unit is a share, or a difference of shares, which is shown as a percentage."""
    return "share" in unit


def heading(metric: str, unit: str, direction: str) -> str:
    """A metric's name as people read it, its unit where needed, and which values are better."""
    name = metric.replace("_", " ")
    if is_share(unit):
        name += " points" if unit.startswith("difference") else " %"
    return name if direction == "none" else f"{name} ({_BETTER.get(direction, direction)})"


def along(
    dataset: str,
    metric: str,
    stations: Sequence[Station],
    failed: Mapping[str, str],
    first: str = "strategy",
) -> Table | None:
    """A metric at every station where some strategy has it; None where none has.

    Args:
        dataset: of the stations.
        metric: what is shown.
        stations: the columns, from left to right.
        failed: the rows, each with how many of its cells failed, in words.
        first: what the rows are.
    """
    means = {
        (mean.strategy, station.name): mean
        for station in stations
        for mean in station.means
        if mean.metric == metric and mean.seeds
    }
    if not means:
        return None
    columns = [one.name for one in stations if any(name == one.name for _, name in means)]
    has_failures = any(failed.values())
    rows: list[list[str]] = []
    for strategy, failure in failed.items():
        own = [means.get((strategy, name)) for name in columns]
        if not failure and not any(own):
            continue  # the table is about something that the strategy doesn't do
        texts = [shown_mean(m) if m else MISSING for m in own]
        rows.append([strategy, *([failure or MISSING] if has_failures else []), *texts])
    titles = [first, *(["failed cells"] if has_failures else []), *columns]
    any_mean = next(iter(means.values()))
    title = heading(metric, any_mean.unit, any_mean.direction)
    return Table(dataset, any_mean.group, title, titles, rows)


def failures_of(results: pd.DataFrame, dataset: str) -> dict[str, str]:
    """By strategy how many cells failed, in words; empty words for none."""
    failed: dict[str, list[float]] = {}
    for row in records_of(results):
        if row["dataset"] == dataset and row["metric"] == FAILED:
            failed.setdefault(str(row["strategy"]), []).append(float(row["value"]))
    return {
        strategy: f"failed {sum(values):.0f} of {len(values)}" if any(values) else ""
        for strategy, values in failed.items()
    }


def _table(
    dataset: str, group: str, title: str, part: Sequence[Mean], failed: Mapping[str, str]
) -> Table:
    headings = {mean.metric: heading(mean.metric, mean.unit, mean.direction) for mean in part}
    texts = {(mean.strategy, mean.metric): shown_mean(mean) for mean in part}
    has_failures = any(failed.values())
    rows: list[list[str]] = []
    for strategy, failure in failed.items():
        cells = [texts.get((strategy, metric), MISSING) for metric in headings]
        if not failure and set(cells) == {MISSING}:
            continue  # the table is about something that the strategy doesn't do
        rows.append([strategy, *([failure or MISSING] if has_failures else []), *cells])
    titles = ["strategy", *(["failed cells"] if has_failures else []), *headings.values()]
    return Table(dataset, group, title, titles, rows)


def _aligned(table: Table) -> list[str]:
    """The table's lines, every column as wide as its widest cell."""
    rows = [[_plain(cell) for cell in row] for row in (table.headings, *table.rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "|".join(["", *("-" * (width + 2) for width in widths), ""]))
    return lines


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return f"| {' | '.join(cells)} |"


def _plain(cell: str) -> str:
    """A cell that can't end its column; strategies are written by whoever wrote the settings."""
    return re.sub(r"[\\|<`*]|\[(?=.*\]\()", r"\\\g<0>", printable(cell, 120))
