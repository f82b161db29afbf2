"""The grid of specs (strategies, or points of a sweep), data sets and seeds, a cell each.

Finished cells are skipped, failures stay visible.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError, ForgetFilterError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.lab.studies.cells import CELLS_FOLDER, Cell, cell_of
from forgetfilter.lab.studies.datasets import Data, DataSet
from forgetfilter.lab.studies.page import write_page
from forgetfilter.lab.studies.plots import Plot
from forgetfilter.lab.studies.results import RESULTS_FILE
from forgetfilter.lab.studies.settings import GridConfig, load_datasets, open_model, screen_config
from forgetfilter.lab.studies.tables import Table, markdown
from forgetfilter.lab.studies.workers import attempt_all
from forgetfilter.model.loading.model_files import model_fingerprint
from forgetfilter.model.stages.keys import CODE_VERSION
from forgetfilter.progress import Progress
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.formulas import formulas_named
from forgetfilter.scoring.thresholds import choose_rule
from forgetfilter.text import printable

TABLE_FILE = "table.md"
PAGE_FILES = (
    "compare.html",
    "interleave.html",
    "curves.html",
    "immunise.html",
    "compose.html",
    "leaderboard.html",
    "robustness.html",
)
"""Pages of all kinds of study: one that takes another's folder leaves none of its pages there."""
# The grid may grow or shrink; each cell is named by what decides its own result.
_FREE = frozenset(
    {"output_dir", "strategies", "datasets", "seeds", "num_proc"}
    | {"settings.max_batch_tokens", "settings.checkpoint_minutes"}
)


@dataclass(frozen=True)
class Comparison:
    """A grid of which every cell was tried."""

    output_dir: Path
    cells: Sequence[Cell]
    results: pd.DataFrame
    """One row per strategy, data set, seed and metric, and per phase boundary where a study has
    several; the study's own ``collect`` has the columns."""
    table: str
    """What ``table.md`` holds."""
    page: Path

    @property
    def failed(self) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.cells if cell.result() is None]


@dataclass(frozen=True)
class Job:
    """What one cell has to work on: a round for each of ``screens`` and ``rounds``."""

    cell: Cell
    screens: Sequence[ScreenConfig]
    dataset: DataSet
    rounds: Sequence[Data]
    run: RunFolder
    progress: Progress


class Study(ABC):
    """What a kind of study does in a cell, and what it makes of all cells."""

    name = "study"
    version: Any = 1
    """Part of every cell's key: raise it when a result changes its meaning."""
    page_file = "study.html"
    """The page's file, and its template in ``templates/``."""
    judges_models: bool = True
    """Whether it asks tuned models the prompts of its data sets."""
    free: frozenset[str] = frozenset()
    """Settings of its own that may differ when a run goes on."""
    inputs: Mapping[str, str] = MappingProxyType({})
    """What distinguishes its run folder from that of another kind of study."""

    def round_seeds(self, config: GridConfig, seed: int) -> list[int]:
        """The seed of each round of a cell; one round, of the cell's own seed."""
        return [seed]

    def variant(
        self, config: GridConfig, dataset: DataSet, spec: str
    ) -> tuple[GridConfig, DataSet]:
        """The model and settings, and the data set, that the cells of ``spec`` have; all the same.

        Raises:
            ConfigError: the data set can't be varied so.
        """
        return config, dataset

    def extra_key(self, spec: str, rounds: Sequence[Data]) -> dict[str, Any]:
        """What else of this kind of study decides the result of a cell; nothing."""
        return {}

    def recall(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell that is known from elsewhere; None."""
        return None

    @abstractmethod
    def work(self, job: Job) -> dict[str, Any]:
        """The result of one cell."""

    @abstractmethod
    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """All results as one tidy table."""

    @abstractmethod
    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """What people read: in the terminal, in ``table.md`` and on the page."""

    @abstractmethod
    def plots(self, dataset: DataSet, results: pd.DataFrame) -> Iterator[Plot | None]:
        """What is drawn of a data set on the page; None for what there is nothing of."""


def run_grid(
    study: Study, config: GridConfig, progress: Progress | None, *, overwrite: bool
) -> Comparison:
    """Go through the grid, and write ``results.parquet``, ``table.md`` and the study's page.

    All cells of a data set share one store of stages, so what two strategies need is trained once.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a file of a data set can't be used.
        ModelError: the model can't be loaded.
        RunExistsError: the folder holds another study, or is in use.
    """
    progress = progress or Progress()
    datasets = load_datasets(config)
    for dataset in datasets:
        if study.judges_models and not dataset.has_prompts:
            raise ConfigError(
                f"The data set {dataset.name!r} has no prompts to judge a model by. Expected kind: "
                "files or testbed. Change its kind, or use `forgetfilter leaderboard`."
            )
    trust = screen_config(config, 0).trust_remote_code
    models = {config.model: model_fingerprint(open_model(config.model, progress), trust)}
    outputs = frozenset({CELLS_FOLDER, RESULTS_FILE, TABLE_FILE, *PAGE_FILES, study.page_file})
    run = RunFolder(Path(config.output_dir), outputs)
    with run.lock():
        inputs = {"model": models[config.model], **study.inputs}
        run.open(config.model_dump(), inputs, overwrite=overwrite, ignore=_FREE | study.free)
        run.record(config.model_dump())
        # All files are read before anything is trained: an error in one is reported at once.
        store = StageStore(run.stages)
        data: dict[tuple[str, int], Data] = {}
        jobs: list[Job] = []
        for dataset, seed, spec in product(datasets, config.seeds, config.specs):
            settings, rows = study.variant(config, dataset, spec)
            if settings.model not in models:
                source = open_model(settings.model, progress)
                models[settings.model] = model_fingerprint(source, trust)
            seeds = study.round_seeds(config, seed)
            for own in seeds:
                if (rows.model_dump_json(), own) not in data:
                    data[rows.model_dump_json(), own] = rows.load(own, store)
            rounds = [data[rows.model_dump_json(), own] for own in seeds]
            screens = [screen_config(settings, own) for own in seeds]
            key = _key(study, screens[0], models[settings.model], rows, rounds)
            key |= study.extra_key(spec, rounds)
            named = formulas_named(spec, screens[0].signal, str(key["settings"]["threshold"]))
            key |= {"formulas": named} if named else {}
            cell = cell_of(run.path, spec, dataset.name, seed, key)
            cell.forget_error()
            jobs.append(Job(cell, screens, rows, rounds, run, progress))
        attempt_all(study, jobs, config.num_proc, _attempt)
        cells = [job.cell for job in jobs]
        results = study.collect(cells)
        tables = study.tables(datasets, results)
        table = markdown(results, tables)
        page = run.path / study.page_file
        write_bytes_atomic(run.path / RESULTS_FILE, results.to_parquet(index=False))
        write_bytes_atomic(run.path / TABLE_FILE, table.encode("utf-8"))
        plots = partial(study.plots, results=results)
        write_page(page, study.page_file, config, datasets, cells, plots, tables)
    return Comparison(run.path, cells, results, table, page)


def _key(
    study: Study, screen: ScreenConfig, model: str, dataset: DataSet, rounds: Sequence[Data]
) -> dict[str, Any]:
    """All that decides the result of a cell besides its strategy."""
    free = {"output_dir", "noisy_data", "safe_data", "model", "max_batch_tokens"}
    free |= {"checkpoint_minutes"}  # which changes nothing but what a killed cell loses
    # Which no strategy reads.
    free |= {"second_opinion", "joint", "describe_harm", "trusted_data"}
    settings = screen.model_dump(exclude=free)
    with suppress(ConfigError):  # a signal without a rule of its own, of which no screen is made
        settings["threshold"] = choose_rule(screen.signal, screen.threshold)
    prints = [data.fingerprint for data in rounds]
    return {
        "versions": [CODE_VERSION, study.version],
        "settings": settings,
        "model": model,
        "dataset": dataset.model_dump(exclude={"name"}),
        "data": prints[0] if len(prints) == 1 else prints,
    }


def _attempt(study: Study, job: Job) -> None:
    """Finish a cell that is not finished, or write down why it can't be."""
    cell, progress = job.cell, job.progress
    label = f"{printable(cell.strategy, 120)} on {cell.dataset}, seed {cell.seed}"
    if cell.result() is not None:
        progress.say(f"{label}: done before")
        return
    kept = study.recall(cell)
    if kept is not None:
        cell.finish(kept)
        progress.say(f"{label}: known from a kept file")
        return
    progress.say(label)
    try:
        cell.finish(study.work(job))
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
