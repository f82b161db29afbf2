"""``inputs`` and ``targets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class InputsTargets(OneTurn):
    """One input and one target, as FLAN and Aya have them."""

    name = "inputs_targets"
    needs = ("inputs", "targets")
    priority = 58
    example: ClassVar[Mapping[str, Any]] = {"inputs": "What is two and two?", "targets": "Four."}


FORMAT = InputsTargets()
