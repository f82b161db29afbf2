"""Bayesian Data Scheduler: weights of rows, found while the model is tuned on all of them."""

from __future__ import annotations

from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.bilevel import Course, find_logits


@ROW_SCORERS.add("bayesian_scheduler")
class BayesianScheduler:
    """Minus the logit that the Bayesian Data Scheduler gives to a row.

    "Adaptive Defense against Harmful Fine-Tuning for Large Language Models via Bayesian Data
    Scheduler" (arXiv 2510.27172). A row of loss l and weight w has the likelihood exp(-w l); the
    authors' code follows it by plain optimizer steps: the model on the safe rows' loss and the
    weighted noisy rows' together, both in full, and the weights ``N * softmax(w)`` on the weighted
    loss. Rows above the weighted mean loss go down. Chosen here: the model's learning rate and
    batch are the learn phase's, and 5 passes in place of 20.

    Args:
        epochs: passes over the noisy rows.
        rate: learning rate of the logits.
    """

    name = "bayesian_scheduler"
    needs = Needs(safe_rows=True)

    def __init__(self, epochs: int = 5, rate: float = 5e-3) -> None:
        self.course = Course(self.name, max(1, epochs), rate, lambda _: (1.0, 1.0))

    def score(self, given: Given) -> RowScores:
        """The logits, negated."""
        return judged(-find_logits(given, self.course), self.name)
