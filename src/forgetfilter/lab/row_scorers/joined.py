"""Several scorers as one: their ranks added."""

from __future__ import annotations

import numpy as np

from forgetfilter.errors import ConfigError
from forgetfilter.lab.row_scorers.base import (
    ROW_SCORERS,
    Given,
    Needs,
    RowScores,
    build_scorer,
    judged,
    lowest_first,
)

_MARK = "+"


@ROW_SCORERS.add("joined")
class Joined:
    """Mean rank of a row among all, over several scorers: Borda's count.

    Ranks have no unit, so scorers of any units can be joined, and none is weighed by a label. The
    default asks whether likeness to rows that are known to be unsafe adds to forgetting.

    Args:
        scorers: two or more, with their options, joined by ``+``, in double quotes:
            ``joined:scorers="forgetting:signal=crossfit+representation_cosine:budget=20"``.
    """

    name = "joined"

    def __init__(self, scorers: str = "forgetting+representation_cosine:budget=20") -> None:
        specs = [spec.strip() for spec in scorers.split(_MARK)]
        if len(specs) < 2 or len(set(specs)) < len(specs) or not all(specs):
            raise ConfigError(
                f"{self.name}: scorers is {scorers!r}; expected two or more different ones, joined "
                f'by {_MARK}. Write {self.name}:scorers="base_loss+words", for example.'
            )
        self.scorers = [build_scorer(spec) for spec in specs]
        needs = [scorer.needs for scorer in self.scorers]
        # A guard model is named by its scorer's own options, which were checked just now.
        self.needs = Needs(
            safe_rows=any(one.safe_rows for one in needs),
            exemplars=max(one.exemplars for one in needs),
        )

    def score(self, given: Given) -> RowScores:
        """From 0 to 1; a row that a scorer can't judge is its least suspicious one."""
        from scipy.stats import rankdata

        ranks = [
            (rankdata(lowest_first(scorer.score(given))) - 0.5) / max(1, len(given.noisy))
            for scorer in self.scorers
        ]
        return judged(np.mean(ranks, axis=0), self.name)
