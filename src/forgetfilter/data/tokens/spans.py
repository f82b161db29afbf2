"""Where the answers lie in a rendered conversation, found out without searching for their words.

Each text of a row is replaced by a placeholder: a made-up word with the text's own white space
around it. The template renders the placeholders, which shows the frame that it puts around the
texts, and which placeholder stands where. The real rendering has to be that frame with the real
texts in it, character by character; then every position is known. A template that treats texts
differently by what stands in them (it cuts what comes before ``</think>``, say) is asked again with
placeholders between the very words that stand in its code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from forgetfilter.data.records import Span
from forgetfilter.data.tokens.conversations import Kind

_WORD = re.compile("zxqv([a-z]{4})jkvq", re.IGNORECASE)
_MOST_PIECES = 2000
"""A text that falls into more pieces is replaced as a whole."""
MARK = re.compile(r"\s*(?:<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?[\w.:-]{1,40}>|\[/?\w{1,40}\])")
"""What looks like a control token."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose text a placeholder stands for."""

    turn: int
    """Index of the turn, -1 for the row's tools."""
    kind: Kind


@dataclass
class Placeholders:
    """Replaces texts by placeholders and remembers which stands for what.

    Args:
        kept: texts that stay as they are within others.
    """

    kept: Sequence[str] = ()
    owners: list[Owner] = field(default_factory=list[Owner])
    texts: list[str] = field(default_factory=list[str])
    """What each placeholder stands for, without white space around it."""

    def __call__(self, turn: int, kind: Kind, text: str) -> str:
        """``text`` with placeholders."""
        pieces = self._pieces(text)
        owner = Owner(turn, kind)
        return "".join(p if is_kept else self._placed(owner, p) for p, is_kept in pieces)

    def _pieces(self, text: str) -> list[tuple[str, bool]]:
        there = sorted({kept for kept in self.kept if kept in text}, key=len, reverse=True)
        for chosen in (there, [kept for kept in there if len(kept) > 1]):
            if not chosen:
                break
            found = re.split(f"({'|'.join(map(re.escape, chosen))})", text)
            if len(found) <= _MOST_PIECES:
                return [(piece, at % 2 == 1) for at, piece in enumerate(found)]
        return [(text, False)]

    def _placed(self, owner: Owner, text: str) -> str:
        core = text.strip()
        if not core:
            return text
        at = text.index(core)
        number = len(self.texts)
        self.owners.append(owner)
        self.texts.append(core)
        return f"{text[:at]}{_word(number)}{text[at + len(core) :]}"


def _word(number: int) -> str:
    letters = ""
    for _ in range(4):
        number, rest = divmod(number, 26)
        letters = chr(ord("a") + rest) + letters
    return f"Zxqv{letters}Jkvq"


def _number(letters: str) -> int:
    number = 0
    for letter in letters.lower():
        number = number * 26 + ord(letter) - ord("a")
    return number


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a placeholder stands in a rendering."""

    start: int
    stop: int
    number: int
    change: Callable[[str], str] | None
    """What the template has done to the letters, None where nothing."""


def find_slots(text: str, count: int) -> list[Slot]:
    """The placeholders in a rendering, in order; ``count`` were given out."""
    return [
        Slot(match.start(), match.end(), number, _change(match.group(), _word(number)))
        for match in _WORD.finditer(text)
        if (number := _number(match.group(1))) < count
    ]


def _change(found: str, given: str) -> Callable[[str], str] | None:
    if found == given:
        return None
    return next(
        (c for c in (str.upper, str.lower, str.capitalize) if c(given) == found), str.capitalize
    )


@dataclass(frozen=True)
class Frame:
    """A conversation with placeholders, rendered, and where its answers lie in there."""

    text: str
    slots: tuple[Slot, ...]
    owners: tuple[Owner, ...]
    answers: dict[int, tuple[Span, ...]]
    """By turn: what the model says in it, its end mark included."""
    missing: frozenset[int]
    """Numbers of the placeholders that the rendering doesn't show."""
    openings: dict[int, str] = field(default_factory=dict[int, str])
    """By turn: how the generation prompt goes on where it isn't found as a whole before a text:
    an answer that itself begins so begins after it."""

    def fit(self, whole: str, texts: Sequence[str]) -> list[str] | None:
        """What stands in place of each slot where ``whole`` is this frame with ``texts`` in it.

        None where it is not.
        """
        edges = [0, *(edge for slot in self.slots for edge in (slot.start, slot.stop))]
        edges.append(len(self.text))
        between = [self.text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
        if not whole.startswith(between[0]):
            return None
        # By position: how each slot so far was filled, as a chain. Most often there is one.
        reached: dict[int, _Chain | None] = {len(between[0]): None}
        for slot, after in zip(self.slots, between[1:], strict=True):
            onward: dict[int, _Chain | None] = {}
            for variant in _variants(texts[slot.number], slot.change):
                for at, chain in reached.items():
                    stop = at + len(variant)
                    if whole.startswith(variant, at) and whole.startswith(after, stop):
                        onward.setdefault(stop + len(after), _Chain(variant, chain))
                if onward:
                    break
            reached = onward
        if len(whole) not in reached:
            return None
        filled: list[str] = []
        chain = reached[len(whole)]
        while chain is not None:
            filled.append(chain.text)
            chain = chain.before
        return filled[::-1]

    def position(self, at: int, filled: Sequence[str]) -> int:
        """The position in the real rendering of a position in the frame, outside of slots."""
        moved = at
        for slot, text in zip(self.slots, filled, strict=True):
            if slot.stop > at:
                break
            moved += len(text) - (slot.stop - slot.start)
        return moved


@dataclass(frozen=True, slots=True)
class _Chain:
    text: str
    before: _Chain | None


def _variants(text: str, change: Callable[[str], str] | None) -> list[str]:
    """Ways in which a template may write a text: as it is, or escaped."""
    if change is not None:
        return list(dict.fromkeys((change(text), text.title())))
    in_json = json.dumps(text, ensure_ascii=False)[1:-1]
    return list(
        dict.fromkeys(
            (
                text,
                in_json,
                json.dumps(text)[1:-1],
                json.dumps(in_json, ensure_ascii=False)[1:-1],
                _escaped(text, '"', "'"),
                _escaped(text),
            )
        )
    )


def _escaped(text: str, *quotes: str) -> str:
    """``text`` as HTML, as jinja2 writes it."""
    for character in ("&", "<", ">", *quotes):
        name = {"&": "amp", "<": "lt", ">": "gt"}.get(character, f"#{ord(character)}")
        text = text.replace(character, f"&{name};")
    return text


@dataclass(frozen=True)
class Around:
    """Renderings that show where an answer begins and ends; None where the template refuses."""

    prompt: str | None
    """Of the turns before, with the generation prompt."""
    before: str | None
    """Of the turns before, without."""
    upto: str | None
    """Of the turns up to the answer."""
    following: str | None = None
    """What stands before the text of the next turn's role where that turn is alone."""


class MixedTurnsError(Exception):
    """The rendering mixes turns, or shows an answer twice."""


def locate(
    text: str,
    slots: Sequence[Slot],
    owners: Sequence[Owner],
    turn: int,
    around: Around,
    end_marks: Sequence[str],
) -> Span | None:
    """Where a turn's answer lies in a rendering of placeholders, its end mark included.

    It begins where the generation prompt ends, if that stands before it, else with its own text;
    it ends with what the template puts behind it to end it. None where it has no text.

    Raises:
        MixedTurnsError: texts of others stand within it, or it is there twice.
    """
    own = [at for at, slot in enumerate(slots) if owners[slot.number].turn == turn]
    if not own:
        return _bare(text, slots, around)
    numbers = [slots[at].number for at in own]
    if own != list(range(own[0], own[-1] + 1)):
        raise MixedTurnsError("puts other turns' text into an answer, or shows it in two places")
    if len(set(numbers)) < len(numbers):
        raise MixedTurnsError("shows an answer twice")
    first, last = slots[own[0]].start, slots[own[-1]].stop
    floor = slots[own[0] - 1].stop if own[0] else 0
    ceiling = slots[own[-1] + 1].start if own[-1] + 1 < len(slots) else len(text)
    start = _start(text, floor, first, around)
    stop = _stop(text, last, ceiling, around, end_marks)
    return start, stop


def opening(text: str, first: int, around: Around) -> str:
    """The end of the generation prompt that doesn't stand before an answer's own text.

    Empty where all of it does, or nothing.
    """
    header = _header(around)
    for length in range(len(header) - 1, 0, -1):
        if text.endswith(header[:length], 0, first):
            return header[length:]
    return ""


def _header(around: Around) -> str:
    """What the generation prompt adds to the turns before it."""
    if around.prompt is None or around.before is None:
        return ""
    return around.prompt[_shared(around.prompt, around.before) :]


def _bare(text: str, slots: Sequence[Slot], around: Around) -> Span | None:
    """Where an answer without any text lies: what the template adds for it, if that is plain."""
    if around.prompt is None or around.upto is None:
        return None
    start, stop = len(around.prompt), len(around.upto.rstrip())
    is_plain = text.startswith(around.prompt) and text.startswith(around.upto.rstrip())
    is_free = not any(slot.start < stop and slot.stop > start for slot in slots)
    return (start, stop) if is_plain and is_free and start < stop else None


def _start(text: str, floor: int, first: int, around: Around) -> int:
    prompt = around.prompt
    if prompt is None:
        return first
    if text.startswith(prompt) and floor <= len(prompt) <= first:
        return len(prompt)
    # What comes before is rendered otherwise in the whole; the header alone is looked for.
    header = _header(around)
    at = text.rfind(header, floor, first) if header.strip() else -1
    return at + len(header) if at >= 0 else first


def _stop(
    text: str,
    last: int,
    ceiling: int,
    around: Around,
    end_marks: Sequence[str],
) -> int:
    after = text[last:ceiling]
    tail = ""
    if around.upto is not None:
        upto = around.upto.rstrip()
        if text.startswith(upto) and last < len(upto) <= ceiling:
            return len(upto)
        own = [match.end() for match in _WORD.finditer(upto)]
        tail = upto[own[-1] :] if own else ""
        if tail and after.startswith(tail):
            return last + len(tail)
    if ceiling == len(text):
        return max(last, len(text.rstrip()))
    # The last answer ends otherwise than those before it, or not at all.
    header = around.following
    if not tail and (header is None or header.endswith(after)):
        return last  # nothing but the next turn's header stands here
    if header is not None and header.endswith(after):
        # The same, where a text may begin with a token; else a system text of the template's own.
        opening = header.removesuffix(after).strip()
        if not opening or opening in end_marks:
            return last
    blank = len(after) - len(after.lstrip())
    marks = [mark for mark in end_marks if mark and after.startswith(mark, blank)]
    if marks:
        return last + blank + max(map(len, marks))
    shaped = MARK.match(after)
    return last + shaped.end() if shaped else last


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def check_order(spans: Sequence[Span]) -> None:
    """See that spans are disjoint and in order.

    Raises:
        MixedTurnsError: they are not.
    """
    if any(one[1] > other[0] for one, other in pairwise(spans)):
        raise MixedTurnsError("doesn't keep the answers in their order")
