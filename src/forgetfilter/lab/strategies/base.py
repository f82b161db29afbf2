"""What a strategy is: optional steps around one fine-tune, each the identity unless overridden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetfilter.data.records import Message
from forgetfilter.model.state import ModelState
from forgetfilter.scoring.records import Selection
from forgetfilter.scoring.registry import Registry

if TYPE_CHECKING:  # what works a model is imported once a strategy runs
    from forgetfilter.config import ScreenConfig

from forgetfilter.screening.method import Setting, fine_tune


@dataclass(frozen=True)
class Outcome:
    """What a strategy returns: a model to deploy, and what it decided on the way."""

    state: ModelState
    selection: Selection | None


class Strategy:
    """A way to fine-tune on data that one did not write.

    Override the steps that differ. A method that only scores rows overrides ``select``; one that
    makes the model harder to harm ``prepare``; one that changes the fine-tune itself ``train``; one
    that mends the model afterwards ``repair``; one that only words requests otherwise ``prompt``.
    Budgets are equal because `fine_tune`, which alone trains on noisy rows, takes all settings from
    the learn phase; a ``train`` of one's own builds on it.
    """

    name = "strategy"

    def check(self, config: ScreenConfig) -> None:
        """Refuse settings that it can't work with, before a model is loaded; accepts all.

        Raises:
            ConfigError: it can't.
        """

    def prepare(self, setting: Setting) -> ModelState:
        """The state that fine-tuning starts from; the base model as given."""
        return setting.bench.base

    def select(self, setting: Setting) -> Selection | None:
        """Which rows to train on; None keeps all."""
        return None

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Fine-tune ``start`` on the rows that ``selection`` keeps."""
        return fine_tune(setting, None if selection is None else ~selection.is_removed, start)

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """A change to the fine-tuned model; none."""
        return state

    def prompt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """What the deployed model is asked in place of ``messages``; the same."""
        return messages

    @property
    def rewords(self) -> bool:
        """Whether it has a ``prompt`` step of its own."""
        return type(self).prompt is not Strategy.prompt

    def run(self, setting: Setting) -> Outcome:
        """All steps in order: prepare, select, train, repair."""
        start = self.prepare(setting)
        selection = self.select(setting)
        state = self.train(setting, selection, start)
        return Outcome(self.repair(setting, state), selection)


STRATEGIES: Registry[Strategy] = Registry("strategy", __package__, "forgetfilter.strategies")
