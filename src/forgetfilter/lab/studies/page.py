"""A comparison as one self-contained HTML page with plots; never loads a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from forgetfilter.errors import MissingExtraError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.plots import Plot, bars, scatter, without_plots
from forgetfilter.lab.studies.results import Mean, summarise
from forgetfilter.lab.studies.settings import CompareConfig, GridConfig
from forgetfilter.lab.studies.tables import Table, tables_of
from forgetfilter.runs.report.page import page_environment
from forgetfilter.runs.report.shown_text import Clip, clip


@dataclass(frozen=True)
class Part:
    """One data set's plots and tables."""

    dataset: str
    plots: list[Plot]
    """Safety against utility, one for each safety metric that the data set wants drawn; seconds."""
    tables: list[Table]


@dataclass(frozen=True)
class Failure:
    """A cell without a result."""

    strategy: str
    dataset: str
    seed: int
    message: Clip


def write_page(
    path: Path,
    config: CompareConfig,
    datasets: Sequence[DataSet],
    cells: Sequence[Cell],
    results: pd.DataFrame,
) -> None:
    """Write the page of a comparison; everything in it is escaped."""
    summary = summarise(results)
    tables = tables_of(results)
    parts = [
        _part(dataset, [mean for mean in summary if mean.dataset == dataset.name], tables)
        for dataset in datasets
    ]
    render(path, "compare.html", config, cells, parts)


def render(
    path: Path,
    template: str,
    config: GridConfig,
    cells: Sequence[Cell],
    parts: Sequence[object],
) -> None:
    """Write a study's page from its template; failed cells come first.

    Args:
        path: the file.
        template: extends ``study.html``, which says what each of ``parts`` must have.
        config: the study's settings.
        cells: all of its cells.
        parts: what the template shows of each data set.
    """
    failures = [
        Failure(cell.strategy, cell.dataset, cell.seed, clip(cell.error() or "not tried", 2000))
        for cell in cells
        if cell.result() is None
    ]
    page = (
        page_environment("forgetfilter.lab.studies")
        .get_template(template)
        .render(
            config=config.model_dump(),
            seeds=", ".join(str(seed) for seed in config.seeds),
            parts=parts,
            failures=failures,
            cells=len(cells),
            without_plots=without_plots(),
        )
    )
    write_bytes_atomic(path, page.encode("utf-8", "backslashreplace"))


def drawn_or_none(plots: Iterable[Plot | None]) -> list[Plot]:
    """The plots that there are, or none where matplotlib isn't installed; the page then says so.

    Hours of finished cells are not to end in an error for want of a picture.

    Args:
        plots: drawn one by one, as they are asked for.
    """
    try:
        return [plot for plot in plots if plot is not None]
    except MissingExtraError:
        return []


def _part(dataset: DataSet, summary: Sequence[Mean], tables: Sequence[Table]) -> Part:
    headline = next((mean.metric for mean in summary if mean.group == "utility"), "")
    return Part(
        dataset.name,
        [
            *drawn_or_none(scatter(summary, name, headline) for name in dataset.plotted),
            *drawn_or_none(bars(summary, name) for name in ("seconds",)),
        ],
        [table for table in tables if table.dataset == dataset.name],
    )
