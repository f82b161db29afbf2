"""The bundled toxicity scorer: logistic regression on hashed word and character n-grams."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.safe.toxicity import score_but_blank

WEIGHTS_PATH = Path(__file__).with_name("linear_toxicity.safetensors")
"""The bundled weights; benchmarks/toxicity_classifier.py makes them."""

_BUCKETS = 2**16
"""Hash buckets of each of the two kinds of n-gram."""


class LinearScorer:
    """Sigmoid of a linear score over TF-IDF of words, word pairs and 2-5 characters in words.

    Small, offline and the same everywhere; it knows insults and slurs, but little of what is said
    between the lines. docs/lab/metrics.md states what it was trained on and how well it ranks texts
    that were held out, source by source.

    Features are hashed (scikit-learn's ``HashingVectorizer``): the file holds two numbers per
    bucket and no text, so neither slurs nor anybody's words travel with the package.
    """

    name = "linear"

    def __init__(self) -> None:
        self._model = LinearModel.load(WEIGHTS_PATH)

    def score(self, texts: Sequence[str]) -> FloatArray:
        """Toxicity of each text; see `ToxicityScorer.score`."""
        return score_but_blank(texts, self._model.probabilities)


@dataclass(frozen=True)
class LinearModel:
    """The numbers of one trained model. All arrays have shape (2 * buckets,)."""

    idf: FloatArray
    """Inverse document frequency of each bucket."""
    coefficients: FloatArray
    intercept: float
    facts: Mapping[str, str]
    """What it was made from, for people."""

    @classmethod
    def train(
        cls, counts: Any, is_toxic: BoolArray, weights: FloatArray, facts: Mapping[str, str]
    ) -> LinearModel:
        """Fit by L2-regularised logistic regression at scikit-learn's own strength (C = 1).

        Args:
            counts: from `hashed_counts`, shape (N, 2 * buckets).
            is_toxic: shape (N,).
            weights: how much each text counts, shape (N,); see `balanced_weights`.
            facts: what to store beside the numbers.
        """
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression

        transformer = TfidfTransformer(sublinear_tf=True).fit(counts)
        # Rounded before the fit, so that what is stored is what was fitted.
        idf = transformer.idf_.astype(np.float16).astype(np.float64)
        fit = LogisticRegression(max_iter=200).fit(
            _tfidf(counts, idf), is_toxic, sample_weight=weights
        )
        coefficients = fit.coef_[0].astype(np.float16).astype(np.float64)
        return cls(idf, coefficients, float(fit.intercept_[0]), facts)

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Probability that each text is toxic, shape (N,)."""
        return self.probabilities_of(hashed_counts(texts))

    def probabilities_of(self, counts: Any) -> FloatArray:
        """The same for texts whose n-grams are counted already (`hashed_counts`)."""
        from scipy.special import expit

        return expit(_tfidf(counts, self.idf) @ self.coefficients + self.intercept)

    def save(self, path: Path) -> None:
        """Write the model as safetensors: half-precision numbers and a JSON header."""
        from safetensors.numpy import save_file

        arrays = {
            "idf": self.idf.astype(np.float16),
            "coefficients": self.coefficients.astype(np.float16),
            "intercept": np.array([self.intercept], dtype=np.float64),
        }
        save_file(arrays, path, metadata={"facts": json.dumps(dict(self.facts), sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> LinearModel:
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["facts"])
            idf, coefficients, intercept = (
                file.get_tensor(name).astype(np.float64)
                for name in ("idf", "coefficients", "intercept")
            )
        return cls(idf, coefficients, float(intercept[0]), facts)


def hashed_counts(texts: Sequence[str]) -> Any:
    """How often each hashed n-gram occurs in each text: CSR matrix, shape (N, 2 * buckets)."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    # Without alternating signs counts stay counts, which document frequencies and logarithms need.
    same: dict[str, Any] = {"n_features": _BUCKETS, "alternate_sign": False, "norm": None}
    words = HashingVectorizer(analyzer="word", ngram_range=(1, 2), **same)
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **same)
    return hstack([words.transform(texts), characters.transform(texts)], format="csr")


def is_held_out(text: str, seed: int = 0) -> bool:
    """Whether ``text`` is in the held-out fifth: by a hash of its words, whatever file it is in.

    Texts that differ in case, marks, user names, links or spacing alone are on the same side.
    """
    plain = re.sub(r"@\w+|https?://\S+|\brt\b", " ", text.lower())
    words = " ".join(re.findall(r"[^\W_]+", plain))
    digest = hashlib.sha256(f"{seed}\n{words}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") < 2**64 // 5


def balanced_weights(is_toxic: BoolArray, sources: Sequence[str], cap: float = 10.0) -> FloatArray:
    """Weights under which toxic and clean texts of each source count alike, shape (N,).

    Without them a model can do well by recognising the source (one file is nearly all clean,
    another nearly all toxic). A text of a rare class counts at most ``cap`` times as much
    as it would.
    """
    names = np.asarray(sources)
    weights = np.ones(len(names), dtype=np.float64)
    for name in np.unique(names):
        for value in (True, False):
            cell = (names == name) & (is_toxic == value)
            if cell.any():
                weights[cell] = min(cap, (names == name).sum() / (2 * cell.sum()))
    return weights


def _tfidf(counts: Any, idf: FloatArray) -> Any:
    """L2-normalised ``(1 + ln count) * idf``; a text without any known n-gram stays all zero."""
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    values = (1 + np.log(counts.data)) * idf[counts.indices]
    weighted = csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
    return normalize(weighted, copy=False)
