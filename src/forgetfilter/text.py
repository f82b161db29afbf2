"""Untrusted text made safe to show: the one place that says which characters hide or steer."""

from __future__ import annotations

import re

_STEERING = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but for tab and line feed, which are layout
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction of writing
    r"\u2028\u2029"  # ends of lines that only some readers know
    r"\ufff9-\ufffb\U00013430-\U0001343f"  # annotations, and the layout of hieroglyphs
    r"\ud800-\udfff"  # halves of surrogate pairs, which UTF-8 can't hold
)
_INVISIBLE = (
    r"\xad\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u3164\ufeff\uffa0\ufff0-\ufff8"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_JOINERS = r"\u200c\u200d"
_SELECTORS = r"\u034f\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_NEVER_SEEN = _STEERING + _INVISIBLE

_SHOWN = rf"[^\x00-\x7f{_NEVER_SEEN}{_JOINERS}{_SELECTORS}]"

HIDDEN = re.compile(
    f"[{_NEVER_SEEN}]"
    # Joiners spell Persian, Indic scripts and emoji; after anything else they only hide.
    rf"|(?<!{_SHOWN})(?<!{_SHOWN}[{_SELECTORS}])[{_JOINERS}]"
    # A selector chooses the glyph of the character before it (of ASCII, only of a keycap's); a row
    # of them hides a message.
    rf"|(?<![#*0-9])(?<!{_SHOWN})[{_SELECTORS}]"
)
"""Finds each character that hides, steers a terminal or turns the direction of writing.

All invisible characters of Unicode (Default_Ignorable_Code_Point) are among them, assigned or not,
and all format characters except those with a glyph. It is a fixed table, so that what is written
doesn't depend on the version of Python.
"""


def printable(text: str, limit: int = 200) -> str:
    """One line of at most ``limit`` characters that can't steer a terminal.

    Control, direction and other unprintable characters become escapes such as ``\\x1b``; what is
    cut off is marked by an ellipsis. Meant for messages and reasons, not for data.
    """
    shown: list[str] = []
    length = 0
    # A slice first: the text may be far longer than what is shown.
    for at, character in enumerate(text[: limit + 1]):
        is_plain = character.isprintable() and not HIDDEN.match(text, at)
        piece = character if is_plain else escape_code(character)
        if length + len(piece) > limit:
            break
        shown.append(piece)
        length += len(piece)
    else:
        return "".join(shown)
    while shown and length > limit - 1:
        length -= len(shown.pop())
    return "".join(shown) + "…"


def steady(text: str) -> str:
    """``text`` of any number of lines with whatever hides or steers written as an escape.

    Line feeds and tabs stay. Meant for whole messages on a terminal or in a log, whose parts may be
    quoted from files and models of others.
    """
    return HIDDEN.sub(lambda found: escape_code(found[0]), text)


def escape_code(character: str) -> str:
    """A character as the escape that Python writes for it, such as ``\\u202e``."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&$@]|^[#+\-=!]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def markdown(text: str, limit: int = 200) -> str:
    """One line for a Markdown document that is neither markup nor HTML nor a link there.

    Hidden characters become escapes as in `printable`. What could begin markup is written as the
    number of its character, which is text wherever it stands.
    """
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", printable(text, limit))
