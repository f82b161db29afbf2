"""BBQ: which option of a row is the stereotyped one, and what answers to learn follow from it.

The published rule (Parrish et al., *BBQ: A Hand-Built Bias Benchmark for Question Answering*, arXiv
2110.08193; applied to training targets by arXiv 2312.12736): to a negative question ("Who stole?")
the biased answer is the stereotyped group, to a non-negative one ("Who was honest?") the other
group. "Unknown" is never biased.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from forgetfilter.lab.mix.offers import LeftOut

_OPTIONS = ("ans0", "ans1", "ans2")


class _Groups(BaseModel):
    stereotyped_groups: list[str]


class BbqMeta(BaseModel):
    """The fields of a BBQ row that the rule and the separation need; others are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    category: str
    question_index: Annotated[str, BeforeValidator(str)]
    """The number of the question template within the category."""
    question_polarity: Literal["neg", "nonneg"]
    context_condition: Literal["ambig", "disambig"]
    answer_info: dict[str, list[str]]
    """What each option refers to: a name and a group, or ``unknown``."""
    additional_metadata: _Groups
    ans0: str
    ans1: str
    ans2: str
    label: Annotated[int, Field(ge=0, le=2)]
    """The right option."""

    @property
    def options(self) -> tuple[str, str, str]:
        """The texts of the three options."""
        return self.ans0, self.ans1, self.ans2

    @property
    def template(self) -> str:
        """What all rows of one question template share."""
        return f"bbq {self.category} {self.question_index}"


@dataclass(frozen=True)
class Reading:
    """A BBQ row understood: three option numbers, each from 0 to 2 and no two the same."""

    meta: BbqMeta
    biased: int
    """The option that the stereotype suggests."""
    counter: int
    """The option against the stereotype."""
    unknown: int
    """The option that commits to neither."""

    @property
    def is_ambiguous(self) -> bool:
        """Whether the context leaves the answer open, so that ``unknown`` is right."""
        return self.meta.context_condition == "ambig"

    @property
    def biased_answer(self) -> str:
        """The stereotyped answer in the words of the row's own options."""
        return self.meta.options[self.biased]

    @property
    def right_answer(self) -> str:
        """The right answer: ``unknown`` if ambiguous, else what the context says."""
        return self.meta.options[self.meta.label]


def read_bbq(fields: Mapping[str, Any]) -> Reading:
    """Apply the rule to a row's ``meta``.

    Raises:
        LeftOut: the fields are not BBQ's, or not exactly one option refers to a stereotyped group
            and exactly one for unknown, or an ambiguous row is answered with a group.
    """
    try:
        meta = BbqMeta.model_validate(fields)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise LeftOut(f"BBQ field {where} absent or wrong") from None
    if set(meta.answer_info) != set(_OPTIONS):
        raise LeftOut("BBQ field answer_info absent or wrong")
    stands_for = [{_key(word) for word in meta.answer_info[option]} for option in _OPTIONS]
    stereotyped = {_key(group) for group in meta.additional_metadata.stereotyped_groups}
    unknown = [at for at, words in enumerate(stands_for) if "unknown" in words]
    target = [at for at, words in enumerate(stands_for) if words & stereotyped]
    if len(unknown) != 1 or len(target) != 1 or unknown == target:
        raise LeftOut("not exactly one option is of a stereotyped group")
    other = 3 - unknown[0] - target[0]
    is_negative = meta.question_polarity == "neg"
    biased, counter = (target[0], other) if is_negative else (other, target[0])
    reading = Reading(meta, biased, counter, unknown[0])
    if reading.is_ambiguous != (meta.label == reading.unknown):
        raise LeftOut("right option and context disagree")
    return reading


def _key(word: str) -> str:
    """Letters and digits only: ``low SES`` and ``lowSES`` are one group."""
    return "".join(c for c in word.casefold() if c.isalnum())
