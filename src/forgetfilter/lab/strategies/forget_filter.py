"""ForgetFilter as a strategy: screen the rows, fine-tune the base model on the kept ones."""

from __future__ import annotations

from dataclasses import replace

from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.scoring.records import Selection
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS, choose_rule
from forgetfilter.screening.method import Scored, Setting, filter_rows, score_rows


@STRATEGIES.add("forget_filter")
class ForgetFilterStrategy(Strategy):
    """Screen the noisy rows and fine-tune the base model on the kept ones (retrain).

    What is not given is as in the settings, so that the paper's signal can be compared with
    the default one: ``forget_filter:signal=rouge1,threshold=phi:0.1,steps=5``.

    Args:
        signal: the forgetting signal.
        threshold: the threshold rule; where the settings name none either, the signal's own.
        steps: optimizer steps of the forgetting run, for signals that need one.
    """

    name = "forget_filter"

    def __init__(
        self, signal: str | None = None, threshold: str | None = None, steps: int | None = None
    ) -> None:
        if signal is not None:
            SIGNALS.build(signal)
        if threshold is not None:
            THRESHOLDS.build(threshold)
        if steps is not None and steps < 1:
            raise ConfigError(
                f"forget_filter: steps is {steps}; expected at least one, for example "
                "forget_filter:signal=rouge1,steps=5."
            )
        self.signal, self.threshold, self.steps = signal, threshold, steps

    def check(self, config: ScreenConfig) -> None:
        """The threshold rule fits the signal."""
        choose_rule(self.signal or config.signal, self.threshold or config.threshold)

    def scored(self, setting: Setting) -> Scored:
        """Learn, forget and score."""
        config = setting.config
        forget = config.forget
        if self.steps is not None:
            forget = forget.model_copy(update={"max_steps": self.steps})
        changes = {"signal": self.signal or config.signal, "forget": forget}
        return score_rows(replace(setting, config=config.model_copy(update=changes)))

    def select(self, setting: Setting) -> Selection:
        """Learn, forget, score and filter."""
        return filter_rows(self.scored(setting), self.threshold or setting.config.threshold)
