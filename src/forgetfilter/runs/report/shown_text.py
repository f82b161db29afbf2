"""Values and untrusted text made readable on a page."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape

from forgetfilter.text import HIDDEN, escape_code

MISSING = "–"
"""Stands for a value that was not measured."""

MARK_START, MARK_END = "\x01", "\x02"
"""Controls, which are themselves shown as escapes, so that no row can forge a mark."""

_SURELY_PLAIN = re.compile(r"[ -~\n\t]+")
_WITHOUT_GLYPH = frozenset({"Co", "Cn"})
"""Categories of private and of unassigned characters: nobody can say what they show."""


@dataclass(frozen=True, slots=True)
class Clip:
    """The start of a text, escaped for HTML, and a note where it was cut."""

    html: Markup
    note: str | None


def number(value: float | None) -> str:
    """A measured value with about four digits, thousands separators and a real minus sign."""
    if value is None or math.isnan(value):
        return MISSING
    size = abs(value)
    if math.isinf(value):
        text = "∞"
    elif size >= 1e7 or 0 < size < 1e-4:
        text = f"{size:.2e}"
    elif size >= 1000:
        text = f"{size:,.0f}"
    else:
        text = f"{size:.4g}"
    return "−" + text if value < 0 else text


def count(value: float, singular: str = "", plural: str = "") -> str:
    """A whole number with thousands separators, and its noun where one is given."""
    shown = f"{value:,.0f}"
    if not singular:
        return shown
    return f"{shown} {singular if shown == '1' else plural or singular + 's'}"


def share(value: float | None) -> str:
    """A share between 0 and 1 as a percentage; what is neither none nor all never reads so."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{100 * value:.1f}%"


def duration(seconds: float) -> str:
    """A time span in the two units that matter."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def visible(text: str) -> Markup:
    """``text`` escaped for HTML, with every character that hides or steers made visible.

    Control, direction, format and unassigned characters become marked escapes such as ``\\x1b``.
    Line feeds and tabs stay, as do the joiners that spell Persian, Indic scripts and emoji.
    """
    return Markup("").join(
        Markup('<span class="ctl">{}</span>').format(piece) if is_code else escape(piece)
        for is_code, piece in _pieces(text)
    )


def breakable(text: str) -> Markup:
    """`visible` for a name in a narrow column: a line may end after each underscore."""
    return Markup("_<wbr>").join(visible(part) for part in text.split("_"))


def marked(text: str) -> str:
    """``text`` for the page's script, which makes the same of it as `visible`.

    Each escape stands between `MARK_START` and `MARK_END`, which no other text has.
    """
    return "".join(
        f"{MARK_START}{piece}{MARK_END}" if is_code else piece for is_code, piece in _pieces(text)
    )


def marked_clip(text: str, limit: int = 600) -> tuple[str, str]:
    """At most ``limit`` characters of ``text`` for the page's script; a note where it was cut."""
    if len(text) <= limit:
        return marked(text), ""
    return marked(text[:limit]) + "…", f"first {limit:,} of {len(text):,} characters"


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """The parts of a text, and whether each is the escape of a character."""
    if _SURELY_PLAIN.fullmatch(text):
        if text:
            yield False, text
        return
    plain: list[str] = []
    for at, character in enumerate(text):
        if not _SURELY_PLAIN.match(character) and (
            HIDDEN.match(text, at) or unicodedata.category(character) in _WITHOUT_GLYPH
        ):
            if plain:
                yield False, "".join(plain)
                plain.clear()
            yield True, escape_code(character)
        else:
            plain.append(character)
    if plain:
        yield False, "".join(plain)


def clip(text: str, limit: int = 600) -> Clip:
    """At most ``limit`` characters of ``text``, and its true length where that is more."""
    if len(text) <= limit:
        return Clip(visible(text), None)
    return Clip(visible(text[:limit]) + "…", f"first {limit:,} of {len(text):,} characters")
