"""``question`` and ``response``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class QuestionResponse(OneTurn):
    """One question and one response, as OpenOrca has them beside a ``system_prompt``."""

    name = "question_response"
    needs = ("question", "response")
    priority = 46
    example: ClassVar[Mapping[str, Any]] = {"question": "What is two and two?", "response": "Four."}


FORMAT = QuestionResponse()
