"""A study as one self-contained HTML page with plots; never loads a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetfilter.errors import MissingExtraError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.plots import Plot, without_plots
from forgetfilter.lab.studies.settings import GridConfig
from forgetfilter.lab.studies.tables import Table
from forgetfilter.runs.report.page import page_environment
from forgetfilter.runs.report.shown_text import Clip, clip


@dataclass(frozen=True)
class Part:
    """One data set's plots and tables."""

    dataset: str
    plots: list[Plot]
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
    template: str,
    config: GridConfig,
    datasets: Sequence[DataSet],
    cells: Sequence[Cell],
    plots: Callable[[DataSet], Iterable[Plot | None]],
    tables: Sequence[Table],
) -> None:
    """Write a study's page from its template; failed cells come first, and everything is escaped.

    Args:
        path: the file.
        template: extends ``study.html``, which shows each data set's plots and tables.
        config: the study's settings.
        datasets: all of its data sets, in the order of the page.
        cells: all of its cells.
        plots: what is drawn of a data set, one by one as they are asked for; None is left out.
        tables: the tables of all data sets; one of several together comes first, under the name
            that it has in place of a data set's.
    """
    own = {dataset.name for dataset in datasets}
    others = dict.fromkeys(table.dataset for table in tables if table.dataset not in own)
    parts = [
        Part(name, [], [table for table in tables if table.dataset == name]) for name in others
    ]
    parts += [
        Part(
            dataset.name,
            _drawn(plots(dataset)),
            [table for table in tables if table.dataset == dataset.name],
        )
        for dataset in datasets
    ]
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


def _drawn(plots: Iterable[Plot | None]) -> list[Plot]:
    """The plots that there are, or none where matplotlib isn't installed; the page then says so.

    Hours of finished cells are not to end in an error for want of a picture.
    """
    try:
        return [plot for plot in plots if plot is not None]
    except MissingExtraError:
        return []
