"""Detoxify, the publication's toxicity scorer (an optional extra)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.errors import MissingExtraError
from forgetfilter.lab.scorers.base import TOXICITY_SCORERS
from forgetfilter.safe.toxicity import score_but_blank


@TOXICITY_SCORERS.add("detoxify")
class DetoxifyScorer:
    """The ``toxicity`` output of Detoxify, 0..1; texts are cut at 512 tokens by Detoxify.

    Building it downloads a checkpoint that Detoxify opens with Python's pickle, which runs whatever
    code the file holds. Where that isn't wanted, use `classifier` with a safetensors copy of the
    same network (``classifier:unitary/toxic-bert``).

    Args:
        variant: which of Detoxify's models; the publication does not say which it used.

    Raises:
        MissingExtraError: the package isn't installed.
    """

    name = "detoxify"

    def __init__(
        self, variant: Literal["original", "unbiased", "multilingual"] = "original"
    ) -> None:
        try:
            from detoxify import Detoxify  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingExtraError(
                "The toxicity scorer 'detoxify' needs the package detoxify, which is not "
                "installed. Run: pip install 'forgetfilter[detoxify]' (or use the scorer "
                "'linear', which is bundled)."
            ) from None
        self._model: Any = Detoxify(variant)

    def score(self, texts: Sequence[str]) -> FloatArray:
        """Toxicity of each text; see `ToxicityScorer.score`."""
        return score_but_blank(texts, self._score)

    def _score(self, texts: list[str]) -> FloatArray:
        # One text at a time, so that padding can't move a score; one alone comes back as a number.
        return np.array(
            [float(self._model.predict(text)["toxicity"]) for text in texts], dtype=np.float64
        )
