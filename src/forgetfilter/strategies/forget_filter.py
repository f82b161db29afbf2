"""The method, top to bottom: learn, forget, score, filter, retrain.

"Learning and Forgetting Unsafe Examples in Large Language Models" (Zhao et al., ICML 2024, arXiv
2312.12736), section 5. A language model that was fine-tuned on mixed rows and then on a few safe
ones forgets the unsafe rows far more than the others; rows that are forgotten too much are dropped
and the *base* model is fine-tuned on the rest. No unsafe example and no label is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError
from forgetfilter.records import ModelState, Probe, Readings, Selection, SignalScores, StateName
from forgetfilter.signals import SIGNALS
from forgetfilter.strategies.base import STRATEGIES, Setting, Strategy
from forgetfilter.thresholds import THRESHOLDS, choose_rule, decide
from forgetfilter.trained import early

# Measured whatever the signal asks for: they tell which rows were learned at all.
ALWAYS = (Probe("loss", "base"), Probe("loss", "learned"))


@dataclass(frozen=True)
class Scored:
    """The outcome of the first three phases."""

    states: dict[StateName, ModelState]
    readings: Readings
    scores: SignalScores
    signal: str
    """Spec of the signal that made the scores."""


def score_rows(setting: Setting) -> Scored:
    """Learn, forget where the signal needs it, and score every noisy row."""
    bench, config = setting.bench, setting.config
    signal = SIGNALS.build(config.signal)
    probes = tuple(dict.fromkeys((*ALWAYS, *signal.probes)))
    states: dict[StateName, ModelState] = {"base": bench.base}

    # Learn: fine-tune the base model on all noisy rows.
    states["learned"] = bench.train(
        "learned", setting.noisy, config.learn, start=states["base"], phase="learn"
    )
    # Forget: continue the same adapter on the safe rows.
    if any(probe.state == "forgotten" for probe in probes):
        states["forgotten"] = bench.train(
            "forgotten", setting.safe, config.forget, start=states["learned"], phase="forget"
        )
    # Restore: or bring safe behaviour back to base's in a few gradient steps, from the end of the
    # learn phase and from an early point, at which the model does not know the rows by heart.
    if any(probe.state == "restored" for probe in probes):
        states |= restore_both(setting, states["learned"])
    # Score: what the signal makes of the readings.
    readings = bench.measure(probes, states, setting.noisy, setting.safe)
    return Scored(states, readings, signal.combine(readings), config.signal)


def restore_both(setting: Setting, learned: ModelState) -> dict[StateName, ModelState]:
    """The early model of ``learned``'s phase, and both of them restored on the safe rows."""
    bench, steps = setting.bench, setting.config.restore
    first = early(learned)
    fewer = steps.model_copy(update={"steps": steps.early_steps})
    return {
        "early": first,
        "early_restored": bench.restore("early_restored", setting.safe, fewer, first),
        "restored": bench.restore("restored", setting.safe, steps, learned),
    }


def filter_rows(scored: Scored, threshold: str | None) -> Selection:
    """Filter: drop the learned rows whose forgetting score is strictly above the threshold.

    Raises:
        ConfigError: the rule is unknown or doesn't fit the signal.
    """
    rule = THRESHOLDS.build(choose_rule(scored.signal, threshold))
    return decide(rule, scored.scores.forgetting_score, scored.readings)


@STRATEGIES.add("forget_filter")
class ForgetFilterStrategy(Strategy):
    """Screen the noisy rows and fine-tune the base model on the kept ones (retrain).

    What is not given is as in the settings, so that the paper's signal can stand beside the default
    one: ``forget_filter:signal=rouge1,threshold=phi:0.1,steps=5``.

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

    def select(self, setting: Setting) -> Selection:
        """Learn, forget, score and filter."""
        config = setting.config
        forget = config.forget
        if self.steps is not None:
            forget = forget.model_copy(update={"max_steps": self.steps})
        changes = {"signal": self.signal or config.signal, "forget": forget}
        scored = score_rows(replace(setting, config=config.model_copy(update=changes)))
        return filter_rows(scored, self.threshold or config.threshold)
