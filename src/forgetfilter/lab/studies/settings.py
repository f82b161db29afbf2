"""The settings of a study: one YAML file, strict about names like all settings."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from forgetfilter.config import ScreenConfig, Settings, resolve
from forgetfilter.errors import ConfigError
from forgetfilter.lab.row_scorers import build_scorer
from forgetfilter.lab.strategies import check_spec
from forgetfilter.lab.studies.datasets import DATASETS, DataSet, WorldRows
from forgetfilter.lab.testbed import bundled_model_path
from forgetfilter.lab.testbed.worlds.cache import world_folder, world_path
from forgetfilter.progress import Progress
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS
from forgetfilter.text import printable

PACKAGED_MODEL = "packaged:testbed"
"""The ``model`` that means the one that comes with the package."""

WORLD_PREFIX = "world:"
"""Begins the ``model`` that means the one of a drawn world; its number follows."""

_ROUND_STRIDE = 1000
# What a comparison sets itself in each cell.
_RESERVED = ("noisy_data", "safe_data", "reference_data", "model", "output_dir", "seed")


class GridConfig(Settings, ABC):
    """What every study has: a model, data sets, seeds, and the settings that all cells share."""

    output_dir: str = Field(description="run folder")
    model: str = Field(
        default=PACKAGED_MODEL,
        description="causal language model: a folder or a hub id; packaged:testbed = the model "
        "that comes with the package; world:NUMBER = that of a drawn world, built when it is first "
        "used",
    )
    datasets: list[dict[str, Any]] = Field(
        min_length=1,
        description="data sets, each with its kind: testbed, files, or labelled for a leaderboard",
    )
    seeds: list[int] = Field(min_length=1, description="each is a cell of every pair of the above")
    settings: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="any setting of a screen but paths, model and seed; the same in all cells",
    )
    num_proc: int = Field(
        default=1,
        ge=1,
        description="processes, each on cells of another seed and its part of the cores",
    )

    @property
    @abstractmethod
    def specs(self) -> list[str]:
        """What is run on every seed of every data set, one cell each."""

    def check(self) -> None:
        """Check what can be checked before work, in addition to what all studies have.

        Raises:
            ConfigError: something is wrong.
        """


class CompareConfig(GridConfig):
    """The grid strategy x data set x seed."""

    strategies: list[str] = Field(min_length=1, description="names with options, joined by +")

    @property
    def specs(self) -> list[str]:
        """The strategies."""
        return self.strategies

    def check(self) -> None:
        """Every strategy is one, and is named once."""
        refuse_repeats("strategies", self.strategies)
        screen = screen_config(self, 0)
        for spec in self.strategies:
            check_spec(spec, screen)


class LeaderboardConfig(GridConfig):
    """The grid row scorer x labelled mix x seed."""

    scorers: list[str] = Field(min_length=1, description="row scorers with their options")

    @property
    def specs(self) -> list[str]:
        """The scorers."""
        return self.scorers

    def check(self) -> None:
        """Every scorer is one, and is named once."""
        refuse_repeats("scorers", self.scorers)
        for spec in self.scorers:
            build_scorer(spec)


class InterleaveConfig(CompareConfig):
    """A grid whose cells go through several rounds, each with fresh noisy rows."""

    rounds: int = Field(
        default=4, ge=1, description="rounds, each a noisy phase and, for some, a safe one"
    )


def load_datasets(config: GridConfig) -> list[DataSet]:
    """The data sets that ``config`` names; checks everything else that can be checked before work.

    Raises:
        ConfigError: a data set, a seed, a setting, or what the kind of study checks, is wrong.
    """
    refuse_reserved("settings", config.settings)
    config.check()
    refuse_repeats("seeds", config.seeds)
    if not all(0 <= seed < 2**32 for seed in config.seeds):
        raise ConfigError(f"seeds is {config.seeds}; expected numbers from 0 to 2^32 - 1.")
    screen = screen_config(config, 0)
    SIGNALS.build(screen.signal)
    if screen.threshold is not None:  # whether it fits a signal is checked with what screens
        THRESHOLDS.build(screen.threshold)
    datasets = [_load_one(at, given) for at, given in enumerate(config.datasets)]
    for dataset in datasets:
        _check_world(config.model, dataset)
    refuse_repeats("the names of datasets", [dataset.name for dataset in datasets])
    return datasets


def refuse_reserved(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings of a screen that a study gives itself.

    Raises:
        ConfigError: there are some.
    """
    reserved = sorted(set(settings).intersection(_RESERVED))
    if reserved:
        raise ConfigError(
            f"{printable(name, 120)} names {', '.join(reserved)}; expected settings of a screen "
            "other than its paths, model and seed. Name the model beside 'settings', and files "
            "under 'datasets'."
        )


def screen_config(config: GridConfig, seed: int) -> ScreenConfig:
    """The settings of one cell, as a screen would have them."""
    own = {
        "noisy_data": "(given)",
        "safe_data": "(given)",
        "model": model_source(config.model),
        "output_dir": config.output_dir,
        "seed": seed,
    }
    return resolve(ScreenConfig, config.settings, own)


def round_seeds(seed: int, rounds: int) -> list[int]:
    """The seed of each round: the cell's own in the first, and a thousand more in each next."""
    return [seed + _ROUND_STRIDE * number for number in range(rounds)]


def check_rounds(config: InterleaveConfig) -> None:
    """See to it that no round of a seed has the seed of another's.

    Raises:
        ConfigError: one has, or it is beyond the numbers that a seed may be.
    """
    met: dict[int, int] = {}
    for seed in config.seeds:
        for own in round_seeds(seed, config.rounds):
            if own in met or own >= 2**32:
                found = f"is also one of seed {met[own]}" if own in met else "is beyond 2^32 - 1"
                raise ConfigError(
                    f"seeds: a round of seed {seed} has the seed {own}, which {found}. Expected "
                    f"seeds whose rounds differ; each adds {_ROUND_STRIDE}. Use seeds below "
                    f"{_ROUND_STRIDE}."
                )
            met[own] = seed


def model_source(model: str) -> str:
    """Folder or hub id of the model that ``model`` names; a world's may not be built yet.

    Raises:
        ConfigError: it begins as a world's does, and no number follows.
    """
    if model == PACKAGED_MODEL:
        return str(bundled_model_path())
    world = world_of(model)
    return model if world is None else str(world_path(world))


def open_model(model: str, progress: Progress) -> str:
    """`model_source`, once the model is there: a drawn world's is built now where it isn't.

    Raises:
        ConfigError: it begins as a world's does, and no number follows.
        RunExistsError: the cache folder can't be written to.
    """
    world = world_of(model)
    return model_source(model) if world is None else str(world_folder(world, progress))


def world_of(model: str) -> int | None:
    """The number of the world whose model ``model`` names, or None.

    Raises:
        ConfigError: it begins as a world's does, and no number follows.
    """
    if not model.startswith(WORLD_PREFIX):
        return None
    number = model.removeprefix(WORLD_PREFIX)
    if not (number.isascii() and number.isdigit()):
        raise ConfigError(
            f"model is {printable(repr(model), 80)}. Expected the number of a world after "
            f"{WORLD_PREFIX!r}. Write 'model: world:1'."
        )
    return int(number)


def _check_world(model: str, dataset: DataSet) -> None:
    """Refuse the rows of one world with the model of another, which speaks another language.

    Raises:
        ConfigError: they don't belong together.
    """
    if not isinstance(dataset, WorldRows):
        return
    own = PACKAGED_MODEL if dataset.world is None else f"{WORLD_PREFIX}{dataset.world}"
    if model == own or (model != PACKAGED_MODEL and world_of(model) is None):
        return
    raise ConfigError(
        f"The data set {dataset.name!r} has the rows of another world than the model {model!r} "
        f"speaks of. Expected 'model: {own}'. Change the model, or 'world' in the data set."
    )


def _load_one(at: int, given: dict[str, Any]) -> DataSet:
    """A data set of the kind that it names, called after it where it has no name."""
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in DATASETS:
        near = difflib.get_close_matches(str(kind), DATASETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"datasets[{at}]: kind is {printable(repr(kind), 80)}.{hint} Expected one of "
            f"{', '.join(DATASETS)}. Write a line like 'kind: testbed'."
        )
    try:
        dataset = resolve(DATASETS[kind], given)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"datasets[{at}]: {line}" for line in lines)) from None
    return dataset if dataset.name else dataset.model_copy(update={"name": kind})


def refuse_repeats(name: str, values: Sequence[str | float]) -> None:
    """Check that no value is given twice.

    Raises:
        ConfigError: one does.
    """
    repeated = [value for at, value in enumerate(values) if value in values[:at]]
    if repeated:
        raise ConfigError(
            f"{name}: {repeated[0]!r} is given twice; expected each once. Remove one."
        )
