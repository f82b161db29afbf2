"""How well a label can be told without any model: by words of the prompt or answer, or length.

Each reading is fitted on the rows of one part and judged on the rows of another, whose prompts,
templates and texts are others. What it tells is what a signal gets for nothing: a signal that ranks
no better has found the words of the file and not what the model learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import DataError
from forgetfilter.lab.metrics.intervals import Estimate
from forgetfilter.lab.mix.offers import Offer

Learner = Literal["naive Bayes", "logistic"]


@dataclass(frozen=True)
class Tell:
    """How well one reading ranks the unsafe rows first, and what a cut between would get right."""

    reading: str
    """What is read, and by which learner."""
    auroc: Estimate
    """0.5 is guessing; 95% interval over groups of rows."""
    unsafe_right: float
    """Share of the unsafe rows on their side of the cut that weighs both labels alike."""
    harmless_right: float
    """Share of the harmless rows on theirs."""
    unsafe: int
    harmless: int


def tells(fitted: Sequence[Offer], judged: Sequence[Offer]) -> list[Tell]:
    """Every reading, fitted on rows of one part and judged on those of another.

    Raises:
        DataError: either has rows of one label only.
    """
    for name, rows in (("fit on", fitted), ("judge", judged)):
        if len({row.is_unsafe for row in rows}) < 2:
            raise DataError(
                f"The {len(rows)} rows to {name} have one label; expected safe and unsafe ones. "
                "Use larger parts, or sources of both labels."
            )
    truth = np.array([row.is_unsafe for row in judged])
    groups = np.array([row.group for row in judged])
    found: list[Tell] = []
    texts: dict[str, Callable[[Offer], str]] = {"prompt": _prompt, "answer": _answer}
    learners: tuple[Learner, ...] = ("naive Bayes", "logistic")
    for name, text_of in texts.items():
        for learner in learners:
            scores = _by_words(fitted, judged, text_of, learner)
            found.append(_tell(f"words of the {name}, {learner}", truth, scores, groups))
    for name, text_of in texts.items():
        scores = _by_length(fitted, judged, text_of)
        found.append(_tell(f"words in the {name}, counted", truth, scores, groups))
    found.append(_tell("all of these, logistic", truth, _by_all(fitted, judged), groups))
    return found


def _by_all(fitted: Sequence[Offer], judged: Sequence[Offer]) -> FloatArray:
    """Chance of ``unsafe`` by words of both and their lengths together, shape (N,)."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.linear_model import LogisticRegression

    seen: list[Any] = []
    asked: list[Any] = []
    for text_of in (_prompt, _answer):
        words: Any = _words()
        seen += [words.fit_transform(map(text_of, fitted)), csr_matrix(_lengths(fitted, text_of))]
        asked += [words.transform(map(text_of, judged)), csr_matrix(_lengths(judged, text_of))]
    model: Any = LogisticRegression(class_weight="balanced", max_iter=2000)
    model.fit(hstack(seen), np.array([row.is_unsafe for row in fitted]))
    return model.predict_proba(hstack(asked))[:, 1]


def _prompt(row: Offer) -> str:
    return row.prompt


def _answer(row: Offer) -> str:
    return row.response


def _words() -> Any:
    """Counts words and pairs of words, each once a text."""
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"(?u)\b\w+\b")


def _lengths(rows: Sequence[Offer], text_of: Callable[[Offer], str]) -> FloatArray:
    """Logarithm of the number of words, shape (N, 1)."""
    return np.log([[len(text_of(row).split()) or 1] for row in rows])


def _by_words(
    fitted: Sequence[Offer],
    judged: Sequence[Offer],
    text_of: Callable[[Offer], str],
    learner: Learner,
) -> FloatArray:
    """Chance of ``unsafe`` by words and pairs of words, both labels weighed alike, shape (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB

    words: Any = _words()
    seen = words.fit_transform(map(text_of, fitted))
    labels = np.array([row.is_unsafe for row in fitted])
    model: Any = (
        MultinomialNB(alpha=0.5, class_prior=[0.5, 0.5])
        if learner == "naive Bayes"
        else LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    model.fit(seen, labels)
    return model.predict_proba(words.transform(map(text_of, judged)))[:, 1]


def _by_length(
    fitted: Sequence[Offer], judged: Sequence[Offer], text_of: Callable[[Offer], str]
) -> FloatArray:
    """Chance of ``unsafe`` by the logarithm of the number of words alone, shape (N,)."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(class_weight="balanced")
    model.fit(_lengths(fitted, text_of), np.array([row.is_unsafe for row in fitted]))
    return model.predict_proba(_lengths(judged, text_of))[:, 1]


def _tell(reading: str, truth: BoolArray, scores: FloatArray, groups: Any) -> Tell:
    return Tell(
        reading,
        _auroc(truth, scores, groups),
        float((scores[truth] > 0.5).mean()),
        float((scores[~truth] <= 0.5).mean()),
        int(truth.sum()),
        int((~truth).sum()),
    )


def _auroc(truth: BoolArray, scores: FloatArray, groups: Any) -> Estimate:
    """AUROC with its 95% interval by DeLong's variance, summed over groups of rows.

    Rows of one prompt or template are not independent (Obuchowski 1997). The interval is taken on
    the logit scale, so that it stays within 0..1; it has no width where no pair is wrong.
    """
    from scipy.stats import rankdata

    unsafe, harmless = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(scores)
    # Of each row, the share of the rows of the other label that it is ranked on the right side of.
    placed = np.empty(len(scores))
    placed[truth] = (ranks[truth] - rankdata(scores[truth])) / harmless
    placed[~truth] = 1 - (ranks[~truth] - rankdata(scores[~truth])) / unsafe
    area = float(placed[truth].mean())
    if not 0 < area < 1:
        return Estimate(area, area, area)
    _, of_row = np.unique(groups, return_inverse=True)
    shares = (placed - area) / np.where(truth, unsafe, harmless)
    of_group = np.bincount(of_row, weights=shares)
    spread = float(np.sqrt((of_group**2).sum() * len(of_group) / max(len(of_group) - 1, 1)))
    half = 1.96 * spread / (area * (1 - area))
    middle = np.log(area / (1 - area))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (middle - half, middle + half))
    return Estimate(area, low, high)
