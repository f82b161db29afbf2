"""The method, top to bottom: learn, forget, score, filter, retrain.

"Learning and Forgetting Unsafe Examples in Large Language Models" (Zhao et al., ICML 2024, arXiv
2312.12736), section 5. A language model that was fine-tuned on mixed rows and then on a few safe
ones forgets the unsafe rows far more than the others; rows that are forgotten too much are dropped
and the *base* model is fine-tuned on the rest. No unsafe example and no label is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.config import ScreenConfig
from forgetfilter.data.many_rows.views import chosen, joined
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.stages.phases import early, kept_losses, level_epochs
from forgetfilter.model.state import ModelState
from forgetfilter.scoring.joint import decide_joint, joint_score
from forgetfilter.scoring.records import (
    HALVES,
    SAMPLED,
    WHOLE,
    Probe,
    Readings,
    Selection,
    SignalScores,
    StateName,
    with_evidence,
)
from forgetfilter.scoring.signals import SIGNALS, needs_learned
from forgetfilter.scoring.thresholds import THRESHOLDS, choose_rule, decide
from forgetfilter.screening.sampling import rows_to_learn, with_sample
from forgetfilter.screening.set_aside import SafeRows, sort_out

if TYPE_CHECKING:  # what works a model is imported once a strategy runs
    from forgetfilter.model.training.step_method import StepMethod
    from forgetfilter.model.workbench import Workbench

# Measured whatever the signal asks for: they tell which rows were learned at all.
ALWAYS = (Probe("loss", "base"), Probe("loss", "learned"))


@dataclass(frozen=True)
class Setting:
    """What every strategy is given; no strategy ever sees the ground truth."""

    bench: Workbench
    noisy: Sequence[EncodedRow]
    safe: Sequence[EncodedRow]
    config: ScreenConfig


@dataclass(frozen=True)
class Scored:
    """The outcome of the first three phases."""

    states: dict[StateName, ModelState]
    readings: Readings
    scores: SignalScores
    signal: str
    """Spec of the signal that made the scores."""
    opinion: FloatArray | None = None
    """A second opinion on every row, shape (N,), where there is one."""
    weight: float = 0.0
    """What it counts in what is cut, nats per root token."""
    safe: SafeRows | None = None
    """Which safe rows were restored on, where they were sorted out."""

    @property
    def judges_learned(self) -> bool:
        """Whether rows that were not learned are kept, whatever they say (`Signal.needs_learned`).

        Not where a sample was learned: then all rows are judged, drawn or not. What was not learned
        has nothing to lose, and its score is near 0.
        """
        return needs_learned(SIGNALS.build(self.signal)) and SAMPLED not in self.readings

    @property
    def cut_by(self) -> FloatArray:
        """What the threshold rule cuts, shape (N,)."""
        scores = self.scores.forgetting_score
        if self.opinion is None or not self.weight:
            return scores
        return joint_score(scores, self.opinion, self.weight)


def probes_of(config: ScreenConfig) -> tuple[Probe, ...]:
    """What is measured of each row."""
    return tuple(dict.fromkeys((*ALWAYS, *SIGNALS.build(config.signal).probes)))


def probes_to_read(config: ScreenConfig) -> tuple[Probe, ...]:
    """The same without what the learn phase keeps: what passes have to be made for."""
    is_kept = config.learn.keeps_losses
    return tuple(p for p in probes_of(config) if not (is_kept and p in ALWAYS))


def score_rows(setting: Setting) -> Scored:
    """Learn, forget where the signal needs it, and score every noisy row."""
    bench, config = setting.bench, setting.config
    signal, probes = SIGNALS.build(config.signal), probes_of(config)
    states: dict[StateName, ModelState] = {"base": bench.base}

    # Learn: fine-tune the base model on all noisy rows, or on a sample of them where one is asked.
    to_learn = rows_to_learn(setting.noisy, config.learn.max_rows, config.seed)
    states["learned"] = bench.train(
        "learned", to_learn, config.learn, start=states["base"], phase="learn"
    )
    # Forget: continue the same adapter on the safe rows.
    if any(probe.state == "forgotten" for probe in probes):
        states["forgotten"] = bench.train(
            "forgotten", setting.safe, config.forget, start=states["learned"], phase="forget"
        )
    # Restore: or bring safe behaviour back to base's in a few gradient steps.
    states |= restored_states(setting, probes, states["learned"])
    # Doubt: safe rows that this undoes pull the other way; restore once more without them.
    sorted_out = None
    if config.restore.set_aside and "early_restored" in states:
        sorted_out = sort_out(bench, setting.safe, states)
        if sorted_out.used is not setting.safe:
            setting = replace(setting, safe=sorted_out.used)
            states |= restored_states(setting, probes, states["learned"])
    # Score: what the signal makes of the readings; losses that the learn phase kept are not read.
    known = kept_losses(states["learned"]) if config.learn.keeps_losses else {}
    readings = bench.measure(probes, states, setting.noisy, setting.safe, known)
    readings = with_sample(readings, to_learn)
    scores = signal.combine(readings)
    readings = with_evidence(readings, scores)
    return Scored(states, readings, scores, config.signal, safe=sorted_out)


def restored_states(
    setting: Setting, probes: Sequence[Probe], learned: ModelState
) -> dict[StateName, ModelState]:
    """The restored models that the probes ask for, and those that they start from."""
    wanted = {probe.state for probe in probes}
    states: dict[StateName, ModelState] = {}
    # From the end of the learn phase, and from an early point, at which the model does not know
    # the rows by heart.
    if wanted & {"restored", "early_restored"}:
        states |= restore_both(setting, learned)
    # Apart: two models that have learned half of the rows each, so that every row is also judged
    # by a model that has never seen it and can't know it by heart.
    if wanted & {name for own in HALVES for name in own}:
        states |= learn_halves(setting, learned)
    return states


def restore_both(
    setting: Setting,
    learned: ModelState,
    names: tuple[StateName, StateName, StateName, StateName] = WHOLE,
) -> dict[StateName, ModelState]:
    """The early model of ``learned``'s phase, and both of them restored on the safe rows."""
    bench, steps = setting.bench, setting.config.restore
    _, early_name, restored, early_restored = names
    first = early(learned)
    fewer = steps.model_copy(update={"steps": steps.early_steps})
    return {
        early_name: first,
        early_restored: bench.restore(early_restored, setting.safe, fewer, first),
        restored: bench.restore(restored, setting.safe, steps, learned),
    }


def learn_halves(setting: Setting, learned: ModelState) -> dict[StateName, ModelState]:
    """Two models that have learned half of ``learned``'s rows each, and both of them restored.

    They pass over their rows as often as ``learned`` has passed over all of its own. The seed draws
    the halves. Rows that ``learned`` was not given are in neither half.
    """
    bench, config = setting.bench, setting.config
    together = rows_to_learn(setting.noisy, config.learn.max_rows, config.seed)
    order = np.random.default_rng(config.seed).permutation(len(together))
    states: dict[StateName, ModelState] = {}
    for at, names in enumerate(HALVES):
        rows = chosen(together, np.sort(order[at::2] if len(order) > 1 else order))
        half = bench.train(
            names[0], rows, config.learn, bench.base, f"learn_{names[0]}", level_epochs(learned)
        )
        states |= {names[0]: half, **restore_both(setting, half, names)}
    return states


def filter_rows(scored: Scored, threshold: str | None) -> Selection:
    """Filter: drop the rows whose forgetting score is strictly above the threshold.

    Raises:
        ConfigError: the rule is unknown or doesn't fit the signal.
    """
    rule = THRESHOLDS.build(choose_rule(scored.signal, threshold))
    judges_learned = scored.judges_learned
    scores, readings = scored.scores.forgetting_score, scored.readings
    if scored.opinion is None or not scored.weight:
        return decide(rule, scores, readings, needs_learned=judges_learned)
    opinion, weight = scored.opinion, scored.weight
    return decide_joint(rule, scores, opinion, weight, readings, needs_learned=judges_learned)


def fine_tune(
    setting: Setting,
    is_kept: BoolArray | None,
    start: ModelState,
    extra: Sequence[EncodedRow] = (),
    masked: Sequence[EncodedRow] | None = None,
    method: StepMethod | None = None,
) -> ModelState:
    """Fine-tune ``start`` on the kept rows (None: all), with the learn phase's settings.

    The base model with every row kept is the learn phase itself, and its stage is shared. All other
    fine-tunes pass over their rows as often as the learn phase has passed over all noisy ones,
    unless the settings name a number of steps. Whatever sample the learn phase was given, these are
    given all of their rows.

    Args:
        setting: the rows and the settings.
        is_kept: shape (N,).
        start: the state to continue.
        extra: rows to mix in, passed over as often as the kept ones.
        masked: what to train on in place of the kept rows: rows of which some tokens carry no loss.
        method: makes the gradient of each step, where that is not the mean loss of its rows; rows,
            steps and learning rate stay those of all fine-tunes.

    Raises:
        DataError: there is no row to train on.
    """
    bench, settings = setting.bench, setting.config.learn
    is_whole = masked is None and (is_kept is None or bool(is_kept.all()))
    if is_whole and not extra and start == bench.base and method is None:
        return bench.train("learned", setting.noisy, settings, start, phase="learn")
    epochs = None
    if settings.ends_on_evidence:
        # It tells the length of an equal budget; a method that has no use for it does not pay.
        to_learn = rows_to_learn(setting.noisy, settings.max_rows, setting.config.seed)
        with bench.store.uncounted():
            learned = bench.train("learned", to_learn, settings, bench.base, phase="learn")
        epochs = level_epochs(learned)
    kept = range(len(setting.noisy)) if is_kept is None else np.flatnonzero(is_kept)
    together = joined(masked or chosen(setting.noisy, kept), extra)
    return bench.train("retrained", together, settings, start, "retrain", epochs, method)
