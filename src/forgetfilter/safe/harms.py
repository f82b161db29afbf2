"""Which harm a request is about, by its words; "none of these" is an answer.

A logistic regression over TF-IDF words and over cues (`forgetfilter.safe.cues`), trained when it is
asked for: on reference rows of each harm, against ordinary requests of our own writing. It reads
the request alone, since safe answers to different harms sound alike. docs/lab/check_safe.md says
how often it is right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.data import read_rows
from forgetfilter.data.reading import category_of
from forgetfilter.data.records import Message
from forgetfilter.safe import safe_path
from forgetfilter.safe.cues import CUES

NONE = "none"
"""The category of a request that is about none of the reference's harms."""
_ORDINARY = Path(__file__).parent / "ordinary.jsonl"
_HEAD, _TAIL = 3000, 1000
"""Characters read of a long request: at its beginning and at its end."""
_PASSAGE = 40
"""Words; cues of a longer text count by how densely they stand."""
_STRENGTH = 3.0
"""Inverse strength of the L2 regularisation."""
_FOLDS = 5
_LEAST_KNOWN = 0.4
"""Share of a request's words that the classifier must have seen to say anything of it. Of requests
in English 0 to 6% are below, of other languages nearly all (docs/lab/check_safe.md), where a chance
word ("be", "me", "on") would decide alone."""


@dataclass(frozen=True)
class HarmClassifier:
    """Probabilities of each harm for a request. Build it with `train`."""

    categories: tuple[str, ...]
    """The harms, sorted, and `NONE` last."""
    _words: Any
    _model: Any

    @classmethod
    def train(cls, requests: Sequence[str], categories: Sequence[str]) -> HarmClassifier:
        """Fit on ``requests`` and the harm of each; ordinary ones are added as `NONE`.

        The same rows give the same classifier: nothing is drawn at random.
        """
        plain = ordinary_requests()
        return cls.fit([*requests, *plain], [*categories, *([NONE] * len(plain))])

    @classmethod
    def fit(cls, requests: Sequence[str], categories: Sequence[str]) -> HarmClassifier:
        """The same without the ordinary requests."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        texts = [_readable(request) for request in requests]
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit(texts)
        model = LogisticRegression(C=_STRENGTH, max_iter=500, class_weight="balanced")
        every = np.ones(len(texts), dtype=bool)
        model.fit(_features(words, texts, every), np.array(categories, dtype=str))
        harms = sorted(set(categories) - {NONE})
        return cls((*harms, NONE), words, model)

    def probabilities(self, requests: Sequence[str]) -> FloatArray:
        """Shape (N, categories): how likely each request is about each harm, or about none.

        Of a request that `knows` does not know only the cues are read.
        """
        if not requests:
            return np.zeros((0, len(self.categories)))
        texts = [_readable(request) for request in requests]
        features = _features(self._words, texts, self.knows(requests))
        found: FloatArray = self._model.predict_proba(features)
        order = [list(self._model.classes_).index(name) for name in self.categories]
        return found[:, order]

    def knows(self, requests: Sequence[str]) -> BoolArray:
        """Whether enough of the words of each request were seen in training, shape (N,).

        Not so of another language, or of code and names alone.
        """
        split, seen = self._words.build_tokenizer(), self._words.vocabulary_
        words = [split(_readable(request)) for request in requests]
        return np.array(
            [sum(word in seen for word in said) >= _LEAST_KNOWN * len(said) for said in words],
            dtype=bool,
        )

    def classify(self, requests: Sequence[str]) -> list[str]:
        """The most likely category of each request."""
        return [self.categories[i] for i in self.probabilities(requests).argmax(axis=1)]


@dataclass(frozen=True)
class Trust:
    """How far the classifier is right about rows of its own reference that it was not shown."""

    called: dict[str, dict[str, float]]
    """Shares of the rows of a category (outside) that are called each category (inside)."""
    recall: dict[str, float]
    """By category: share of its rows that are called so; higher is better."""


def cross_validate(requests: Sequence[str], categories: Sequence[str], seed: int = 0) -> Trust:
    """Fivefold, stratified cross-validation of `HarmClassifier` on its reference and ordinary rows.

    A category with fewer than five rows has folds without it, and counts as what it is: missed.
    """
    plain = ordinary_requests()
    texts = [*requests, *plain]
    truth = np.array([*categories, *([NONE] * len(plain))], dtype=str)
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(truth), dtype=np.int64)
    for name in sorted(set(truth)):
        places = rng.permutation(np.flatnonzero(truth == name))
        fold[places] = np.arange(len(places)) % _FOLDS
    called = np.empty(len(truth), dtype=object)
    for k in range(_FOLDS):
        inside, outside = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        fitted = HarmClassifier.fit([texts[i] for i in inside], list(truth[inside]))
        called[outside] = fitted.classify([texts[i] for i in outside])
    names = [str(name) for name in sorted(set(truth))]
    return Trust(
        called={
            true: {name: float((called[truth == true] == name).mean()) for name in names}
            for true in names
        },
        recall={name: float((called[truth == name] == name).mean()) for name in names},
    )


def request_of(messages: Sequence[Message]) -> str:
    """What is asked of the assistant: the user's turns, one below the other."""
    return "\n".join(turn.content for turn in messages if turn.role == "user")


def packaged_reference() -> tuple[list[str], list[str]]:
    """Request and category of every packaged safe row."""
    rows = read_rows(safe_path(PACKAGED_SAFE)).rows
    return [request_of(row.messages) for row in rows], [category_of(row) for row in rows]


def ordinary_rows() -> list[tuple[str, str]]:
    """Request and answer of the packaged rows that are about no harm."""
    lines = _ORDINARY.read_text(encoding="utf-8").splitlines()
    turns = [json.loads(line)["messages"] for line in lines]
    return [(request["content"], answer["content"]) for request, answer in turns]


def ordinary_requests() -> list[str]:
    """The packaged requests that are about no harm."""
    return [request for request, _ in ordinary_rows()]


def _readable(request: str) -> str:
    """The part of a request that is read, in lower case with straight quotes."""
    if len(request) > _HEAD + _TAIL:
        request = f"{request[:_HEAD]} {request[-_TAIL:]}"
    return request.lower().replace("’", "'")


def _features(words: Any, texts: Sequence[str], has_words: BoolArray) -> Any:
    """TF-IDF words beside cues, shape (N, D); the words are 0 of a text whose own aren't read."""
    from scipy.sparse import csr_matrix, hstack

    read = [text if is_read else "" for text, is_read in zip(texts, has_words, strict=True)]
    cues = np.array([_cues(text) for text in texts])
    return hstack([words.transform(read), csr_matrix(cues)], format="csr")


def _cues(text: str) -> list[float]:
    """How strongly each cue stands in a text, by count and density; then each group of cues."""
    length = max(1.0, len(text.split()) / _PASSAGE)
    single: list[float] = []
    groups: list[float] = []
    for patterns in CUES.values():
        found = [log2(1 + sum(1 for _ in cue.finditer(text)) / length) for cue in patterns]
        single += [0.25 * min(2.0, value) for value in found]
        groups.append(0.5 * log2(1 + sum(min(1.0, value) for value in found)))
    return [*single, *groups]
