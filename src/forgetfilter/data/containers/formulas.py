"""Cells of a table in text that spreadsheets take for formulas, and run when the file is opened."""

from __future__ import annotations

import re

GUARD = "'"
"""Put before a cell it makes text of it; spreadsheets don't show it, other readers do."""

_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?")


def is_formula(cell: str) -> bool:
    """Whether a cell begins as formulas do and isn't merely a number."""
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def guarded(cell: str) -> str:
    """A cell that no spreadsheet runs."""
    return GUARD + cell if is_formula(cell) else cell
