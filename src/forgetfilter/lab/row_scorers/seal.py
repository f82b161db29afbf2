"""SEAL: which rows a model tuned on safe rows fits badly."""

from __future__ import annotations

from typing import Literal

from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.bilevel import Course, find_logits


@ROW_SCORERS.add("seal")
class Seal:
    """Minus the logit that SEAL's selector gives to a row.

    "SEAL: Safety-enhanced Aligned LLM Fine-tuning via Bilevel Data Selection" (arXiv 2410.07471).
    The model is tuned on ``u`` of the safe rows' loss and ``1 - u`` of the weighted noisy rows', u
    starting at 1 and falling by 0.03 an epoch from the second on; the selector ``N * softmax(w)``
    follows the weighted loss of the noisy rows, so that rows which the safely tuned model fits
    badly are pushed down. Chosen here: the model's learning rate and batch are the learn phase's.

    Args:
        update: ``light``, the update of the paper's main results, which takes the lower level's
            least loss to be zero; ``full``, which takes off the loss of a second model that is
            tuned on the weighted noisy rows alone.
        epochs: passes over the noisy rows; the paper has 2 or 3.
        rate: learning rate of the selector's logits.
    """

    name = "seal"
    needs = Needs(safe_rows=True)

    def __init__(
        self, update: Literal["light", "full"] = "light", epochs: int = 3, rate: float = 5e-3
    ) -> None:
        self.course = Course(
            f"seal_{update}", max(1, epochs), rate, upper_and_lower, update == "full"
        )

    def score(self, given: Given) -> RowScores:
        """The logits, negated."""
        return judged(-find_logits(given, self.course), self.name)


def upper_and_lower(epoch: int) -> tuple[float, float]:
    """What the safe rows' loss and the noisy rows' count in an epoch, from 0."""
    upper = max(0.0, 1 - 0.03 * epoch)
    return upper, 1 - upper
