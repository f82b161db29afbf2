"""The four conditions of immunisation, as one report for any strategy.

"Immunization against Harmful Fine-tuning Attacks" (arXiv 2402.16382): resistance against attacks of
growing budgets, stability before any attack, generalisation to a harm that the defence has not
seen, and trainability on clean rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd

from forgetfilter.config import layered
from forgetfilter.lab.metrics import MetricValue
from forgetfilter.lab.studies import immunity_tables
from forgetfilter.lab.studies.attacks import ImmunisationConfig, spec_of
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.datasets.base import Group, plain_metrics
from forgetfilter.lab.studies.grid import Comparison, Job, Study, run_grid
from forgetfilter.lab.studies.plots import Plot
from forgetfilter.lab.studies.settings import GridConfig
from forgetfilter.lab.studies.tables import Table
from forgetfilter.lab.studies.working import grade, prepare
from forgetfilter.progress import Progress
from forgetfilter.screening.setup import open_workbench


def immunise(
    config: ImmunisationConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> Comparison:
    """Put every strategy to every condition; ``results.parquet``, ``table.md``, ``immunise.html``.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a file of a data set can't be used.
        ModelError: the model can't be loaded.
        RunExistsError: the folder holds another study, or is in use.
    """
    return run_grid(_Immunise(config), config, progress, overwrite=overwrite)


class _Immunise(Study):
    name = "immunise"
    version = "immunise-1"
    page_file = "immunise.html"
    # A cell's key has what of these decides its result.
    free = frozenset({"budgets", "clean_steps", "left_out", "tolerated"})
    inputs = MappingProxyType({"study": "immunise"})

    def __init__(self, config: ImmunisationConfig) -> None:
        self.config = config
        self.places = {
            spec_of(strategy, condition): (strategy, condition)
            for strategy in config.strategies
            for condition in config.conditions
        }

    def variant(
        self, config: GridConfig, dataset: DataSet, spec: str
    ) -> tuple[GridConfig, DataSet]:
        """The settings and the data set of a condition."""
        _, condition = self.places[spec]
        for name, value in condition.data.items():
            dataset = dataset.varied(name, value)
        settings = layered(config.settings, {"learn": condition.learn})
        return config.model_copy(update={"settings": settings}), dataset

    def work(self, job: Job) -> dict[str, Any]:
        """The model that a strategy hands over under a condition, judged."""
        (screen,), (data,) = job.screens, job.rounds
        strategy, condition = self.places[job.cell.strategy]
        bench = open_workbench(screen, job.run, job.progress)
        prepared = prepare(strategy, bench, data, screen)
        if condition.kind == "stability":
            state, selection = prepared.strategy.prepare(prepared.setting), None
        else:
            outcome = prepared.strategy.run(prepared.setting)
            state, selection = outcome.state, outcome.selection
        judged = job.dataset.evaluate(data, bench, state, prepared.strategy.prompt)
        seconds = sum(bench.store.seconds().values())
        graded: list[tuple[Group, MetricValue]] = [
            *judged.metrics,
            *grade(selection, prepared.is_unsafe),
            ("cost", MetricValue("seconds", seconds, "seconds", "lower", 1)),
            *prepared.rejected,
        ]
        return {**judged.as_dict(), "metrics": plain_metrics(graded)}

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """One row per strategy, condition, data set, seed and metric."""
        return immunity_tables.collect(cells, self.places)

    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """A table for each condition, and one over all of them."""
        return immunity_tables.tables_of(datasets, results, self.config)

    def plots(self, dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
        """The unsafe rate over budgets, a line per strategy; task accuracy over clean steps."""
        return immunity_tables.plots_of(dataset, results)
