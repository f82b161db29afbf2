"""Scorers that read a row's words and never ask the model that is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.safe.toxicity import ToxicityScorer

if TYPE_CHECKING:
    from forgetfilter.data.records import EncodedRow

Part = Literal["answer", "row"]


@ROW_SCORERS.add("words")
class Words:
    """The packaged scorer of toxic words on each row's answer, between 0 and 1.

    Logistic regression on words and parts of words (`LinearScorer`); it knows English insults and
    slurs. A row without text in its answer is not judged.

    Args:
        part: what is read: ``answer``, the last answer alone; ``row``, the prompt before it too.
    """

    name = "words"
    needs = Needs()

    def __init__(self, part: Part = "answer") -> None:
        self.part: Part = part

    def score(self, given: Given) -> RowScores:
        """Toxicity of the text."""
        from forgetfilter.safe.linear_toxicity import LinearScorer

        return toxicity_of(given, LinearScorer(), self.part, self.name)


@ROW_SCORERS.add("classifier")
class Classifier:
    """The probability that a sequence classifier gives to its toxic label, between 0 and 1.

    Any moderation model by its path; a text longer than its context is read in pieces. A row
    without text in its answer is not judged.

    Args:
        path: folder or hub id of a sequence classifier.
        label: the name of its toxic label; found by itself where it is ``toxic`` or ``toxicity``.
        part: what is read: ``answer``, the last answer alone; ``row``, the prompt before it too.
    """

    name = "classifier"
    needs = Needs(guard=True)

    def __init__(self, path: str = "", label: str = "", part: Part = "answer") -> None:
        self.path, self.label = path, label
        self.part: Part = part

    def score(self, given: Given) -> RowScores:
        """Toxicity of the text."""
        from forgetfilter.lab.scorers.classifier import ClassifierScorer

        scorer = ClassifierScorer(self.path, self.label)
        given.passes.read(len(given.noisy))
        return toxicity_of(given, scorer, self.part, self.name)


def toxicity_of(given: Given, scorer: ToxicityScorer, part: Part, name: str) -> RowScores:
    """What a scorer of texts says of every noisy row; None for a row without text."""
    texts = [row.target for row in given.noisy]
    has_text = np.array([bool(text.strip()) for text in texts], dtype=np.bool_)
    if part == "row":
        prompts = prompt_texts(given)
        texts = [f"{prompt}\n{text}" for prompt, text in zip(prompts, texts, strict=True)]
    return judged(scorer.score(texts), name, has_text)


def prompt_texts(given: Given, rows: Sequence[EncodedRow] | None = None) -> list[str]:
    """What comes before the last answer of each row, as the tokenizer gives it back.

    Without the template's special tokens; of its plain words, such as the names of the roles, what
    is no special token stays. Of the noisy rows, where ``rows`` are not given.
    """
    tokenizer = given.bench.tokenizer
    told = given.noisy if rows is None else rows
    prompts = [row.input_ids[: row.prompt_length].tolist() for row in told]
    return [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in prompts]
