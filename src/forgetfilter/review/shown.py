"""Untrusted text for the review page: what would hide or steer is named instead."""

from __future__ import annotations

import unicodedata

from forgetfilter.text import HIDDEN, escape_code

_WITHOUT_GLYPH = frozenset({"Co", "Cn"})
"""Categories of private and of unassigned characters: nobody can say what they show."""


def pieces(text: str) -> list[str]:
    """``text`` as plain pieces and escapes in turn: the first, third, ... are plain.

    The escapes, such as ``\\u202e``, stand for characters that hide, steer or turn the direction of
    writing, so that the page can mark them. The page only ever makes text nodes of the pieces.
    """
    found: list[str] = []
    plain: list[str] = []
    for at, character in enumerate(text):
        if HIDDEN.match(text, at) or unicodedata.category(character) in _WITHOUT_GLYPH:
            found += ("".join(plain), escape_code(character))
            plain.clear()
        else:
            plain.append(character)
    return [*found, "".join(plain)]


def snippet(text: str, limit: int = 160) -> list[str]:
    """The start of a text on one line."""
    line = " ".join(text[: 4 * limit].split())
    return pieces(line if len(line) <= limit else line[: limit - 1] + "…")
