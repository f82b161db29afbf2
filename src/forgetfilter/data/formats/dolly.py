"""``instruction`` and ``response``, with or without a ``context``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class Dolly(OneTurn):
    """Dolly's columns: one question, made of the instruction and its context, and one answer."""

    name = "dolly"
    needs = ("instruction", "response")
    priority = 32
    example: ClassVar[Mapping[str, Any]] = {
        "instruction": "What is two and two?",
        "response": "Four.",
    }
    reads = ("context", "history")
    context = "context"


FORMAT = Dolly()
