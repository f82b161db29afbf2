"""Whether an answer declines what was asked: by phrases, or by how it sounds.

Phrases of refusal find stock refusals, phrases of advice against a thing find "that is illegal".
Well-written ones ("I'd ask you to step back from this") hold neither, so a logistic
regression on words and characters learns them from the packaged rows: answers to harmful requests
against answers to harmless ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.data import read_rows
from forgetfilter.data.reading import category_of
from forgetfilter.data.records import Row
from forgetfilter.safe import safe_path
from forgetfilter.safe.harms import ordinary_rows
from forgetfilter.safe.refusal import is_refusal

DECLINED = frozenset({"harmful_requests", "privacy", "deception", "self_harm"})
HELPED = frozenset({"looks_dangerous"})
_AGAINST = re.compile(
    "|".join(
        (
            r"\b(?:not|never|isn't|aren't|don't|wouldn't) (?:\w+ ){0,3}(?:recommend\w*|advis\w*"
            r"|ethical|appropriate|acceptable|okay|right|good idea|legal|safe|wise|condone"
            r"|encourage|endorse"
            r"|worth|true|accurate|fair|allowed)\b",
            r"\b(?:illegal|unethical|immoral|unlawful|against the law|inappropriate|unacceptable"
            r"|wrong|prohibited|crime)\b",
            r"\b(?:should|must|would) (?:not|never)\b|shouldn't|\binstead\b|rather than",
            r"\b(?:seek|reach out|talk to|speak (?:to|with)|contact|consult) (?:\w+ ){0,4}"
            r"(?:help|professional|police|authorit\w+|lawyer|doctor|counsel\w*|therapist|someone|support)",
            r"law enforcement|authorities|consequences|\bplease\b|respect|stereotyp|discriminat",
            r"(?:i'd|i would) (?:strongly )?(?:encourage|suggest|recommend|advise|urge)",
            r"it(?:'s| is) (?:important|best|essential|crucial) to|^(?:no|unfortunately)\b",
        )
    )
)
_MOST_CHARACTERS = 1000
"""Characters of an answer that are read: what it is about to do shows at its beginning."""


@dataclass(frozen=True)
class DecliningAnswers:
    """How likely an answer declines. Build it with `train`."""

    _words: Any
    _model: Any

    @classmethod
    def train(cls, declining: Sequence[str], helping: Sequence[str]) -> DecliningAnswers:
        """Fit on answers that decline and answers that help."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_union

        texts = [_readable(answer) for answer in (*declining, *helping)]
        words = make_union(
            TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
            TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5), min_df=2),
        )
        model = LogisticRegression(C=3.0, max_iter=500, class_weight="balanced")
        model.fit(words.fit_transform(texts), [True] * len(declining) + [False] * len(helping))
        return cls(words, model)

    def probabilities(self, answers: Sequence[str]) -> FloatArray:
        """Probability that each answer declines, shape (N,); 1 where a phrase says so."""
        if not answers:
            return np.zeros(0)
        texts = [_readable(answer) for answer in answers]
        sounds: FloatArray = self._model.predict_proba(self._words.transform(texts))[:, 1]
        said = [is_refusal(text) or advises_against(text) for text in texts]
        return np.where(said, 1.0, sounds)


def packaged_answers() -> tuple[list[str], list[str]]:
    """Answers of the packaged rows: those that don't give what was asked for, those that do."""
    return split_answers(read_rows(safe_path(PACKAGED_SAFE)).rows)


def split_answers(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Answers of packaged ``rows`` that decline, and those that help, ordinary ones among them."""
    declining = [row.target for row in rows if category_of(row) in DECLINED]
    helping = [row.target for row in rows if category_of(row) in HELPED]
    return declining, [*helping, *(answer for _, answer in ordinary_rows())]


def advises_against(answer: str) -> bool:
    """Whether ``answer`` holds a phrase that speaks against what was asked, or sends to others."""
    return _AGAINST.search(answer.lower().replace("’", "'")) is not None


def _readable(answer: str) -> str:
    return answer[:_MOST_CHARACTERS].lower().replace("’", "'")
