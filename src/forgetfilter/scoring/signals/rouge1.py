"""The paper's signal: how much of the target the greedy generation stops reproducing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.scoring.records import Probe, Readings, SignalScores
from forgetfilter.scoring.signals.base import SIGNALS

_PAPER_DROPPED = str.maketrans("", "", ".?!;:,")


@SIGNALS.add("rouge1")
class Rouge1:
    """ROUGE-1 F-measure of the greedy generation, learned minus forgotten; in [-1, 1].

    Section 3 of "Learning and Forgetting Unsafe Examples in Large Language Models" (arXiv
    2312.12736): ``r = s(M1(x), y) - s(M2(x), y)`` with M1 the learned and M2 the forgotten model.
    ROUGE-1 is Google's ``rouge-score`` with the Porter stemmer. The default rule is the paper's
    phi of 0.1.

    Args:
        reference: what a generation is compared with. ``target`` is the row's own completion (the
            paper's text); ``learned_output`` is what the learned model said (the reading that the
            paper's published code suggests), so that ``before`` is 1 for every row.
        postprocess: ``none``, or ``paper`` for the published post-processing: lower case, the
            marks ``. ? ! ; : ,`` and ``</s>`` removed, the prediction cut to its first non-empty
            line (the reference is not cut).
    """

    name = "rouge1"
    unit = "ROUGE-1 F-measure"
    default_rule = "phi:0.1"  # the paper's
    needs_learned = True
    probes = (
        Probe("generation", "base"),
        Probe("generation", "learned"),
        Probe("generation", "forgotten"),
    )

    def __init__(
        self,
        reference: Literal["target", "learned_output"] = "target",
        postprocess: Literal["none", "paper"] = "none",
    ) -> None:
        self.reference = reference
        self.postprocess = postprocess

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        references = readings["target" if self.reference == "target" else "generation_learned"]
        base, before, after = (
            self._score(readings[f"generation_{state}"], references)
            for state in ("base", "learned", "forgotten")
        )
        return SignalScores(base=base, before=before, after=after, forgetting_score=before - after)

    def _score(self, predictions: Any, references: Any) -> FloatArray:
        if self.postprocess == "paper":
            predictions = [_first_line(_paper_normalise(text)) for text in predictions]
            references = [_paper_normalise(text) for text in references]
        return rouge1_f(predictions, references)


def rouge1_f(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    """ROUGE-1 F-measure with stemming of each prediction against its reference, shape (N,)."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)
    return np.array(
        [
            scorer.score(str(reference), str(prediction))["rouge1"].fmeasure
            for prediction, reference in zip(predictions, references, strict=True)
        ],
        dtype=np.float64,
    )


def _paper_normalise(text: str) -> str:
    """The published clean-up of a text: after the first ``Response:``, lower case, no marks."""
    _, found, rest = text.partition("Response:")
    text = rest if found else text
    return text.lower().strip().replace("</s>", "").translate(_PAPER_DROPPED)


def _first_line(text: str) -> str:
    """The first line that isn't blank; empty if there is none."""
    return next((line for line in text.splitlines() if line.strip()), "")
