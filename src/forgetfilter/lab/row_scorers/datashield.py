"""DataShield: how far an answer moves along the direction from refusing to complying."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.hidden_states import hidden_states


@ROW_SCORERS.add("datashield")
class DataShield:
    """Projection of a row's mean answer state on the compliance direction, less its prompt's.

    "DataShield: Safety-degrading Data Filtering for LLM Benign Instruction Fine-Tuning" (arXiv
    2606.00160; another work has the same name): the direction at a layer is the mean answer state
    of complying answers less that of refusing ones, at length 1; the layer is the one at which the
    direction parts the two best, ``v' Sb v / v' St v`` of standardised states, Sb and St being the
    scatter between classes and in total. Chosen here: exemplars stand for the complying answers and
    safe rows for the refusing ones, and the prompt's state is that of its last token.

    Args:
        budget: exemplars, and as many safe rows.
    """

    name = "datashield"

    def __init__(self, budget: int = 20) -> None:
        self.needs = Needs(safe_rows=True, exemplars=budget)

    def score(self, given: Given) -> RowScores:
        """The differences of projections."""
        count = self.needs.exemplars
        (bad,) = hidden_states(given, given.exemplars(count), ["answer"])
        (safe,) = hidden_states(given, given.few_safe(count), ["answer"])
        ratios = [parting(bad[:, at], safe[:, at]) for at in range(bad.shape[1])]
        layer = int(np.argmax(ratios))
        along = direction(bad[:, layer], safe[:, layer])
        answers, prompts = hidden_states(given, given.noisy, ["answer", "prompt_end"], [layer])
        return judged((answers[:, 0] - prompts[:, 0]) @ along, self.name)


def direction(bad: FloatArray, safe: FloatArray) -> FloatArray:
    """From the mean of ``safe`` to that of ``bad``, at length 1; shape (H,)."""
    between = bad.mean(axis=0) - safe.mean(axis=0)
    return between / max(float(np.linalg.norm(between)), 1e-30)


def parting(bad: FloatArray, safe: FloatArray) -> float:
    """Scatter between the two classes over all scatter along their direction, 0 to 1.

    States are standardised over both classes first.
    """
    states = np.concatenate([bad, safe])
    states = (states - states.mean(axis=0)) / np.maximum(states.std(axis=0), 1e-12)
    own, others = states[: len(bad)], states[len(bad) :]
    along = direction(own, others)
    means = np.array([(own @ along).mean(), (others @ along).mean()])
    between = float((np.array([len(own), len(others)]) * means**2).sum())
    return between / max(float(((states @ along) ** 2).sum()), 1e-30)
