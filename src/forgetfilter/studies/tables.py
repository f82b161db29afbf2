"""A comparison as Markdown tables, which the terminal shows as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from forgetfilter.display import MISSING
from forgetfilter.studies.results import FAILED, summarise
from forgetfilter.text import printable

GROUPS = {
    "safety": "Safety",
    "utility": "Utility",
    "detection": "Removed rows against the ground truth",
    "cost": "Seconds",
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


def tables_of(results: pd.DataFrame) -> list[Table]:
    """Every table of a comparison, by data set and group."""
    summary = summarise(results)
    tables: list[Table] = []
    for dataset in dict.fromkeys(summary["dataset"]):
        own = summary[summary["dataset"] == dataset]
        cells = results[(results["dataset"] == dataset) & (results["metric"] == FAILED)]
        failed = cells.groupby("strategy", sort=False)["value"].agg(["sum", "count"])
        for group, title in GROUPS.items():
            part = own[own["group"] == group]
            if len(part) or group == "safety":
                tables.append(_table(str(dataset), group, title, part, failed))
    return tables


def markdown(results: pd.DataFrame) -> str:
    """All tables as Markdown, their columns aligned."""
    seeds = ", ".join(str(seed) for seed in sorted(set(results["seed"])))
    lines = [f"Mean over seeds ({seeds}) [95% t interval over seeds].", ""]
    for table in tables_of(results):
        lines += [f"**{table.dataset}: {table.title}**", "", *_aligned(table), ""]
    return "\n".join(lines)


def shown(value: float, low: float, high: float, unit: str) -> str:
    """A mean with its interval in brackets, where it has one; shares as percentages."""
    if not math.isfinite(value):
        return MISSING
    scale = 100 if is_share(unit) else 1
    digits = 1 if is_share(unit) or unit == "seconds" else 3
    text = f"{scale * value:.{digits}f}"
    if math.isfinite(low) and math.isfinite(high):
        text += f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    return text


def is_share(unit: str) -> bool:
    """Whether a unit is a share, or a difference of shares, which is shown as a percentage."""
    return "share" in unit


def heading(metric: str, unit: str, direction: str) -> str:
    """A metric's name as people read it, its unit where needed, and which values are better."""
    name = metric.replace("_", " ")
    if is_share(unit):
        name += " points" if unit.startswith("difference") else " %"
    return f"{name} ({_BETTER.get(direction, direction)})"


def _table(dataset: str, group: str, title: str, part: pd.DataFrame, failed: pd.DataFrame) -> Table:
    metrics = part.drop_duplicates("metric")
    names = [str(name) for name in metrics["metric"]]
    headings = [
        heading(str(row["metric"]), str(row["unit"]), str(row["direction"]))
        for row in _records(metrics)
    ]
    texts = {
        (str(row["strategy"]), str(row["metric"])): shown(
            row["value"], row["low"], row["high"], str(row["unit"])
        )
        for row in _records(part)
    }
    has_failures = bool(failed["sum"].sum())
    rows: list[list[str]] = []
    for strategy, counts in failed.iterrows():
        cells = [texts.get((str(strategy), name), MISSING) for name in names]
        said = f"failed {counts['sum']:.0f} of {counts['count']:.0f}" if counts["sum"] else MISSING
        if not counts["sum"] and set(cells) == {MISSING}:
            continue  # the table is about something that the strategy doesn't do
        rows.append([str(strategy), *([said] if has_failures else []), *cells])
    return Table(
        dataset,
        group,
        title,
        ["strategy", *(["failed cells"] if has_failures else []), *headings],
        rows,
    )


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
    return printable(cell, 120).replace("|", "\\|")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
