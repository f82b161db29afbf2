"""``prompt`` and ``response``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class PromptResponse(OneTurn):
    """One prompt and one response, as BeaverTails has them beside what it says of the row."""

    name = "prompt_response"
    needs = ("prompt", "response")
    priority = 40
    example: ClassVar[Mapping[str, Any]] = {"prompt": "What is two and two?", "response": "Four."}


FORMAT = PromptResponse()
