"""Scores that know nothing: what every other scorer has to beat."""

from __future__ import annotations

from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged


@ROW_SCORERS.add("random")
class RandomScorer:
    """A random number per row, drawn by the seed: average precision is the share of unsafe rows."""

    name = "random"
    needs = Needs()

    def score(self, given: Given) -> RowScores:
        """Uniform numbers."""
        return judged(given.rng(self.name).random(len(given.noisy)), self.name)
