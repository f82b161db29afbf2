"""A second opinion added to the forgetting score: the joint score, and who carried a removal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN

if TYPE_CHECKING:  # numpy need not be there to refuse a wrong setting
    from forgetfilter.arrays import FloatArray
    from forgetfilter.scoring.records import Selection

BY_FORGETTING = "above_threshold_by_forgetting"
BY_SECOND_OPINION = "above_threshold_by_second_opinion"
BY_BOTH = "above_threshold_by_both"
"""Why a row is removed by the joint score: one part alone is above the cut and the other is not, or
both are, or only their sum is."""


def joint_score(forgetting: FloatArray, opinion: FloatArray, weight: float) -> FloatArray:
    """``forgetting + weight * opinion``, shape (N,), nats per root token.

    Args:
        forgetting: forgetting scores, nats per root token, shape (N,).
        opinion: the second opinion, 0 to 1, shape (N,).
        weight: nats per root token that a second opinion of 1 adds.
    """
    return forgetting + weight * opinion


def carried_by(
    selection: Selection, forgetting: FloatArray, opinion: FloatArray, weight: float
) -> Sequence[str]:
    """The reasons of a decision by the joint score, those of removed rows with what carried them.

    Args:
        selection: the decision by `joint_score`.
        forgetting: see `joint_score`.
        opinion: see `joint_score`.
        weight: see `joint_score`.
    """
    import numpy as np

    cut = selection.cut.value
    alone, other = forgetting > cut, weight * opinion > cut
    carried = np.select([alone & ~other, other & ~alone], [BY_FORGETTING, BY_SECOND_OPINION])
    carried = np.where(carried == "0", BY_BOTH, carried)
    return [
        str(mark) if is_removed else reason
        for mark, is_removed, reason in zip(
            carried, selection.is_removed, selection.reasons, strict=True
        )
    ]


def check_joint(weight: float, *, has_opinion: bool, signal: str, unit: str) -> None:
    """Refuse a joint rule that would add what can't be added; a weight of 0 is none.

    Args:
        weight: of the second opinion.
        has_opinion: whether there is one.
        signal: spec of the signal, for the message.
        unit: of its scores.

    Raises:
        ConfigError: there is no second opinion, or the scores have another unit.
    """
    if weight == 0:
        return
    if not 0 < weight < float("inf"):
        raise ConfigError(
            f"joint is {weight:g}; expected a positive number of nats per root token, or 0 for "
            "none. Give, for example, --joint 0.6."
        )
    if unit != NATS_PER_ROOT_TOKEN:
        raise ConfigError(
            f"joint is {weight:g}, and the scores of signal {signal!r} are in another unit "
            f"({unit}). Expected {NATS_PER_ROOT_TOKEN}, in which the weight is measured. Leave "
            "--joint out, or screen with --signal crossfit."
        )
    if not has_opinion:
        raise ConfigError(
            f"joint is {weight:g}, but there is no second opinion to add. Expected one. Screen "
            "with --second-opinion as well, or leave --joint out."
        )
