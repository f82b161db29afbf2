"""The bundled linear scorer, by name."""

from __future__ import annotations

from forgetfilter.lab.scorers.base import TOXICITY_SCORERS
from forgetfilter.safe.linear_toxicity import LinearScorer


@TOXICITY_SCORERS.add("linear")
def linear() -> LinearScorer:
    """The bundled scorer, see `LinearScorer`."""
    return LinearScorer()
