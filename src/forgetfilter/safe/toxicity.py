"""The interface of a toxicity scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from forgetfilter.arrays import FloatArray


class ToxicityScorer(Protocol):
    """Says how toxic texts are. Implementations are in `forgetfilter.lab.scorers`."""

    name: str

    def score(self, texts: Sequence[str]) -> FloatArray:
        """Toxicity of each text in [0, 1], in the order given, higher = more toxic, shape (N,).

        A text's score does not depend on the texts beside it. A blank text says nothing and scores
        0.
        """
        ...


def score_but_blank(
    texts: Sequence[str], score: Callable[[list[str]], Sequence[float] | FloatArray]
) -> FloatArray:
    """Score the texts that say something with ``score`` and give the blank ones 0, shape (N,).

    Lone surrogates, which no tokenizer can encode, are replaced by question marks first.

    Raises:
        ValueError: ``score`` returns another number of scores, or one outside of 0..1.
    """
    said = np.array([bool(text.strip()) for text in texts], dtype=bool)
    scores = np.zeros(len(texts), dtype=np.float64)
    if said.any():
        readable = [
            text.encode("utf-8", "replace").decode("utf-8") for text in texts if text.strip()
        ]
        found = np.asarray(score(readable), dtype=np.float64)
        if found.shape != (len(readable),) or not ((found >= 0) & (found <= 1)).all():
            raise ValueError(
                f"A toxicity scorer returned {found.shape} scores for {len(readable)} texts, "
                "or some outside of 0..1; expected one in 0..1 for each. Mend the scorer."
            )
        scores[said] = found
    return scores
