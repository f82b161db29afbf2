"""The four conditions of immunisation, as one report for any strategy.

"Immunization against Harmful Fine-tuning Attacks" (arXiv 2402.16382): resistance against attacks of
growing budgets, stability before any attack, generalisation to a harm that the defence has not
seen, and trainability on clean rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

import pandas as pd

from forgetfilter.config import layered
from forgetfilter.lab.strategies.base import Outcome
from forgetfilter.lab.studies import immunity_tables
from forgetfilter.lab.studies.attacks import ImmunisationConfig, spec_of
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.compare import CompareStudy
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.grid import Comparison, run_grid
from forgetfilter.lab.studies.plots import Plot
from forgetfilter.lab.studies.settings import GridConfig
from forgetfilter.lab.studies.tables import Table
from forgetfilter.lab.studies.working import Prepared
from forgetfilter.progress import Progress


def immunise(
    config: ImmunisationConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> Comparison:
    """Put every strategy to every condition; ``results.parquet``, ``table.md``, ``immunise.html``.

    Raises what `run_grid` raises.
    """
    return run_grid(_Immunise(config), config, progress, overwrite=overwrite)


class _Immunise(CompareStudy):
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

    def strategy_of(self, spec: str) -> str:
        """The strategy without its condition."""
        return self.places[spec][0]

    def outcome(self, spec: str, prepared: Prepared) -> Outcome:
        """The model that a strategy hands over under a condition; before any attack its start."""
        if self.places[spec][1].kind == "stability":
            return Outcome(prepared.strategy.prepare(prepared.setting), None)
        return super().outcome(spec, prepared)

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """One row per strategy, condition, data set, seed and metric."""
        return immunity_tables.collect(cells, self.places)

    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """A table for each condition, and one over all of them."""
        return immunity_tables.tables_of(datasets, results, self.config)

    def plots(self, dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
        """The unsafe rate over budgets, a line per strategy; task accuracy over clean steps."""
        return immunity_tables.plots_of(dataset, results)
