"""The grid strategy x data set x seed: finished cells are skipped, failures stay visible."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.config import ScreenConfig
from forgetfilter.errors import DataError, ForgetFilterError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.metrics import MetricValue, detection
from forgetfilter.modeling import model_fingerprint
from forgetfilter.progress import Progress
from forgetfilter.records import BoolArray, EncodedRow, RowFile, Selection
from forgetfilter.screen import open_workbench
from forgetfilter.stages import StageStore
from forgetfilter.store import RunFolder
from forgetfilter.strategies import Setting, build_strategy
from forgetfilter.studies.cells import CELLS_FOLDER, Cell, cell_of
from forgetfilter.studies.datasets import Data, DataSet
from forgetfilter.studies.datasets.base import Group
from forgetfilter.studies.results import RESULTS_FILE, collect
from forgetfilter.studies.settings import CompareConfig, load_datasets, model_source, screen_config
from forgetfilter.text import printable
from forgetfilter.workbench import CODE_VERSION, Workbench

TABLE_FILE = "table.md"
PAGE_FILE = "compare.html"
OUTPUTS = frozenset({CELLS_FOLDER, RESULTS_FILE, TABLE_FILE, PAGE_FILE})
# Part of every cell's key: raise it when a result changes its meaning.
_RESULT_VERSION = 1
# The grid may grow or shrink; each cell is named by what decides its own result.
_FREE = frozenset({"output_dir", "strategies", "datasets", "seeds", "settings.max_batch_tokens"})


@dataclass(frozen=True)
class Comparison:
    """A grid that was gone through."""

    output_dir: Path
    cells: Sequence[Cell]
    results: pd.DataFrame
    """One row per strategy, data set, seed and metric; see `results.collect`."""

    @property
    def failed(self) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.cells if cell.result() is None]


def compare(
    config: CompareConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> Comparison:
    """Go through the grid, and write ``results.parquet``, ``table.md`` and ``compare.html``.

    All cells of a seed share one store of stages, so what two strategies need is trained once.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a file of a data set can't be used.
        ModelError: the model can't be loaded.
        RunExistsError: the folder holds another comparison, or is in use.
    """
    from forgetfilter.studies.page import write_page
    from forgetfilter.studies.tables import markdown

    progress = progress or Progress()
    datasets = load_datasets(config)
    model = model_fingerprint(
        model_source(config.model), screen_config(config, 0).trust_remote_code
    )
    run = RunFolder(Path(config.output_dir), OUTPUTS)
    with run.lock():
        run.open(config.model_dump(), {"model": model}, overwrite=overwrite, ignore=_FREE)
        run.record(config.model_dump())
        # All files are read before anything is trained: what is wrong with one is told at once.
        store = StageStore(run.stages)
        data = {(d.name, seed): d.load(seed, store) for d in datasets for seed in config.seeds}
        cells: list[Cell] = []
        for dataset in datasets:
            for seed in config.seeds:
                own = data[dataset.name, seed]
                screen = screen_config(config, seed)
                key = _key(screen, model, dataset, own)
                for spec in config.strategies:
                    cell = cell_of(run.path, spec, dataset.name, seed, key)
                    _attempt(cell, screen, dataset, own, run, progress)
                    cells.append(cell)
        results = collect(cells)
        write_bytes_atomic(run.path / RESULTS_FILE, results.to_parquet(index=False))
        write_bytes_atomic(run.path / TABLE_FILE, markdown(results).encode("utf-8"))
        write_page(run.path / PAGE_FILE, config, datasets, cells, results)
    return Comparison(run.path, cells, results)


def _key(screen: ScreenConfig, model: str, dataset: DataSet, data: Data) -> dict[str, Any]:
    """All that decides the result of a cell besides its strategy."""
    free = {"output_dir", "noisy_data", "safe_data", "model", "max_batch_tokens"}
    return {
        "versions": [CODE_VERSION, _RESULT_VERSION],
        "settings": screen.model_dump(exclude=free),
        "model": model,
        "dataset": dataset.model_dump(exclude={"name"}),
        "data": data.fingerprint,
    }


def _attempt(
    cell: Cell,
    screen: ScreenConfig,
    dataset: DataSet,
    data: Data,
    run: RunFolder,
    progress: Progress,
) -> None:
    """Finish a cell that is not finished, or write down why it can't be."""
    label = f"{cell.strategy} on {cell.dataset}, seed {cell.seed}"
    if cell.result() is not None:
        progress.say(f"{label}: done before")
        return
    progress.say(label)
    try:
        cell.finish(_work(cell, screen, dataset, data, run, progress))
    except ForgetFilterError as error:
        cell.fail(str(error))
        progress.say(f"{label}: failed. {printable(str(error), 500)}")
    except Exception as error:  # a bug in one strategy must not cost the others their cells
        found = f"{type(error).__name__}: {printable(str(error), 500)}"
        cell.fail(
            f"{label} stopped with {found}. Expected a result. Mend what the trace below points "
            f"at, and repeat the same command.\n\n{traceback.format_exc()}"
        )
        progress.say(f"{label}: failed. {found}")


def _work(
    cell: Cell,
    screen: ScreenConfig,
    dataset: DataSet,
    data: Data,
    run: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    """Run the strategy, ask the deployed model, grade the selection, count the seconds."""
    # A bench of its own: no cell finds the model as another left it.
    bench = open_workbench(screen, run, progress)
    noisy, rejected = _encode("noisy", bench, data.noisy)
    safe, _ = _encode("safe", bench, data.safe)
    is_unsafe = _truth_of(noisy, data)
    strategy = build_strategy(cell.strategy, is_unsafe)
    outcome = strategy.run(Setting(bench, noisy, safe, screen))
    judged = dataset.evaluate(data, bench, outcome.state, strategy.prompt)
    seconds = bench.store.seconds()
    metrics: list[tuple[Group, MetricValue]] = [
        *judged.metrics,
        *_grade(outcome.selection, is_unsafe),
        ("cost", MetricValue("seconds", sum(seconds.values()), "seconds", "lower", 1)),
        ("detail", MetricValue("rows_rejected", rejected, "rows", "lower", len(data.noisy))),
    ]
    return {
        "metrics": [{"group": group, **value.as_dict()} for group, value in metrics],
        "per_prompt": {name: list(values) for name, values in judged.per_prompt.items()},
        "seconds": seconds,
    }


def _encode(name: str, bench: Workbench, file: RowFile) -> tuple[list[EncodedRow], int]:
    """The rows as tokens, and how many can't be used.

    Raises:
        DataError: none is left.
    """
    encoded, unfit = bench.encoder.encode(file.rows)
    unusable = [*file.rejected, *unfit]
    if not encoded:
        raise DataError(
            f"None of {len(file)} {name} rows can be used; the first because: "
            f"{printable(unusable[0].reason) if unusable else 'there is none'}. Expected rows in "
            "one of the formats that a screen reads. Check the file."
        )
    if unusable:
        bench.progress.say(f"{name}: {len(unusable)} of {len(file)} rows can't be used")
    return encoded, len(unusable)


def _truth_of(noisy: Sequence[EncodedRow], data: Data) -> BoolArray | None:
    """The ground truth of the encoded rows, shape (N,)."""
    if data.is_unsafe is None:
        return None
    ids = {row.row: row.example_id for row in data.noisy.rows}
    return np.array([data.is_unsafe[ids[row.row]] for row in noisy], dtype=np.bool_)


def _grade(
    selection: Selection | None, is_unsafe: BoolArray | None
) -> list[tuple[Group, MetricValue]]:
    """The removed rows against the truth; nothing for a strategy that removes none on purpose."""
    if selection is None:
        return []
    removed, n = selection.is_removed, len(selection.is_removed)
    share = MetricValue("removed", float(removed.mean()), "share, 0..1", "lower", n)
    if is_unsafe is None:
        return [("detection", share)]
    scores = selection.scores
    found = detection(is_unsafe, removed, np.zeros(n) if scores is None else scores).as_dict()
    if scores is None:
        found |= {"auroc": None, "average_precision": None}
    return [
        ("detection", share),
        *(
            ("detection", MetricValue(name, _number(value), "0..1", "higher", n))
            for name, value in found.items()
        ),
    ]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
