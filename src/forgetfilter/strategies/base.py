"""What a strategy is: optional steps around one fine-tune, each the identity unless overridden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgetfilter.config import ScreenConfig
from forgetfilter.records import BoolArray, EncodedRow, Message, ModelState, Selection
from forgetfilter.registry import Registry
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

    Override the steps that differ. Equal budgets hold by construction: every strategy trains the
    rows that it keeps with the learn phase's settings.
    """

    name = "strategy"

    def prepare(self, setting: Setting) -> ModelState:
        """The state that fine-tuning starts from; the base model as given."""
        return setting.bench.base

    def select(self, setting: Setting) -> Selection | None:
        """Which rows to train on; None keeps all."""
        return None

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """A change to the fine-tuned model; none."""
        return state

    def prompt(self, messages: Sequence[Message]) -> Sequence[Message]:
        """What the deployed model is asked in place of ``messages``; the same."""
        return messages

    def run(self, setting: Setting) -> Outcome:
        """All steps in order: prepare, select, fine-tune, repair."""
        start = self.prepare(setting)
        selection = self.select(setting)
        state = fine_tune(setting, None if selection is None else ~selection.is_removed, start)
        return Outcome(self.repair(setting, state), selection)


STRATEGIES: Registry[Strategy] = Registry("strategy")


def fine_tune(setting: Setting, is_kept: BoolArray | None, start: ModelState) -> ModelState:
    """Fine-tune ``start`` on the kept rows (None: all), with the learn phase's settings.

    With every row kept this is the learn phase itself, and its stage is shared. Fewer rows are
    passed over as often as the learn phase has passed over all of them.

    Raises:
        DataError: no row is kept.
    """
    bench, settings = setting.bench, setting.config.learn
    if is_kept is None or is_kept.all():
        return bench.train("learned", setting.noisy, settings, start, phase="learn")
    epochs = None
    if settings.ends_on_evidence:
        learned = bench.train("learned", setting.noisy, settings, bench.base, phase="learn")
        epochs = bench.level_epochs(learned)
    kept = [row for row, keep in zip(setting.noisy, is_kept, strict=True) if keep]
    return bench.train("retrained", kept, settings, start, "retrain", epochs)
