"""How much a second opinion counts, by what people decided."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.scoring.decided_curve import DecidedCurve
from forgetfilter.scoring.joint import joint_score

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Those that are tried, nats per root token."""


def weight_by_decisions(
    forgetting: FloatArray, opinion: FloatArray, is_unsafe: BoolArray
) -> float | None:
    """The weight whose joint score tells best which rows were removed and which were kept.

    Of each weight a logistic curve is fitted to the decided rows; taken is the one that makes what
    was decided likeliest, of equal ones the smallest. Rows whose removal made the second opinion
    have to be left out: they are wholly like themselves.

    Args:
        forgetting: forgetting scores of the decided rows, nats per root token, shape (D,).
        opinion: their second opinion, 0 to 1, shape (D,).
        is_unsafe: which of them were removed, shape (D,); both kinds are there.

    Returns:
        None where by no weight rows with higher scores are unsafe more often.
    """
    best, found = -np.inf, None
    for weight in WEIGHTS:
        curve = DecidedCurve.through(joint_score(forgetting, opinion, weight), is_unsafe)
        if curve.slope > 0 and curve.plausibility > best:
            best, found = curve.plausibility, weight
    return found
