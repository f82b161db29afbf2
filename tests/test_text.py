"""No character that hides or steers gets through to a terminal, a page or a file unseen."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.files import encode_json
from forgetfilter.runs.report.shown_text import visible
from forgetfilter.text import HIDDEN, printable

# Format characters that Unicode draws: signs around a number in Arabic, Syriac and Kaithi.
DRAWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
# Invisible although they are letters or marks, or not assigned (Default_Ignorable_Code_Point).
INVISIBLE = {
    *(0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x3164, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0xE0000, 0xE1000),
}
UNSEEN = [
    chr(code)
    for code in range(sys.maxunicode + 1)
    if code not in DRAWN
    and (unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") or code in INVISIBLE)
    and chr(code) not in "\t\n"
]
ESCAPERS: list[Callable[[str], str]] = [
    lambda text: printable(text, 10_000),
    lambda text: re.sub("<[^>]*>", "", str(visible(text))),
    lambda text: encode_json(text).decode("utf-8"),
    lambda text: encode_json({text: [text]}, indent=2).decode("utf-8"),
]
ORDINARY = [
    "naïve 日本 Ünï – “quoted” … 1\u00a0000 a\tb\nc <b>&amp;",
    "می\u200cخواهم क्\u200dष 👩\u200d🚀 🏳\ufe0f\u200d🌈 1\ufe0f\u20e3 ❤\ufe0f",
    "葛\U000e0100 ᠠ\u180b \u06dd",
]


@pytest.mark.parametrize("escaped", ESCAPERS)
def test_no_character_that_hides_or_steers_survives(escaped: Callable[[str], str]):
    assert len(UNSEEN) > 6000
    for text in ("".join(UNSEEN), " ".join(UNSEEN), "a".join(UNSEEN), "\n".join(UNSEEN)):
        left = sorted(set(UNSEEN) & set(escaped(text)))
        assert left == [], [hex(ord(character)) for character in left]


@pytest.mark.parametrize("escaped", ESCAPERS)
@given(text=st.text(st.sampled_from([*UNSEEN[::40], *"aé日👩\u200c\u200d\ufe0f\ufe0e"])))
def test_what_survives_is_a_joiner_or_selector_in_its_place(
    escaped: Callable[[str], str], text: str
):
    assert HIDDEN.search(escaped(text)) is None


@pytest.mark.parametrize("escaped", ESCAPERS)
@pytest.mark.parametrize("text", ["\U000e0155\u200c", "a\ufe0f\u200d", "日\ufe0f\ufe0f\u200d"])
def test_a_joiner_after_a_selector_that_is_out_of_place_is_escaped_too(
    escaped: Callable[[str], str], text: str
):
    assert HIDDEN.search(escaped(text)) is None


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_alone(text: str):
    assert str(visible(text)) == text.replace("&", "&amp;").replace("<", "&lt;").replace(
        ">", "&gt;"
    )
    assert encode_json(text).decode("utf-8") == json.dumps(text, ensure_ascii=False)


@given(st.text(st.characters()))
def test_json_means_the_same(text: str):
    assert json.loads(encode_json([text])) == json.loads(json.dumps([text]))
