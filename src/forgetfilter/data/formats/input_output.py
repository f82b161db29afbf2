"""``input`` and ``output``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class InputOutput(OneTurn):
    """One input and one output."""

    name = "input_output"
    needs = ("input", "output")
    priority = 56
    example: ClassVar[Mapping[str, Any]] = {"input": "What is two and two?", "output": "Four."}


FORMAT = InputOutput()
