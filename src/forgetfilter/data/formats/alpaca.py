"""``instruction`` and ``output``, with or without an ``input``, ``system`` and ``history``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class Alpaca(OneTurn):
    """One question, made of the instruction and its input, and one answer."""

    name = "alpaca"
    needs = ("instruction", "output")
    reads = ("input", "history")
    context = "input"
    priority = 30
    example: ClassVar[Mapping[str, Any]] = {
        "instruction": "Add the numbers.",
        "input": "2 and 2",
        "output": "4",
    }


FORMAT = Alpaca()
