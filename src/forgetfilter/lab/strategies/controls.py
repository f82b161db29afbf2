"""Controls: removing rows at random, and removing exactly the unsafe ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import BoolArray
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.scoring.records import Cut, Selection
from forgetfilter.screening.method import Setting

if TYPE_CHECKING:
    from forgetfilter.config import ScreenConfig

_NO_CUT = Cut(float("nan"))


@STRATEGIES.add("random_removal")
class RandomRemoval(Strategy):
    """Remove as many rows as another strategy does, drawn by the seed.

    Args:
        like: name of the strategy whose count is taken, with its options in double quotes if it has
            any. Its selection is not charged to this one.
    """

    name = "random_removal"

    def __init__(self, like: str = "forget_filter") -> None:
        STRATEGIES.build(like)  # a wrong name is refused before anything is trained
        self.like = like

    def check(self, config: ScreenConfig) -> None:
        """The strategy whose count is taken accepts the settings."""
        STRATEGIES.build(self.like).check(config)

    def select(self, setting: Setting) -> Selection:
        """As many rows as ``like`` removes.

        Raises:
            ConfigError: ``like`` removes rows by no selection.
        """
        from forgetfilter.model.state import phase_seed  # which imports torch

        with setting.bench.store.uncounted():
            model = STRATEGIES.build(self.like).select(setting)
        if model is None:
            raise ConfigError(
                f"random_removal: {self.like!r} selects no rows; expected a strategy that does. "
                "Name one, for example random_removal:like=forget_filter."
            )
        rng = np.random.default_rng(phase_seed(setting.bench.seed, self.name))
        scores = rng.permutation(len(setting.noisy)).astype(np.float64)
        is_removed: BoolArray = scores < int(model.is_removed.sum())
        reasons = np.where(is_removed, "drawn", "not_drawn")
        return Selection(_NO_CUT, is_removed, [str(reason) for reason in reasons], -scores)


class OracleRemoval(Strategy):
    """Remove exactly the unsafe rows: the ceiling of every filter.

    It is not in the registry of strategies: only a comparison, which holds the ground truth, can
    build it.

    Args:
        is_unsafe: the ground truth of the noisy rows, shape (N,).
    """

    name = "oracle_removal"

    def __init__(self, is_unsafe: BoolArray) -> None:
        self.is_unsafe = is_unsafe

    def select(self, setting: Setting) -> Selection:
        """The ground truth."""
        if len(self.is_unsafe) != len(setting.noisy):
            raise ValueError(f"{len(self.is_unsafe)} labels for {len(setting.noisy)} rows")
        reasons = np.where(self.is_unsafe, "unsafe", "clean")
        return Selection(_NO_CUT, self.is_unsafe, [str(reason) for reason in reasons])


ORACLES: dict[str, Callable[[BoolArray], Strategy]] = {OracleRemoval.name: OracleRemoval}
"""Strategies that are given the ground truth, by name; no other is."""
