"""Rounds of noisy and safe training: how a strategy does in the long term.

"Learning and Forgetting Unsafe Examples in Large Language Models" (arXiv 2312.12736), section 4.
Each round brings fresh noisy rows, and each phase starts from the state that the last one saved.
The steps of a strategy say what happens in a round: ``select`` and ``train`` make its noisy phase,
``repair`` its safe phase, ``prompt`` the wording at each evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pandas as pd

from forgetfilter.config import ScreenConfig
from forgetfilter.lab.metrics import MetricValue
from forgetfilter.lab.strategies import Strategy
from forgetfilter.lab.studies import boundaries
from forgetfilter.lab.studies.boundaries import NOISY, SAFE, START, place
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.datasets import Data, DataSet
from forgetfilter.lab.studies.datasets.base import Group, plain_metrics
from forgetfilter.lab.studies.grid import Comparison, Job, Study, run_grid
from forgetfilter.lab.studies.plots import Plot
from forgetfilter.lab.studies.settings import (
    GridConfig,
    InterleaveConfig,
    check_rounds,
    round_seeds,
)
from forgetfilter.lab.studies.tables import Table
from forgetfilter.lab.studies.working import grade, prepare
from forgetfilter.model.stages.keys import CODE_VERSION
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.screening.inputs.setup import open_workbench

_VERSION = "interleave-2"
_JUDGED_FILE = "judged.json"

Judgement = dict[str, Any]
"""``metrics`` and ``per_prompt``, as a cell keeps them."""


def interleave(
    config: InterleaveConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> Comparison:
    """Go through all rounds; write ``results.parquet``, ``table.md`` and ``interleave.html``.

    Raises what `run_grid` raises.
    """
    check_rounds(config)
    return run_grid(_Interleave(config.rounds), config, progress, overwrite=overwrite)


class _Interleave(Study):
    name = "interleave"
    version = _VERSION
    page_file = "interleave.html"
    # With more rounds a cell goes on from the stages of those that it had.
    free = frozenset({"rounds"})
    inputs = MappingProxyType({"study": "interleave"})

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def round_seeds(self, config: GridConfig, seed: int) -> list[int]:
        """Fresh noisy rows, order and dropout for each round."""
        return round_seeds(seed, self.rounds)

    def work(self, job: Job) -> dict[str, Any]:
        """All rounds of a strategy, judged at every phase boundary."""
        course = _Course(job)
        for screen, data in zip(job.screens, job.rounds, strict=True):
            course.go_through(screen, data)
        return {"boundaries": course.boundaries, "seconds": course.seconds}

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """One row per strategy, data set, seed, boundary and metric."""
        return boundaries.collect(cells)

    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """A table for each data set and metric."""
        return boundaries.tables_of(datasets, results)

    def plots(self, dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
        """Each headline over the boundaries, a line per strategy."""
        return boundaries.plots_of(dataset, results)


class _Course:
    """One strategy on its way through the rounds."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.boundaries: list[dict[str, Any]] = []
        self.seconds: list[dict[str, float]] = []
        """By stage, for each round."""
        self.state: ModelState | None = None
        """What the last phase left; None before the first."""

    def go_through(self, screen: ScreenConfig, fresh: Data) -> None:
        """One round: the noisy phase on ``fresh`` rows, and the safe phase where there is one."""
        first = self.job.rounds[0]
        number = len(self.seconds) + 1
        # Only the noisy rows are fresh: safe rows and held-out prompts stay those of the seed.
        data = replace(fresh, safe=first.safe, prompts=first.prompts)
        bench = open_workbench(screen, self.job.run, self.job.progress)
        prepared = prepare(self.job.cell.strategy, bench, data, screen)
        strategy, setting = prepared.strategy, prepared.setting
        if self.state is None:
            self.state = strategy.prepare(setting)
            self._judge(0, START, bench, strategy, self.state, [])

        # The rows are chosen by the original model, the fine-tune continues the last state.
        selection = strategy.select(setting)
        trained = strategy.train(setting, selection, self.state)
        spent = _spent(bench)
        graded: list[tuple[Group, MetricValue]] = [
            *grade(selection, prepared.is_unsafe),
            _seconds(spent),
            *prepared.rejected,
        ]
        self._judge(number, NOISY, bench, strategy, trained, graded)

        self.state = strategy.repair(setting, trained)
        if self.state != trained:
            graded = [_seconds(_spent(bench) - spent)]
            self._judge(number, SAFE, bench, strategy, self.state, graded)
        self.seconds.append(bench.store.seconds())

    def _judge(
        self,
        number: int,
        phase: str,
        bench: Workbench,
        strategy: Strategy,
        state: ModelState,
        graded: Sequence[tuple[Group, MetricValue]],
    ) -> None:
        """What the data set says of ``state``, with ``graded`` beside it, as one more boundary."""
        judged = _judged(self.job, bench, strategy, state)
        self.boundaries.append(
            {
                **place(number, phase),
                "state": state.fingerprint,
                "metrics": [*judged["metrics"], *plain_metrics(graded)],
                "per_prompt": judged["per_prompt"],
            }
        )


def _judged(job: Job, bench: Workbench, strategy: Strategy, state: ModelState) -> Judgement:
    """The data set's judgement of a state: a stage, so that a killed cell asks no prompt twice.

    Strategies that leave prompts as they are share it.
    """
    data, screen = job.rounds[0], job.screens[0]
    key = {
        "versions": [CODE_VERSION, _VERSION],
        "state": state.fingerprint,
        "dataset": job.dataset.model_dump(exclude={"name"}),
        "data": data.fingerprint,
        "prompt": job.cell.strategy if strategy.rewords else None,
        "encoding": [screen.template, screen.max_length_tokens],
        **bench.numerics(),
    }

    def build(folder: Path) -> None:
        judged = job.dataset.evaluate(data, bench, state, strategy.prompt)
        (folder / _JUDGED_FILE).write_text(json.dumps(judged.as_dict()), encoding="utf-8")

    # Seconds are those of training and screening; every strategy is evaluated in the same way.
    with bench.store.uncounted():
        folder = bench.store.stage("judge", key, build)
    return cast(Judgement, json.loads((folder / _JUDGED_FILE).read_bytes()))


def _spent(bench: Workbench) -> float:
    return sum(bench.store.seconds().values())


def _seconds(value: float) -> tuple[Group, MetricValue]:
    return "cost", MetricValue("seconds", value, "seconds", "lower", 1)
