"""Untrusted text made safe to show."""

from __future__ import annotations


def printable(text: str, limit: int = 200) -> str:
    """One line of at most ``limit`` characters that can't steer a terminal.

    Control, direction and other unprintable characters become escapes such as ``\\x1b``; what is
    cut off is marked by an ellipsis. Meant for messages and reasons, not for data.
    """
    shown: list[str] = []
    length = 0
    # A slice first: the text may be far longer than what is shown.
    for character in text[: limit + 1]:
        piece = character if character.isprintable() else _escape(character)
        if length + len(piece) > limit:
            break
        shown.append(piece)
        length += len(piece)
    else:
        return "".join(shown)
    while shown and length > limit - 1:
        length -= len(shown.pop())
    return "".join(shown) + "…"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
