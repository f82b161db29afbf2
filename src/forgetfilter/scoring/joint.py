"""A second opinion added to the forgetting score: the joint score, and who carried a removal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN
from forgetfilter.scoring.thresholds.base import decide

if TYPE_CHECKING:  # numpy need not be there to refuse a wrong setting
    from forgetfilter.arrays import BoolArray, FloatArray
    from forgetfilter.scoring.records import Cut, Readings, Selection
    from forgetfilter.scoring.thresholds.base import ThresholdRule

JointWeight: TypeAlias = "float | Literal['reviewed']"
"""Nats per root token that a second opinion of 1 adds; or as many as what people decided says."""

BY_FORGETTING = "above_threshold_by_forgetting"
BY_SECOND_OPINION = "above_threshold_by_second_opinion"
BY_BOTH = "above_threshold_by_both"
"""Why a row is removed by the joint score: one part alone reaches the cut and the other doesn't, or
both do, or only their sum does."""


def joint_score(forgetting: FloatArray, opinion: FloatArray, weight: float) -> FloatArray:
    """``forgetting + weight * opinion``, shape (N,), nats per root token.

    Args:
        forgetting: forgetting scores, nats per root token, shape (N,).
        opinion: the second opinion, 0 to 1, shape (N,).
        weight: nats per root token that a second opinion of 1 adds.
    """
    return forgetting + weight * opinion


class _AboveTheUsual:
    """A rule that takes 0 for no evidence, given what exceeds the usual second opinion.

    Args:
        rule: for scores without a second opinion.
        opinion: what the second opinion adds to each score, shape (N,).
        usual: what it adds to most.
    """

    def __init__(self, rule: ThresholdRule, opinion: FloatArray, usual: float) -> None:
        self.name, self.units = rule.name, rule.units
        self._rule, self._added, self._usual = rule, opinion - usual, usual

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """The rule's cut, on the scale of the joint score."""
        readings = replace(readings, added=self._added)
        found = self._rule.cut(scores - self._usual, is_eligible, readings)
        notes = {**found.notes, "usual_second_opinion": self._usual}
        return replace(found, value=found.value + self._usual, notes=notes)


def decide_joint(
    rule: ThresholdRule,
    forgetting: FloatArray,
    opinion: FloatArray,
    weight: float,
    readings: Readings,
    *,
    needs_learned: bool = True,
) -> Selection:
    """Apply ``rule`` to the joint score, with what carried each removal as its reason.

    Forgetting is near 0 for most rows, and a second opinion is not: nearly every text has some
    probability. A rule that reads the unit of the scores would take that for noise. So such a rule
    is given what exceeds the file's median second opinion; the cut is told on the joint score's own
    scale. Rules for any unit, such as ``phi:0.5`` and ``fraction:0.1``, cut the joint score itself.

    Args:
        rule: see `decide`.
        forgetting: see `joint_score`.
        opinion: see `joint_score`.
        weight: see `joint_score`.
        readings: see `decide`.
        needs_learned: see `decide`.

    Raises:
        ModelError: see `decide`.
    """
    import numpy as np

    from forgetfilter.arrays import SharedTexts

    scores, usual = joint_score(forgetting, opinion, weight), 0.0
    if rule.units is not None and len(opinion):
        usual = weight * float(np.median(opinion))
        rule = _AboveTheUsual(rule, weight * opinion, usual)
    readings = replace(readings, added=weight * opinion)
    found = decide(rule, scores, readings, needs_learned=needs_learned)
    least = found.cut.value - usual
    alone, other = forgetting > least, weight * opinion - usual > least
    reasons = SharedTexts.of(found.reasons)
    reasons.put(found.is_removed, BY_BOTH)
    reasons.put(found.is_removed & alone & ~other, BY_FORGETTING)
    reasons.put(found.is_removed & other & ~alone, BY_SECOND_OPINION)
    return replace(found, reasons=reasons)


def check_joint(weight: JointWeight, *, has_opinion: bool, signal: str, unit: str) -> None:
    """Refuse a joint rule that would add what can't be added; a weight of 0 is none.

    Args:
        weight: of the second opinion, or how it is to be found.
        has_opinion: whether there is one.
        signal: spec of the signal, for the message.
        unit: of its scores.

    Raises:
        ConfigError: there is no second opinion, or the scores have another unit.
    """
    if weight == 0:
        return
    told = f"joint is {weight if isinstance(weight, str) else format(weight, 'g')}"
    if not isinstance(weight, str) and not 0 < weight < float("inf"):
        raise ConfigError(
            f"{told}; expected a positive number of nats per root token, or 0 for "
            "none. Give, for example, --joint 0.6."
        )
    if unit != NATS_PER_ROOT_TOKEN:
        raise ConfigError(
            f"{told}, and the scores of signal {signal!r} are in another unit "
            f"({unit}). Expected {NATS_PER_ROOT_TOKEN}, in which the weight is measured. Leave "
            "--joint out, or screen with --signal crossfit."
        )
    if not has_opinion:
        raise ConfigError(
            f"{told}, but there is no second opinion to add. Expected one. Screen "
            "with --second-opinion as well, or leave --joint out."
        )
