"""Strategies by their full spec: one, or several joined by ``+``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from forgetfilter.arrays import BoolArray
from forgetfilter.data.records import Message
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.controls import ORACLES
from forgetfilter.model.state import ModelState
from forgetfilter.scoring.records import Cut, Selection
from forgetfilter.scoring.registry import split_outside_quotes
from forgetfilter.screening.method import Setting

if TYPE_CHECKING:
    from forgetfilter.config import ScreenConfig


class Chain(Strategy):
    """Several strategies in one: each step is made by those that have one of their own, in order.

    What comes later meets what came before: ``vaccine+forget_filter`` screens with the vaccinated
    model, ``forget_filter+vaccine`` with the base model, and either fine-tunes the vaccinated one.
    A row goes if any part removes it. One part at most may have a fine-tune of its own.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[Strategy]) -> None:
        self.parts = tuple(parts)
        self.name = "+".join(part.name for part in self.parts)
        self._trainers = [part for part in self.parts if _has_own(part, "train")]
        if len(self._trainers) > 1:
            first, second, *_ = (part.name for part in self._trainers)
            raise ConfigError(
                f"{self.name}: {first!r} and {second!r} both have a fine-tune of their own. "
                "Expected one such part at most, beside others that prepare, select, repair or "
                "prompt. Leave one of the two out."
            )

    def check(self, config: ScreenConfig) -> None:
        """All parts accept the settings."""
        for part in self.parts:
            part.check(config)

    def prepare(self, setting: Setting) -> ModelState:
        """Every part's, each from where the last one ended."""
        return self._starts(setting)[-1].bench.base

    def select(self, setting: Setting) -> Selection | None:
        """What any part removes, each with the model as the parts before it have prepared it."""
        found: Selection | None = None
        for part, start in zip(self.parts, self._starts(setting), strict=True):
            own = part.select(start) if _has_own(part, "select") else None
            if own is not None:
                found = own if found is None else _either(found, own)
        return found

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """That of the part that has one of its own; else the plain one."""
        trainer = self._trainers[0] if self._trainers else Strategy()
        return trainer.train(setting, selection, start)

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """Every part's, in order; to them the base model is where the fine-tune began."""
        start = self._starts(setting)[-1]
        for part in self.parts:
            state = part.repair(start, state)
        return state

    def prompt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Every part's, in order."""
        for part in self.parts:
            messages = part.prompt(messages)
        return messages

    @property
    def rewords(self) -> bool:
        """Whether a part does."""
        return any(part.rewords for part in self.parts)

    def _starts(self, setting: Setting) -> list[Setting]:
        """``setting`` with the model as each part leaves it, which its own selection begins with.

        Stages that are there already are not made again.
        """
        found: list[Setting] = []
        for part in self.parts:
            if _has_own(part, "prepare"):
                state = part.prepare(setting)
                if state != setting.bench.base:
                    setting = replace(setting, bench=setting.bench.starting_from(state))
            found.append(setting)
        return found


def _either(first: Selection, second: Selection) -> Selection:
    """A row goes if either says so; a row's reason is that of the first one that removes it."""
    reasons = [
        other if not is_first and is_second else own
        for own, other, is_first, is_second in zip(
            first.reasons, second.reasons, first.is_removed, second.is_removed, strict=True
        )
    ]
    return Selection(Cut(float("nan")), first.is_removed | second.is_removed, reasons)


def build_strategy(spec: str, is_unsafe: BoolArray | None = None) -> Strategy:
    """The strategy that ``spec`` names, such as ``forget_filter:signal=rouge1+self_correction``.

    Args:
        spec: registered names with their options, joined by ``+``.
        is_unsafe: the ground truth of the noisy rows, shape (N,), which only an oracle is given.

    Raises:
        ConfigError: a name or an option is unknown, an oracle has no ground truth, or two parts
            have a fine-tune of their own.
    """
    parts = [_build_one(part.strip(), is_unsafe) for part in split_outside_quotes(spec, "+")]
    return Chain(parts) if len(parts) > 1 else parts[0]


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


def _has_own(part: Strategy, step: str) -> bool:
    return getattr(type(part), step) is not getattr(Strategy, step)
