"""Rows by where their hidden states lie: along the main direction, off the crowd, off neutral."""

from __future__ import annotations

from typing import Literal

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.hidden_states import hidden_states, unit


@ROW_SCORERS.add("saft")
class Saft:
    """Squared projection of a row on the main directions of all rows' hidden states.

    "Safety-Aware Fine-Tuning of Large Language Models" (arXiv 2410.10014): hidden states of all
    rows at one layer, centred, their singular value decomposition, and the projection on the first
    direction, squared; over several directions weighted by their singular values. Its layer and
    sign are chosen on labelled rows, which no scorer is given here: chosen are the middle layer,
    the row's last token, and the weights as the singular values' shares.

    Args:
        directions: how many.
        layer: of the hidden states; the middle one where not given.
    """

    name = "saft"
    needs = Needs()

    def __init__(self, directions: int = 1, layer: int | None = None) -> None:
        self.directions, self.layer = max(1, directions), layer

    def score(self, given: Given) -> RowScores:
        """The squared projections."""
        layers = None if self.layer is None else [self.layer]
        (states,) = hidden_states(given, given.noisy, ["last"], layers)
        at = 0 if layers else states.shape[1] // 2
        return judged(main_projection(states[:, at], self.directions), self.name)


@ROW_SCORERS.add("hidden_outlier")
class HiddenOutlier:
    """Mahalanobis distance of a row's mean answer state, last layer, from where most rows lie.

    The covariance is shrunk as Ledoit and Wolf (2004) have it, so that it can be inverted however
    few rows there are.

    Args:
        reference: ``noisy``, the distance from the noisy rows themselves; ``safe``, from the safe
            rows.
    """

    name = "hidden_outlier"

    def __init__(self, reference: Literal["noisy", "safe"] = "noisy") -> None:
        self.reference = reference
        self.needs = Needs(safe_rows=reference == "safe")

    def score(self, given: Given) -> RowScores:
        """The distances."""
        (rows,) = hidden_states(given, given.noisy, ["answer"], [-1])
        crowd = rows
        if self.reference == "safe":
            (crowd,) = hidden_states(given, given.safe, ["answer"], [-1])
        return judged(mahalanobis(rows[:, 0], crowd[:, 0]), self.name)


@ROW_SCORERS.add("dra")
class Dra:
    """Mean cosine of a row's answer with bad exemplars', without what neutral text has in common.

    "Detecting and Filtering Unsafe Training Data via Data Attribution with Denoised Representation"
    (later versions of arXiv 2502.11411): the cosine between representations after the part of
    neutral tokens is removed. A summary by others says that this is whitening and a choice of
    dimensions; the exact operator could not be confirmed. Chosen here: the mean last-layer state
    over the answer's tokens, less its projection on the mean and the main directions of the safe
    rows' answers. In the model as given.

    Args:
        budget: exemplars.
        neutral: how many directions are removed; the mean is one of them.
    """

    name = "dra"

    def __init__(self, budget: int = 20, neutral: int = 5) -> None:
        self.needs, self.neutral = Needs(safe_rows=True, exemplars=budget), neutral

    def score(self, given: Given) -> RowScores:
        """The cosines."""
        exemplars = given.exemplars(self.needs.exemplars)
        parts = (given.noisy, exemplars, given.safe)
        rows, bad, safe = (hidden_states(given, p, ["answer"], [-1])[0][:, 0] for p in parts)
        found = denoised(rows, safe, self.neutral), denoised(bad, safe, self.neutral)
        return judged((unit(found[0]) @ unit(found[1]).T).mean(axis=1), self.name)


def main_projection(states: FloatArray, directions: int) -> FloatArray:
    """Squared projections of centred states on their first singular vectors, shape (N,)."""
    centred = states - states.mean(axis=0)
    _, sizes, vectors = np.linalg.svd(centred, full_matrices=False)
    k = min(directions, len(sizes))
    shares = sizes[:k] / max(float(sizes[:k].sum()), 1e-30)
    return (centred @ vectors[:k].T) ** 2 @ shares


def mahalanobis(rows: FloatArray, crowd: FloatArray) -> FloatArray:
    """Distance of each row from the mean of the crowd by the crowd's shrunk covariance, (N,)."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(crowd)
    off = rows - crowd.mean(axis=0)
    return np.sqrt(np.einsum("nh,hk,nk->n", off, np.linalg.pinv(covariance), off).clip(min=0))


def denoised(rows: FloatArray, neutral: FloatArray, directions: int) -> FloatArray:
    """``rows`` less their projection on the first singular vectors of ``neutral``, same shape."""
    _, _, vectors = np.linalg.svd(neutral, full_matrices=False)
    kept = vectors[:directions]
    return rows - rows @ kept.T @ kept
