"""``user`` and ``assistant``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class UserAssistant(OneTurn):
    """What the user and what the assistant said, once each."""

    name = "user_assistant"
    needs = ("user", "assistant")
    priority = 54
    example: ClassVar[Mapping[str, Any]] = {"user": "What is two and two?", "assistant": "Four."}


FORMAT = UserAssistant()
