"""Compare strategies: one fine-tune each, evaluated once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from forgetfilter.lab.metrics import MetricValue
from forgetfilter.lab.strategies.base import Outcome
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.datasets.base import Group, plain_metrics
from forgetfilter.lab.studies.grid import Comparison, Job, Study, run_grid
from forgetfilter.lab.studies.plots import Plot, bars, scatter
from forgetfilter.lab.studies.results import collect, summarise
from forgetfilter.lab.studies.settings import CompareConfig
from forgetfilter.lab.studies.tables import Table, tables_of
from forgetfilter.lab.studies.working import Prepared, grade, prepare
from forgetfilter.model.stages.phases import row_passes
from forgetfilter.progress import Progress
from forgetfilter.screening.inputs.setup import open_workbench

_PASSES = "rows, forward and backward"


def compare(
    config: CompareConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> Comparison:
    """Go through the grid, and write ``results.parquet``, ``table.md`` and ``compare.html``.

    Raises what `run_grid` raises.
    """
    return run_grid(CompareStudy(), config, progress, overwrite=overwrite)


class CompareStudy(Study):
    """One fine-tune per strategy, data set and seed."""

    name = "compare"
    version = 2
    page_file = "compare.html"

    def work(self, job: Job) -> dict[str, Any]:
        """Run the strategy, ask the deployed model, grade the selection, count the seconds."""
        (screen,), (data,) = job.screens, job.rounds
        # A bench of its own: no cell finds the model as another left it.
        bench = open_workbench(screen, job.run, job.progress)
        prepared = prepare(self.strategy_of(job.cell.strategy), bench, data, screen)
        outcome = self.outcome(job.cell.strategy, prepared)
        judged = job.dataset.evaluate(data, bench, outcome.state, prepared.strategy.prompt)
        seconds = bench.store.seconds()
        passes = row_passes(bench.store.counted())
        graded: list[tuple[Group, MetricValue]] = [
            *judged.metrics,
            *grade(outcome.selection, prepared.is_unsafe),
            ("cost", MetricValue("seconds", sum(seconds.values()), "seconds", "lower", 1)),
            ("cost", MetricValue("row_passes", passes, _PASSES, "lower", 1)),
            *prepared.rejected,
        ]
        return {**judged.as_dict(), "metrics": plain_metrics(graded), "seconds": seconds}

    def strategy_of(self, spec: str) -> str:
        """The strategy of the cells of ``spec``; what they are called."""
        return spec

    def outcome(self, spec: str, prepared: Prepared) -> Outcome:
        """What the strategy hands over: all of its steps."""
        return prepared.strategy.run(prepared.setting)

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """One row per strategy, data set, seed and metric."""
        return collect(cells)

    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """A table for each data set and group of metrics."""
        return tables_of(results)

    def plots(self, dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
        """Safety against utility, and seconds."""
        return plots_of(dataset, results)


def plots_of(dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
    """Each safety metric that the data set wants drawn against utility; seconds.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    means = [mean for mean in summarise(results) if mean.dataset == dataset.name]
    headline = next((mean.metric for mean in means if mean.group == "utility"), "")
    yield from (scatter(means, name, headline) for name in dataset.plotted)
    yield bars(means, "seconds")
