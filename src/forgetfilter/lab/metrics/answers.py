"""How well answers match gold answers: SQuAD EM and F1, ROUGE-1, closed answers, final numbers.

Every value is a share in 0..1 and higher is better; publications often print it times 100.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeVar

from forgetfilter.errors import DataError
from forgetfilter.lab.metrics.values import MetricValue, mean_value, share_value
from forgetfilter.scoring.signals.rouge1 import rouge1_f

T = TypeVar("T")

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"(?:(?<!\w)-)?[$€£]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no English article, single spaces.

    SQuAD's normalisation (``evaluate-v2.0.py``), in its order: punctuation goes first, without
    leaving a space.
    """
    plain = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", plain).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the normalised ``prediction`` equals that of a gold answer, else 0.0.

    Gold answers of which the normalisation leaves nothing are passed over; if it leaves nothing of
    any, or there is none, the question has no answer and only an empty prediction is right.
    """
    said = normalise(prediction)
    return float(any(said == gold for gold in _usable(golds)))


def token_f1(prediction: str, golds: Sequence[str]) -> float:
    """SQuAD's F1 of the best gold answer, 0..1, over the multisets of normalised tokens.

    ``P = matches / |prediction|``, ``R = matches / |gold|``, ``F1 = 2PR / (P + R)``, where a token
    matches as often as it occurs in both. Two empty answers score 1, one empty answer 0.
    """
    said = normalise(prediction).split()
    return max(_f1(said, gold.split()) for gold in _usable(golds))


def squad(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> list[MetricValue]:
    """``squad_em`` and ``squad_f1``: means over questions of `exact_match` and `token_f1`.

    Args:
        predictions: one answer per question.
        golds: all accepted answers of each question.

    Raises:
        DataError: the two differ in length.
    """
    pairs = _pairs(predictions, golds)
    matches = [exact_match(prediction, accepted) == 1 for prediction, accepted in pairs]
    scores = [token_f1(prediction, accepted) for prediction, accepted in pairs]
    return [
        share_value("squad_em", matches, "higher"),
        mean_value("squad_f1", scores, "F1, 0..1", "higher"),
    ]


def rouge1(predictions: Sequence[str], references: Sequence[str]) -> MetricValue:
    """Mean ROUGE-1 F-measure, by Google's ``rouge-score`` with the Porter stemmer.

    Raises:
        DataError: the two differ in length.
    """
    _pairs(predictions, references)
    scores = rouge1_f(predictions, references).tolist()
    return mean_value("rouge1_f", scores, "F-measure, 0..1", "higher")


def closed_accuracy(predictions: Sequence[str], labels: Sequence[str]) -> MetricValue:
    """Share of closed answers (a class, a name) that equal the label after `normalise`.

    Only the first non-empty line of a prediction is read, because a model that was not taught to
    stop runs on.

    Raises:
        DataError: the two differ in length.
    """
    return _accuracy(
        "closed_accuracy",
        predictions,
        labels,
        lambda said, label: normalise(_first_line(said)) == normalise(label),
    )


def number_accuracy(predictions: Sequence[str], labels: Sequence[str]) -> MetricValue:
    """Share of answers whose `final_number` equals the label's; 18, 18.0 and $18 are the same.

    Raises:
        DataError: the two differ in length, or a label holds no number.
    """
    for position, label in enumerate(labels):
        if final_number(label) is None:
            raise DataError(
                f"Label {position} holds no number; expected one, as in GSM8K's final answers. "
                "Use closed_accuracy for labels that are words."
            )
    return _accuracy(
        "number_accuracy",
        predictions,
        labels,
        lambda said, label: final_number(said) == final_number(label),
    )


def final_number(text: str) -> Decimal | None:
    """The number after the first ``####`` (GSM8K's mark), else the last number; None if none.

    Commas between digits and currency signs don't count. What follows the mark's own line is not
    read; a mark without a number is an answer without one.
    """
    _, mark, rest = text.partition("####")
    found = _NUMBER.findall(rest.partition("\n")[0] if mark else text)
    if not found:
        return None
    return Decimal(re.sub(r"[,$€£]", "", found[0 if mark else -1]))


def _f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    matches = (Counter(said) & Counter(gold)).total()
    # 2PR / (P + R) with P = matches / |said| and R = matches / |gold|.
    return 2 * matches / (len(said) + len(gold))


def _usable(golds: Sequence[str]) -> list[str]:
    return [plain for gold in golds if (plain := normalise(gold))] or [""]


def _accuracy(
    name: str,
    predictions: Sequence[str],
    labels: Sequence[str],
    matches: Callable[[str, str], bool],
) -> MetricValue:
    hits = [matches(said, label) for said, label in _pairs(predictions, labels)]
    return share_value(name, hits, "higher")


def _pairs(predictions: Sequence[str], golds: Sequence[T]) -> list[tuple[str, T]]:
    if len(predictions) != len(golds):
        raise DataError(
            f"{len(predictions)} predictions for {len(golds)} gold answers; expected one "
            "prediction each. Give both in the same order, with an empty text for no answer."
        )
    return list(zip(predictions, golds, strict=True))


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")
