"""``problem`` and ``solution``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import OneTurn


class ProblemSolution(OneTurn):
    """One problem and its solution, as sets of mathematics have them."""

    name = "problem_solution"
    needs = ("problem", "solution")
    priority = 48
    example: ClassVar[Mapping[str, Any]] = {"problem": "What is two and two?", "solution": "Four."}


FORMAT = ProblemSolution()
