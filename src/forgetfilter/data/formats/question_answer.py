"""``question`` and ``answer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class QuestionAnswer(OneTurn):
    """One question and one answer."""

    name = "question_answer"
    needs = ("question", "answer")
    priority = 44
    example: ClassVar[Mapping[str, Any]] = {"question": "What is two and two?", "answer": "Four."}


FORMAT = QuestionAnswer()
