"""Curves: losses of rows by step of learning and forgetting, and screens along one setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import BoolArray
from forgetfilter.config import layered
from forgetfilter.lab.metrics import MetricValue
from forgetfilter.lab.metrics.values import share_value
from forgetfilter.lab.studies import curve_tables
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.course import ResultRow, follow, result_row
from forgetfilter.lab.studies.datasets import Data, DataSet
from forgetfilter.lab.studies.datasets.base import digest
from forgetfilter.lab.studies.grid import Comparison, Job, Study, run_grid
from forgetfilter.lab.studies.kept import Kept, read_kept
from forgetfilter.lab.studies.plots import Plot
from forgetfilter.lab.studies.points import COURSE, CurvesConfig, Point
from forgetfilter.lab.studies.settings import GridConfig
from forgetfilter.lab.studies.tables import Table
from forgetfilter.lab.studies.working import grade, prepare
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Selection
from forgetfilter.scoring.thresholds.base import NOT_LEARNED
from forgetfilter.screening.inputs.setup import open_workbench


def curves(
    config: CurvesConfig,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    from_results: Sequence[str | Path] = (),
) -> Comparison:
    """Go through the course and all sweeps; write ``results.parquet``, ``table.md``, a page.

    Args:
        config: what is drawn.
        progress: where the cells report.
        overwrite: replace a run that differs.
        from_results: results files whose finished cells are taken over instead of being run.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a file of a data set, or of results, can't be used.
        ModelError: a model can't be loaded.
        RunExistsError: the folder holds another study, or is in use.
    """
    return run_grid(_Curves(config, read_kept(from_results)), config, progress, overwrite=overwrite)


class _Curves(Study):
    name = "curves"
    version = "curves-1"
    page_file = "curves.html"
    # A cell's key has what of these decides its result.
    free = frozenset({"course", "sweeps"})
    inputs = MappingProxyType({"study": "curves"})

    def __init__(self, config: CurvesConfig, kept: Kept) -> None:
        self.config = config
        self.points = {point.spec: point for point in config.points}
        self.kept = kept

    def variant(
        self, config: GridConfig, dataset: DataSet, spec: str
    ) -> tuple[GridConfig, DataSet]:
        """The model, settings and data set with what the point varies."""
        point = self.points[spec]
        for name, value in point.data.items():
            dataset = dataset.varied(name, value)
        settings = layered(config.settings, point.settings)
        model = point.model or config.model
        return config.model_copy(update={"settings": settings, "model": model}), dataset

    def extra_key(self, spec: str, rounds: Sequence[Data]) -> dict[str, Any]:
        """Of the course: the steps at which it is measured, and the kinds of row that are drawn."""
        if spec != COURSE or self.config.course is None:
            return {}
        kinds = {name: [own.kind, own.harm] for name, own in rounds[0].kinds.items()}
        return {"course": self.config.course.model_dump(), "kinds": digest(kinds)}

    def recall(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell that a kept file holds."""
        rows = self.kept.get(cell.fingerprint)
        return None if rows is None else {"rows": rows}

    def work(self, job: Job) -> dict[str, Any]:
        """The course, or one screen."""
        (screen,), (data,) = job.screens, job.rounds
        course, point = self.config.course, self.points[job.cell.strategy]
        bench = open_workbench(screen, job.run, job.progress)
        if course is not None:  # so that screens share the phases of the course
            bench.kept_steps = {
                "learn": course.learning_steps or (),
                "forget": course.forgetting_steps,
            }
        # For the course this gives the rows and the truth; it screens nothing.
        prepared = prepare("forget_filter", bench, data, screen)
        own = prepared.is_unsafe
        if course is not None and point.curve == COURSE:
            rows = follow(prepared.setting, course, data, own)
        else:
            selection = prepared.strategy.select(prepared.setting)
            rows = _screened(point, selection, own)
            seconds = MetricValue(
                "seconds", sum(bench.store.seconds().values()), "seconds", "lower", 1
            )
            rows.append(_at(point, "cost", seconds))
        rows += [_at(point, group, value) for group, value in prepared.rejected]
        return {"rows": rows, "seconds": bench.store.seconds()}

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """One row per data set, seed, place on a curve, line and metric."""
        return curve_tables.collect(cells, self.points)

    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """A table for each data set, curve and metric."""
        return curve_tables.tables_of(datasets, results)

    def plots(self, dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
        """A plot for each curve and metric."""
        return (plot for _, plot in curve_tables.plots_of(results, dataset.name))


def _screened(
    point: Point, selection: Selection | None, is_unsafe: BoolArray | None
) -> list[ResultRow]:
    """How a screen's decision and scores are graded."""
    rows = [_at(point, "detection", value) for _, value in grade(selection, is_unsafe)]
    if selection is None:
        return rows
    learned = [reason != NOT_LEARNED for reason in selection.reasons]
    cut = MetricValue("threshold", selection.cut.value, "unit of the score", "none", len(learned))
    rows.append(_at(point, "detection", cut))
    rows.append(_at(point, "detection", share_value("learned_share", learned, "higher")))
    if is_unsafe is None:
        return rows
    if not is_unsafe.any():
        # Precision and F1 of nothing to be found say nothing; what is removed by mistake does.
        undefined = ("precision", "recall", "f1", "average_precision")
        rows = [{**row, "value": None} if row["metric"] in undefined else row for row in rows]
    clean = np.asarray(selection.is_removed)[~is_unsafe]
    removed = share_value("removed_clean", clean.tolist(), "lower")
    return [*rows, _at(point, "detection", removed)]


def _at(point: Point, group: str, value: MetricValue) -> ResultRow:
    return result_row(point.curve, point.setting, point.x, point.signal, group, value)
