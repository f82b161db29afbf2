"""``prompt`` and ``answer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class PromptAnswer(OneTurn):
    """One prompt and one answer."""

    name = "prompt_answer"
    needs = ("prompt", "answer")
    priority = 50
    example: ClassVar[Mapping[str, Any]] = {"prompt": "What is two and two?", "answer": "Four."}


FORMAT = PromptAnswer()
