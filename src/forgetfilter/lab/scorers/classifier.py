"""Any Hugging Face text classifier as a toxicity scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.lab.scorers.base import TOXICITY_SCORERS
from forgetfilter.safe.toxicity import score_but_blank

if TYPE_CHECKING:
    from forgetfilter.model.loading.classifier import TextClassifier

_TOXIC_LABELS = frozenset({"toxic", "toxicity"})
_WRITTEN = ("classifier:PATH", "classifier:path={path},label=NAME")


@TOXICITY_SCORERS.add("classifier")
class ClassifierScorer:
    """The probability that a sequence classifier gives to its toxic label.

    A text longer than the model's context is read in consecutive pieces, and the most toxic piece
    counts. See `forgetfilter.model.loading.classifier.TextClassifier`, which also says what is
    loaded.

    Args:
        path: a local folder, or a hub id that can be reached.
        label: the name of the toxic label in the model's config; found by itself where it is
            ``toxic`` or ``toxicity`` in any letter case.
        activation: how outputs become probabilities: ``softmax`` over all labels, ``sigmoid`` of
            the toxic one alone; ``auto`` reads the config's ``problem_type``, and without one takes
            ``sigmoid`` for a single output, else ``softmax``.
        max_tokens: tokens of a piece, special ones included; 0 is the model's context, at most 512.
        device: where to compute.

    Raises:
        ModelError: the model can't be loaded, or it is unknown which of its labels means toxic.
    """

    name = "classifier"

    def __init__(
        self,
        path: str = "",
        label: str = "",
        activation: Literal["auto", "softmax", "sigmoid"] = "auto",
        max_tokens: int = 0,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    ) -> None:
        from forgetfilter.model.loading.classifier import TextClassifier

        self.classifier: TextClassifier = TextClassifier(
            path, label, activation, max_tokens, device, meant=_TOXIC_LABELS, written=_WRITTEN
        )

    def score(self, texts: Sequence[str]) -> FloatArray:
        """Toxicity of each text; see `ToxicityScorer.score`."""
        return score_but_blank(texts, self._score)

    def _score(self, texts: list[str]) -> FloatArray:
        return np.array([self._score_one(text) for text in texts])

    def _score_one(self, text: str) -> float:
        # One piece at a time: no padding, so a score can't depend on the texts beside it.
        pieces = self.classifier.windows(text)
        return max((self.classifier.score_windows([ids])[0] for ids in pieces), default=0.0)
