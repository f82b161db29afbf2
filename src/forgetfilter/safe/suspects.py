"""Which rows of a safe set look unsafe themselves: toxic answers, and help with harmful requests.

Both are read off words, so both overlook what is implicit: a stereotyped answer in polite words, a
lie, a biased choice among options. docs/lab/check_safe.md says how many planted rows are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import Message, Row
from forgetfilter.safe.declining import DecliningAnswers, packaged_answers
from forgetfilter.safe.harms import HarmClassifier, packaged_reference, request_of
from forgetfilter.safe.linear_toxicity import LinearScorer
from forgetfilter.safe.toxicity import ToxicityScorer

LEAST_TOXIC = 0.7
"""Toxicity of an answer from which on it is shown."""
LEAST_HELPING = 0.25
"""Score of help with a harmful request from which on it is shown."""
LEAST_HARMFUL = 0.5
"""Probability that a request is harmful from which on an answer to it can count as help."""
HARMFUL = ("harmful_requests", "privacy", "deception", "self_harm")
"""Categories of the packaged rows whose requests may ask for something harmful."""
UNSAFE_SHARE = 0.1
"""Share of suspect rows from which on a set is not taken for safe; honest sets have 2% or less
(docs/lab/check_safe.md)."""
LEAST_SUSPECTS = 5
"""And at least so many of them: words alone are wrong about single rows."""
_MOST_CHARACTERS = 10_000
"""Characters of an answer that are scored."""


@dataclass(frozen=True)
class Suspicions:
    """How unsafe rows look; all arrays have shape (N,), in the order of the rows."""

    toxicity: FloatArray
    """Of the most toxic answer that carries loss, by the bundled scorer, 0..1."""
    helping: FloatArray
    """Probability that the request is harmful times that the answer does not decline, 0..1; 0 where
    the request is rather harmless, or in words that are not known."""
    is_known: BoolArray
    """Whether the request is in words that can be judged: English, for the most part."""

    @property
    def is_suspect(self) -> BoolArray:
        """Which rows are at or above a threshold."""
        return (self.toxicity >= LEAST_TOXIC) | (self.helping >= LEAST_HELPING)

    @property
    def score(self) -> FloatArray:
        """The larger of the two scores, each in units of its threshold; 1 and more is suspect."""
        return np.maximum(self.toxicity / LEAST_TOXIC, self.helping / LEAST_HELPING)

    @property
    def is_of_unsafe_rows(self) -> bool:
        """Whether so many rows are suspect that the set can't be what it is given for."""
        count = int(self.is_suspect.sum())
        return count >= max(LEAST_SUSPECTS, UNSAFE_SHARE * len(self.is_suspect))

    @classmethod
    def joined(cls, parts: Sequence[Suspicions]) -> Suspicions:
        """Those of several blocks of rows, one after the other."""
        return cls(
            np.concatenate([part.toxicity for part in parts]),
            np.concatenate([part.helping for part in parts]),
            np.concatenate([part.is_known for part in parts]),
        )

    def reason(self, i: int) -> str:
        """Why row ``i`` is suspect, in words, with its scores; empty if it is not."""
        found: list[str] = []
        if self.toxicity[i] >= LEAST_TOXIC:
            found.append(f"toxic answer ({self.toxicity[i]:.2f})")
        if self.helping[i] >= LEAST_HELPING:
            found.append(f"helps with a harmful request ({self.helping[i]:.2f})")
        return "; ".join(found)


@dataclass(frozen=True)
class SuspectFinder:
    """Scores rows by how unsafe they look. Build it with `packaged`."""

    harms: HarmClassifier
    declining: DecliningAnswers
    scorer: ToxicityScorer

    @classmethod
    @cache
    def packaged(cls) -> SuspectFinder:
        """Trained on the packaged rows, once in a process."""
        return cls(
            HarmClassifier.train(*packaged_reference()),
            DecliningAnswers.train(*packaged_answers()),
            LinearScorer(),
        )

    def look(self, rows: Sequence[Row]) -> Suspicions:
        """Score ``rows``; a row's scores do not depend on the rows beside it."""
        answers = [
            [turn.content[:_MOST_CHARACTERS] for turn in row.messages if _is_answer(turn)]
            for row in rows
        ]
        flat = self.scorer.score([text for texts in answers for text in texts])
        ends = np.cumsum([len(texts) for texts in answers])
        toxicity = np.array(
            [flat[end - len(texts) : end].max() for end, texts in zip(ends, answers, strict=True)]
        )
        requests = [request_of(row.messages) for row in rows]
        likely = self.harms.probabilities(requests)
        columns = [i for i, name in enumerate(self.harms.categories) if name in HARMFUL]
        harmful: FloatArray = likely[:, columns].sum(axis=1)
        declines = self.declining.probabilities([row.target for row in rows])
        helping = np.where(harmful >= LEAST_HARMFUL, harmful * (1 - declines), 0.0)
        return Suspicions(toxicity, helping, self.harms.knows(requests))


def _is_answer(turn: Message) -> bool:
    """Whether a turn is one that a model would learn; the last one always is."""
    return turn.role == "assistant" and turn.carries_loss
