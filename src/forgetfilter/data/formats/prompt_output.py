"""``prompt`` and ``output``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class PromptOutput(OneTurn):
    """One prompt and one output."""

    name = "prompt_output"
    needs = ("prompt", "output")
    priority = 52
    example: ClassVar[Mapping[str, Any]] = {"prompt": "What is two and two?", "output": "Four."}


FORMAT = PromptOutput()
