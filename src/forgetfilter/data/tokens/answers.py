"""Renders rows by a chat template and says which characters are answers, or why that is unknown."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forgetfilter.data.records import Message, Rendered, Span
from forgetfilter.data.tokens.conversations import SHAPES, Conversation, Shape, conversation
from forgetfilter.data.tokens.prefixes import by_prefixes
from forgetfilter.data.tokens.spans import (
    Around,
    Frame,
    MixedTurnsError,
    Owner,
    Placeholders,
    Slot,
    check_order,
    find_slots,
    locate,
    opening,
)
from forgetfilter.data.tokens.templates import ChatTemplate, Rendering, UnrenderableError, text_of
from forgetfilter.errors import ModelError

_MOST_FRAMES = 1000
_THOUGHT = re.compile(r"</|think|thought|reason|analysis|channel", re.IGNORECASE)
_WAY_OUT = "Use --set template=paper, or a model whose template leaves them as they are"


@dataclass(frozen=True)
class _Asked:
    """A row as it is asked for: what decides its frame."""

    messages: tuple[Message, ...]
    tools: str
    shape: Shape
    kept: tuple[str, ...]

    def placed(self) -> tuple[Conversation, Placeholders]:
        """The conversation with placeholders."""
        placeholders = Placeholders(self.kept)
        return conversation(self.messages, self.tools, self.shape, placeholders), placeholders


_Key = tuple[tuple[Message, ...], str, Shape]


class Answers:
    """Finds the answers in what one chat template renders.

    Args:
        template: the chat template.
        end_marks: control tokens of the vocabulary, one of which may end an answer.
    """

    def __init__(self, template: ChatTemplate, end_marks: Sequence[str]) -> None:
        self._template = template
        self._end_marks = tuple(end_marks)
        self._frames: dict[str, Frame | MixedTurnsError | str] = {}
        self._shows_reasoning: bool | None = None
        self._ready: dict[_Key, Rendering] = {}

    def prepare(self, rows: Sequence[tuple[Sequence[Message], str]]) -> None:
        """Render rows together, each its turns and tools: faster than one by one in `render`.

        Only the last call counts. A row that takes too much is told when it is rendered.
        """
        self._ready.clear()
        by_template: dict[bool, dict[_Key, Any]] = {False: {}, True: {}}
        for messages, tools in rows:
            turns = tuple(messages)
            shape = self._shape(turns, tools, ())
            key = (turns, tools, shape)
            by_template[bool(tools)][key] = conversation(*key).task()
        for asked in by_template.values():
            if asked:
                with contextlib.suppress(ModelError):
                    found = self._template.render(list(asked.values()))
                    self._ready |= zip(asked, found, strict=True)

    def prompt(self, messages: Sequence[Message], tools: str = "") -> str:
        """The text of a conversation that ends where the next answer begins."""
        turns = tuple(messages)
        shape = self._shape(turns, tools, ()) if turns else SHAPES[0]
        asked = conversation(turns, tools, shape).task(add_generation_prompt=True)
        return text_of(self._template.render([asked])[0])

    def render(self, messages: Sequence[Message], tools: str = "") -> Rendered:
        """The text of a conversation, and where its answers lie in it.

        Raises:
            UnrenderableError: the template refuses the row, doesn't show all of it, or changes it
                such that its answers can't be told from the rest.
        """
        turns = tuple(messages)
        problem: MixedTurnsError | None = None
        shape = SHAPES[0]
        constants = self._template.constants(json.loads(tools) if tools else None)
        for is_last, kept in ((False, ()), (True, constants)):
            shape = self._shape(turns, tools, kept)
            asked = _Asked(turns, tools, shape, kept)
            frame, placeholders = self._frame(asked)
            ready = self._ready.get((turns, tools, shape))
            if ready is None:
                ready = self._template.render([conversation(turns, tools, shape).task()])[0]
            whole = text_of(ready)
            if isinstance(frame, str):
                continue  # the template refuses the placeholders, not the row
            if isinstance(frame, MixedTurnsError):
                problem = frame
                continue
            filled = frame.fit(whole, placeholders.texts)
            is_cut = any(frame.owners[n].kind == "content" for n in frame.missing)
            if filled is None or (is_cut and not is_last):
                continue
            unscored = self._unscored(turns, frame)
            if (
                max(
                    (i for i, m in enumerate(turns) if m.carries_loss and m.role == "assistant"),
                    default=-1,
                )
                not in frame.answers
            ):
                raise UnrenderableError(
                    "the chat template marks no answer to score: its {% generation %} leaves out "
                    f"the last one. {_WAY_OUT}"
                )
            return _rendered(turns, frame, filled, whole, unscored)
        found = by_prefixes(self._template, turns, tools, shape)
        if found is not None:
            return found
        if problem is not None:
            raise UnrenderableError(
                f"the chat template {problem}, so what the model says can't be told from the rest. "
                f"{_WAY_OUT}"
            )
        raise UnrenderableError(
            "the chat template changes this row's texts such that its answers can't be told from "
            f"the rest. {_WAY_OUT}"
        )

    # -- frames ----------------------------------------------------------------------------

    def _shape(self, turns: tuple[Message, ...], tools: str, kept: tuple[str, ...]) -> Shape:
        """The form of the conversation of which the template shows most."""
        best, fewest = SHAPES[0], None
        for shape in SHAPES:
            if shape.has_text_arguments and not any(turn.tool_calls for turn in turns):
                continue
            frame, _ = self._frame(_Asked(turns, tools, shape, kept))
            if isinstance(frame, str):
                continue
            if isinstance(frame, MixedTurnsError) or not frame.missing:
                return shape
            if fewest is None or len(frame.missing) < fewest:
                best, fewest = shape, len(frame.missing)
        return best

    def _frame(self, asked: _Asked) -> tuple[Frame | MixedTurnsError | str, Placeholders]:
        """The frame of a row, why it has none, or the template's error."""
        placed, placeholders = asked.placed()
        has_loss = [m.carries_loss for m in asked.messages]
        key = json.dumps([placed.turns, placed.tools, has_loss])
        if key not in self._frames:
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            self._frames[key] = self._make_frame(asked.messages, placed, placeholders)
        found = self._frames[key]
        return found, placeholders

    def _make_frame(
        self, turns: tuple[Message, ...], placed: Conversation, placeholders: Placeholders
    ) -> Frame | MixedTurnsError | str:
        whole = self._template.render([placed.task()])[0]
        if whole.error is not None:
            return whole.error
        if _is_printed(placed, whole.text):
            return "the template prints lists of parts as they are"
        owners = tuple(placeholders.owners)
        slots = tuple(find_slots(whole.text, len(owners)))
        missing = frozenset(range(len(owners))) - {slot.number for slot in slots}
        try:
            openings: dict[int, str] = {}
            if whole.marks:
                answers = _marked(turns, whole, slots, owners)
            else:
                answers = self._located(turns, placed, whole.text, slots, owners, openings)
            check_order([span for turn in sorted(answers) for span in answers[turn]])
        except MixedTurnsError as error:
            return error
        return Frame(whole.text, slots, owners, answers, missing, openings)

    def _located(
        self,
        turns: tuple[Message, ...],
        placed: Conversation,
        text: str,
        slots: Sequence[Slot],
        owners: Sequence[Owner],
        openings: dict[int, str],
    ) -> dict[int, tuple[Span, ...]]:
        """Where each answer that carries loss lies, from renderings of the turns before it.

        ``openings`` is filled as `Frame` has it.
        """
        said = [i for i, m in enumerate(turns) if m.role == "assistant" and m.carries_loss]
        tasks = [placed.task(add_generation_prompt=True)]
        for i in said:
            tasks += [placed.task(i, add_generation_prompt=True), placed.task(i)]
            tasks += [
                placed.task(i + 1),
                {**placed.task(), "messages": placed.turns[i + 1 : i + 2]},
            ]
        whole_prompt, *rest = [
            found.text if found.error is None else None for found in (self._template.render(tasks))
        ]
        answers: dict[int, tuple[Span, ...]] = {}
        for at, i in enumerate(said):
            prompt, before, upto, following = rest[4 * at : 4 * at + 4]
            if i == 0 or prompt is None or before is None:
                # Nothing precedes it, or nothing that the template renders by itself.
                prompt, before = whole_prompt, text
            alone = find_slots(following or "", len(owners))
            following = (following or "")[: alone[0].start] if alone else None
            around = Around(prompt, before, upto, following)
            span = locate(text, slots, owners, i, around, self._end_marks)
            if span is not None:
                answers[i] = (span,)
                if any(slot.start == span[0] for slot in slots):
                    openings[i] = opening(text, span[0], around)
        return answers

    # -- what isn't shown ------------------------------------------------------------------

    def _unscored(self, turns: tuple[Message, ...], frame: Frame) -> tuple[str, ...]:
        """What may be missing from the rendering, and is told.

        Raises:
            UnrenderableError: something is missing that must not be.
        """
        told: set[str] = set()
        for number in sorted(frame.missing):
            owner = frame.owners[number]
            if owner.kind == "tools":
                raise UnrenderableError(
                    "the chat template doesn't show this row's tools. Drop them, or use a model "
                    "whose template shows tools"
                )
            turn = turns[owner.turn]
            if owner.kind == "call":
                raise UnrenderableError(
                    "the chat template doesn't show all of this row's tool_calls, so they can't be "
                    "scored. Write the call into content, or use a model whose template shows it"
                )
            if owner.kind == "reasoning":
                if not self._reasoning_is_shown():
                    raise UnrenderableError(
                        "the chat template doesn't show this row's reasoning (reasoning_content or "
                        "thinking), so it can't be scored. Write it into content, or drop it"
                    )
                told.add("reasoning")
            elif turn.role == "system":
                told.add("system")
            elif turn.role != "assistant":
                raise UnrenderableError(
                    f"the chat template doesn't show all that the {turn.role} says in turn "
                    f"{owner.turn + 1}. {_WAY_OUT}"
                )
            elif _is_thought(turn.content, frame, owner.turn, number):
                told.add("reasoning")
            elif turn.carries_loss:
                raise UnrenderableError(
                    "the chat template doesn't show all of this row's answer, which leaves no "
                    f"answer to score. {_WAY_OUT}"
                )
        for i, turn in enumerate(turns):
            shown = [
                slot
                for slot in frame.slots
                if frame.owners[slot.number].turn == i and turn.role == "assistant"
            ]
            if not turn.carries_loss:
                continue
            for slot in shown:
                if not any(a <= slot.start and slot.stop <= b for a, b in frame.answers.get(i, ())):
                    is_said = frame.owners[slot.number].kind != "reasoning"
                    told.add("answer" if is_said else "reasoning")
        return tuple(sorted(told))

    def _reasoning_is_shown(self) -> bool:
        """Whether the template shows the reasoning of an answer at all."""
        if self._shows_reasoning is None:
            turns = (Message("user", "a"), Message("assistant", "b", reasoning="c"))
            frame, _ = self._frame(_Asked(turns, "", SHAPES[0], ()))
            self._shows_reasoning = isinstance(frame, Frame) and not any(
                frame.owners[number].kind == "reasoning" for number in frame.missing
            )
        return self._shows_reasoning


def _is_printed(placed: Conversation, text: str) -> bool:
    """Whether content in parts, if it is, stands in the text as a list and not as what it says."""
    is_in_parts = any(not isinstance(turn["content"], str) for turn in placed.turns)
    return is_in_parts and re.search(r"""['"]type['"]: ?['"]text['"]""", text) is not None


def _is_thought(content: str, frame: Frame, turn: int, number: int) -> bool:
    """Whether a missing piece of an answer is what the model thought before it spoke.

    It is where all that is shown comes after it, and a mark that closes a thought in between.
    """
    own = [n for n, owner in enumerate(frame.owners) if owner == Owner(turn, "content")]
    shown = [n for n in own if n not in frame.missing]
    if not shown or number > min(shown):
        return False
    return _THOUGHT.search(content) is not None


def _marked(
    turns: tuple[Message, ...], whole: Rendering, slots: Sequence[Slot], owners: Sequence[Owner]
) -> dict[int, tuple[Span, ...]]:
    """The answers as the template's own generation marks name them.

    Raises:
        MixedTurnsError: a mark stands around the text of another turn too.
    """
    answers: dict[int, tuple[Span, ...]] = {}
    for start, stop in whole.marks:
        within = {owners[s.number].turn for s in slots if s.start < stop and s.stop > start}
        if len(within) > 1 or any(not _is_answer(turns, i) for i in within):
            raise MixedTurnsError("marks the text of other turns as generated")
        if not within:
            # Around what ends an answer, or opens one.
            before = [owners[s.number].turn for s in slots if s.stop <= start]
            after = [owners[s.number].turn for s in slots if s.start >= stop]
            within = {i for i in (*before[-1:], *after[:1]) if _is_answer(turns, i)}
            within = set(sorted(within)[:1])
        for i in within:
            if turns[i].carries_loss:
                answers[i] = (*answers.get(i, ()), (start, stop))
    return answers


def _is_answer(turns: Sequence[Message], turn: int) -> bool:
    return turn >= 0 and turns[turn].role == "assistant"


def _rendered(
    turns: tuple[Message, ...],
    frame: Frame,
    filled: Sequence[str],
    whole: str,
    unscored: tuple[str, ...],
) -> Rendered:
    """The real rendering, with the frame's positions in it."""
    starts = [frame.position(slot.start, filled) for slot in frame.slots]
    texts = [(at, at + len(text)) for at, text in zip(starts, filled, strict=True)]
    spans: list[Span] = []
    final = 0
    for turn in sorted(frame.answers):
        moved = [
            (frame.position(start, filled), frame.position(stop, filled))
            for start, stop in frame.answers[turn]
        ]
        rest = frame.openings.get(turn, "")
        start, stop = moved[0]
        if rest and whole.startswith(rest, start) and start + len(rest) < stop:
            moved[0] = start + len(rest), stop
        final = moved[0][0]
        spans += moved
    learned = {i for i, m in enumerate(turns) if m.role == "assistant" and m.carries_loss}
    others = [
        text
        for text, slot in zip(texts, frame.slots, strict=True)
        if frame.owners[slot.number].turn not in learned
    ]
    return Rendered(whole, tuple(spans), final, tuple(others), tuple(texts), unscored)
