"""A leaderboard of row scorers: every scorer on every labelled mix and seed, with its cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ConfigError
from forgetfilter.lab.metrics import MetricValue
from forgetfilter.lab.metrics.ranking import ranking_values
from forgetfilter.lab.metrics.values import share_value
from forgetfilter.lab.row_scorers import Given, Passes, RowScorer, build_scorer, lowest_first
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import Data, DataSet
from forgetfilter.lab.studies.datasets.base import Group, plain_metrics
from forgetfilter.lab.studies.datasets.labelled import LabelledRows
from forgetfilter.lab.studies.grid import Comparison, Job, Study, run_grid
from forgetfilter.lab.studies.leaderboard_tables import board_tables
from forgetfilter.lab.studies.plots import Plot
from forgetfilter.lab.studies.results import collect
from forgetfilter.lab.studies.settings import GridConfig, LeaderboardConfig
from forgetfilter.lab.studies.tables import Table
from forgetfilter.lab.studies.working import prepare
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.inputs.setup import open_workbench

_DRAWN = 2
"""Raised when a seed draws other exemplars."""
_LEAST_POOL = 40
"""Rows that a data set is asked for at least, some of which may be among the noisy ones."""


def leaderboard(
    config: LeaderboardConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> Comparison:
    """Go through the grid, and write ``results.parquet``, ``table.md`` and ``leaderboard.html``.

    Raises what `run_grid` raises.
    """
    return run_grid(_Leaderboard(), config, progress, overwrite=overwrite)


class _Leaderboard(Study):
    name = "leaderboard"
    version = "leaderboard-1"
    page_file = "leaderboard.html"
    judges_models = False
    free = frozenset({"scorers"})
    inputs: Mapping[str, str] = MappingProxyType({"study": "leaderboard"})

    def __init__(self) -> None:
        self._cells: Sequence[Cell] = ()

    def variant(
        self, config: GridConfig, dataset: DataSet, spec: str
    ) -> tuple[GridConfig, DataSet]:
        """The model of the data set, where it names one."""
        if isinstance(dataset, LabelledRows) and dataset.model is not None:
            return config.model_copy(update={"model": dataset.model}), dataset
        return config, dataset

    def extra_key(self, spec: str, rounds: Sequence[Data]) -> dict[str, Any]:
        """The scorer's own version, where it has one, and how exemplars are drawn for it."""
        scorer = build_scorer(spec)
        version = getattr(scorer, "version", None)
        drawn = {"exemplars_drawn": _DRAWN} if scorer.needs.exemplars else {}
        return drawn if version is None else {"scorer_version": version, **drawn}

    def work(self, job: Job) -> dict[str, Any]:
        """Score the rows, grade the ranking, and count what it cost."""
        (screen,), (data,) = job.screens, job.rounds
        if data.is_unsafe is None:
            raise ConfigError(
                f"The data set {job.dataset.name!r} has no truth, so nothing can be graded. "
                "Expected a file with is_unsafe for every row. Add 'truth: FILE.jsonl'."
            )
        scorer = build_scorer(job.cell.strategy)
        bench = open_workbench(screen, job.run, job.progress)
        store = bench.store = TimedStore(job.run.stages, None)
        prepared = prepare("none", bench, data, screen)
        given = Given(prepared.setting, _pool(scorer, job, bench), Passes())
        bench.model.in_state(bench.base)  # loading it is no scorer's cost
        start = time.perf_counter()
        found = scorer.score(given)
        seconds = time.perf_counter() - start - store.built + sum(store.seconds().values())
        is_unsafe = prepared.is_unsafe
        if is_unsafe is None or len(found) != len(is_unsafe):
            raise ValueError(f"{scorer.name} gave {len(found)} scores for another number of rows")
        metrics = [
            *_graded(is_unsafe, found, job.cell.seed),
            *_costs(given.passes, seconds, len(found)),
            *prepared.rejected,
        ]
        return {
            "metrics": plain_metrics(metrics),
            "per_prompt": {},
            "needs": scorer.needs.words,
            "scores": list(found),
            "is_unsafe": [bool(one) for one in is_unsafe],
            "passes": vars(given.passes),
        }

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """One row per scorer (column ``strategy``), data set, seed and metric."""
        self._cells = cells
        return collect(cells)

    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """All data sets together, and each of them."""
        return board_tables(datasets, results, self._cells)

    def plots(self, dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
        """None."""
        return iter(())


class TimedStore(StageStore):
    """A store that knows how long it spent on stages that it had to make itself."""

    def __init__(self, root: Path, on_reuse: Callable[[str], None] | None = None) -> None:
        super().__init__(root, on_reuse)
        self.built = 0.0
        """Seconds; a stage that is made for another one counts within that one."""
        self._depth = 0

    def stage(self, name: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """As `StageStore.stage`."""

        def timed(folder: Path) -> None:
            start = time.perf_counter()
            self._depth += 1
            try:
                build(folder)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.built += time.perf_counter() - start

        return super().stage(name, key, timed)


def _pool(scorer: RowScorer, job: Job, bench: Workbench) -> Sequence[EncodedRow]:
    """The rows that exemplars are drawn from, as tokens; none where the scorer wants none."""
    wanted = scorer.needs.exemplars
    if not wanted:
        return ()
    rows = job.dataset.exemplars_of(job.cell.seed, max(2 * wanted, _LEAST_POOL))
    return bench.encoder.encode(rows)[0]


def _graded(
    is_unsafe: np.ndarray[Any, np.dtype[np.bool_]], found: Sequence[float | None], seed: int
) -> list[tuple[Group, MetricValue]]:
    values = ranking_values(is_unsafe, lowest_first(found), seed)
    judged = share_value("judged", [score is not None for score in found], "higher")
    unsafe = MetricValue("unsafe_rows", float(is_unsafe.sum()), "rows", "none", len(found))
    graded: list[tuple[Group, MetricValue]] = [("detection", value) for value in values]
    return [*graded, ("detail", judged), ("detail", unsafe)]


def _costs(passes: Passes, seconds: float, rows: int) -> list[tuple[Group, MetricValue]]:
    counted = {name: count / rows for name, count in vars(passes).items()}
    costs = [
        MetricValue(f"{name}_passes", value, "passes a row", "lower", rows)
        for name, value in counted.items()
    ]
    costs.append(MetricValue("seconds", seconds, "seconds", "lower", 1))
    return [("cost", cost) for cost in costs]
