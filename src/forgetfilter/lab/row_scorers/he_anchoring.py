"""What is in your "safe" data: rows like harmful ones, by representation and by gradient."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.gradients import (
    Parameters,
    first_tokens,
    mean_gradient,
    open_to_gradients,
    products,
)
from forgetfilter.lab.row_scorers.hidden_states import hidden_states, unit

_ANCHOR_TOKENS = 10


@ROW_SCORERS.add("representation_cosine")
class RepresentationCosine:
    """Mean of a row's largest cosines with bad exemplars, by the last layer at the last token.

    "What is in Your Safe Data? Identifying Benign Data that Breaks Safety" (He, Xia and Henderson,
    COLM 2024, arXiv 2404.01099), representation matching, in the model as given.

    Args:
        budget: exemplars.
        nearest: how many of the largest cosines are averaged.
    """

    name = "representation_cosine"

    def __init__(self, budget: int = 20, nearest: int = 1) -> None:
        self.needs, self.nearest = Needs(exemplars=budget), nearest

    def score(self, given: Given) -> RowScores:
        """The cosines."""
        exemplars = given.exemplars(self.needs.exemplars)
        (rows,) = hidden_states(given, given.noisy, ["last"], [-1])
        (bad,) = hidden_states(given, exemplars, ["last"], [-1])
        return judged(nearest_cosine(rows[:, 0], bad[:, 0], self.nearest), self.name)


@ROW_SCORERS.add("gradient_anchoring")
class GradientAnchoring:
    """A row's gradient along that of bad exemplars, less along two groups of safe rows.

    The same paper's bidirectional gradient anchoring. A row's gradient is taken at length 1; an
    anchor is the mean of the gradients, at length 1 each, of its rows' first 10 answer tokens. The
    two safe anchors are two draws of the safe rows without a common one, of as many rows as there
    are exemplars where there are enough. In the model as given.

    Args:
        budget: exemplars; the paper has 10.
        parameters: ``all``, every weight as in the paper, a pass for each row; ``adapter``, a fresh
            LoRA adapter.
    """

    name = "gradient_anchoring"

    def __init__(self, budget: int = 10, parameters: Parameters = "all") -> None:
        self.needs = Needs(safe_rows=True, exemplars=budget)
        self.parameters: Parameters = parameters

    def score(self, given: Given) -> RowScores:
        """Harmful minus both safe anchors."""
        count = self.needs.exemplars
        safe = given.few_safe(2 * count)
        half = (len(safe) + 1) // 2
        groups = [given.exemplars(count), safe[:half], safe[-half:]]
        model = open_to_gradients(given, given.bench.base, self.parameters)
        anchors = [
            mean_gradient(
                given,
                model,
                [first_tokens(row, _ANCHOR_TOKENS) for row in group],
                self.parameters,
                normalised=True,
            )
            for group in groups
        ]
        dots, norms = products(given, model, given.noisy, anchors, self.parameters)
        return judged(anchored(dots, norms), self.name)


def nearest_cosine(rows: FloatArray, exemplars: FloatArray, nearest: int) -> FloatArray:
    """Mean of the ``nearest`` largest cosines of each row with the exemplars, shape (N,)."""
    cosines = np.sort(unit(rows) @ unit(exemplars).T, axis=1)
    return cosines[:, -nearest:].mean(axis=1)


def anchored(dots: FloatArray, norms: FloatArray) -> FloatArray:
    """Harmful minus both safe products, (3, N), of gradients brought to length 1; shape (N,)."""
    return (dots[0] - dots[1] - dots[2]) / np.maximum(norms, 1e-30)
