"""Strategies by their full spec: one, or several joined by ``+``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetfilter.arrays import BoolArray
from forgetfilter.data.records import Message
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.controls import ORACLES
from forgetfilter.model.state import ModelState
from forgetfilter.scoring.records import Selection
from forgetfilter.scoring.registry import split_outside_quotes
from forgetfilter.screening.method import Setting

if TYPE_CHECKING:
    from forgetfilter.config import ScreenConfig

_BEFORE = ("prepare", "select", "train")


class Chain(Strategy):
    """One strategy whole, and then what others do after the fine-tune.

    Args:
        first: gives the start, the rows and the fine-tune.
        then: give their repairs, in this order, and their changes of the prompt.
    """

    def __init__(self, first: Strategy, then: Sequence[Strategy]) -> None:
        self.first, self.then = first, tuple(then)
        self.name = "+".join(part.name for part in (first, *then))
        for part in self.then:
            own = [step for step in _BEFORE if getattr(type(part), step) is not _plain(step)]
            if own:
                raise ConfigError(
                    f"{self.name}: {part.name!r} has a {own[0]} step of its own, which comes "
                    "before the end of the fine-tune. Expected after '+' a strategy that only "
                    "repairs or prompts, such as self_correction or safety_ft. Put it first."
                )

    def check(self, config: ScreenConfig) -> None:
        """All parts accept the settings."""
        for part in (self.first, *self.then):
            part.check(config)

    def prepare(self, setting: Setting) -> ModelState:
        """The first strategy's."""
        return self.first.prepare(setting)

    def select(self, setting: Setting) -> Selection | None:
        """The first strategy's."""
        return self.first.select(setting)

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """The first strategy's."""
        return self.first.train(setting, selection, start)

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """Every part's, in order."""
        for part in (self.first, *self.then):
            state = part.repair(setting, state)
        return state

    def prompt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Every part's, in order."""
        for part in (self.first, *self.then):
            messages = part.prompt(messages)
        return messages

    @property
    def rewords(self) -> bool:
        """Whether a part does."""
        return any(part.rewords for part in (self.first, *self.then))


def build_strategy(spec: str, is_unsafe: BoolArray | None = None) -> Strategy:
    """The strategy that ``spec`` names, such as ``forget_filter:signal=rouge1+self_correction``.

    Args:
        spec: registered names with their options, joined by ``+``.
        is_unsafe: the ground truth of the noisy rows, shape (N,), which only an oracle is given.

    Raises:
        ConfigError: a name or an option is unknown, an oracle has no ground truth, or a part can't
            follow another.
    """
    first, *then = [_build_one(part.strip(), is_unsafe) for part in split_outside_quotes(spec, "+")]
    return Chain(first, then) if then else first


def check_spec(spec: str, config: ScreenConfig | None = None) -> None:
    """Raise what `build_strategy` would for ``spec``, without any ground truth.

    Args:
        spec: as there.
        config: settings of a screen that the strategy is to work with, checked where given.
    """
    import numpy as np

    strategy = build_strategy(spec, np.zeros(0, dtype=np.bool_))
    if config is not None:
        strategy.check(config)


def _build_one(spec: str, is_unsafe: BoolArray | None) -> Strategy:
    if spec not in ORACLES:
        name = spec.partition(":")[0].strip()
        if name not in STRATEGIES.names() and (
            near := difflib.get_close_matches(name, ORACLES, n=1)
        ):
            raise ConfigError(
                f"Unknown strategy {spec!r}. Did you mean {near[0]!r} (it has no options)? "
                f"Available: {', '.join(sorted([*STRATEGIES.names(), *ORACLES]))}."
            )
        return STRATEGIES.build(spec)
    if is_unsafe is None:
        raise ConfigError(
            f"{spec} needs the ground truth of the noisy rows, and there is none. Expected a data "
            "set with truth. Give its truth file, or leave the strategy out."
        )
    return ORACLES[spec](is_unsafe)


def _plain(step: str) -> object:
    return getattr(Strategy, step)
