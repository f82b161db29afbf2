"""What a strategy is: optional steps around one fine-tune, each the identity unless overridden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetfilter.records import BoolArray, EncodedRow, Message, ModelState, Selection
from forgetfilter.registry import Registry
from forgetfilter.trained import level_epochs

if TYPE_CHECKING:  # what works a model is imported once a strategy runs
    from forgetfilter.config import ScreenConfig
    from forgetfilter.workbench import Workbench


@dataclass(frozen=True)
class Setting:
    """What every strategy is given; no strategy ever sees the ground truth."""

    bench: Workbench
    noisy: Sequence[EncodedRow]
    safe: Sequence[EncodedRow]
    config: ScreenConfig


@dataclass(frozen=True)
class Outcome:
    """What a strategy hands back: a model to deploy, and what it decided on the way."""

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


def fine_tune(
    setting: Setting,
    is_kept: BoolArray | None,
    start: ModelState,
    extra: Sequence[EncodedRow] = (),
) -> ModelState:
    """Fine-tune ``start`` on the kept rows (None: all), with the learn phase's settings.

    The base model with every row kept is the learn phase itself, and its stage is shared. All other
    fine-tunes pass over their rows as often as the learn phase has passed over all noisy ones,
    unless the settings name a number of steps.

    Args:
        setting: the rows and the settings.
        is_kept: shape (N,).
        start: the state to continue.
        extra: rows to mix in, passed over as often as the kept ones.

    Raises:
        DataError: there is no row to train on.
    """
    bench, settings = setting.bench, setting.config.learn
    is_whole = is_kept is None or bool(is_kept.all())
    if is_whole and not extra and start == bench.base:
        return bench.train("learned", setting.noisy, settings, start, phase="learn")
    epochs = None
    if settings.ends_on_evidence:
        # It tells the length of an equal budget; a method that has no use for it does not pay.
        with bench.store.uncounted():
            learned = bench.train("learned", setting.noisy, settings, bench.base, phase="learn")
        epochs = level_epochs(learned)
    rows = [row for at, row in enumerate(setting.noisy) if is_kept is None or is_kept[at]]
    return bench.train("retrained", [*rows, *extra], settings, start, "retrain", epochs)
