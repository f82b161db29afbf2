"""``text``: a whole conversation as one text, where its marks tell who speaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.keys import ROLES
from forgetfilter.data.formats.values import UnreadableRow, as_text
from forgetfilter.data.records import Message

_CHATML = re.compile(r"<\|im_start\|>([a-z_]+)\n(.*?)(?:<\|im_end\|>\s*|\Z)", re.DOTALL)
_HEADS = re.compile(r"^### ?([A-Z][A-Za-z ]{1,20}):?[ \t]*\n?", re.MULTILINE)
_SPEAKERS = re.compile(r"(?:\A\s*|\n\n?)(Human|User|Assistant|System): ?")
_LLAMA_SYSTEM = re.compile(r"\A\s*<<SYS>>(.*?)<</SYS>>\s*", re.DOTALL)
_OPEN, _CLOSE = "[INST]", "[/INST]"
_ENDS = ("</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>")
_HEAD_ROLES = {
    "human": "user",
    "user": "user",
    "instruction": "user",
    "question": "user",
    "input": "user",
    "assistant": "assistant",
    "response": "assistant",
    "answer": "assistant",
    "output": "assistant",
    "system": "system",
}


class Text(Format):
    """A text that holds ChatML, ``[INST]``, ``### Response:`` or ``Assistant:`` marks.

    A text without such marks has no answer apart from its prompt, so it can't be scored.
    """

    name = "text"
    needs = ("text",)
    priority = 90
    example: ClassVar[Mapping[str, Any]] = {
        "text": "### Human: What is two and two?\n### Assistant: Four."
    }

    def messages(self, columns: Mapping[str, Any]) -> list[Message]:
        """The turns that the marks of the text tell apart."""
        text = as_text(columns["text"], "text").removeprefix("<s>")
        for split in (_chatml, _llama, _heads, _speakers):
            turns = split(text)
            if turns:
                return turns
        raise UnreadableRow(
            "text has no mark that tells an answer from its prompt; expected ChatML, [INST], "
            "'### Response:' or 'Assistant:' marks, or prompt and completion as columns"
        )


def _chatml(text: str) -> list[Message]:
    if not text.lstrip().startswith("<|im_start|>"):
        return []
    found = list(_CHATML.finditer(text))
    if not found or "".join(one[0] for one in found).strip() != text.strip():
        raise UnreadableRow("text starts with ChatML marks, but doesn't keep to them")
    turns: list[Message] = []
    for number, one in enumerate(found, start=1):
        role = ROLES.get(one[1])
        if role is None or role == "call":
            raise UnreadableRow(f"text turn {number}: no such role")
        turns.append(Message(role, one[2]))
    return turns


def _llama(text: str) -> list[Message]:
    before, _, rest = text.partition(_OPEN)
    if before.strip() not in ("", "<s>") or _CLOSE not in rest:
        return []
    turns: list[Message] = []
    pieces = rest.split(_OPEN)
    waiting: list[str] = []
    for number, piece in enumerate(pieces, start=1):
        asked, close, answer = piece.partition(_CLOSE)
        waiting.append(asked)
        if not close:  # such a mark within a question is part of it
            continue
        asked, waiting = _OPEN.join(waiting), []
        system = _LLAMA_SYSTEM.match(asked) if not turns else None
        if system:
            turns.append(Message("system", system[1].strip()))
            asked = asked[system.end() :]
        if number < len(pieces):
            answer = answer.rstrip().removesuffix("<s>")
        turns.append(Message("user", asked.strip()))
        turns.append(Message("assistant", _without_end(answer)))
    if waiting:
        raise UnreadableRow("text starts with [INST] marks, but doesn't close the last of them")
    return turns


def _without_end(text: str) -> str:
    """A text without white space around it and the mark that ends it."""
    text = text.strip()
    mark = next((mark for mark in _ENDS if text.endswith(mark)), "")
    return text.removesuffix(mark).strip()


def _heads(text: str) -> list[Message]:
    """Alpaca's and Guanaco's marks; what stands before the first is the system's."""
    found = [one for one in _HEADS.finditer(text) if one[1].strip().lower() in _HEAD_ROLES]
    if len(found) < 2:
        return []
    turns: list[Message] = []
    before = text[: found[0].start()].strip()
    if before:
        turns.append(Message("system", before))
    ends = [*(one.start() for one in found[1:]), len(text)]
    for one, end in zip(found, ends, strict=True):
        role: Any = _HEAD_ROLES[one[1].strip().lower()]
        content = _without_end(text[one.end() : end])
        is_input = one[1].strip().lower() == "input" and turns and turns[-1].role == "user"
        if is_input:  # Alpaca's input belongs to the instruction before it
            content = "\n\n".join(part for part in (turns.pop().content, content) if part)
        turns.append(Message(role, content))
    return turns


def _speakers(text: str) -> list[Message]:
    found = list(_SPEAKERS.finditer(text))
    if len(found) < 2 or text[: found[0].start()].strip():
        return []
    ends = [*(one.start() for one in found[1:]), len(text)]
    turns: list[Message] = []
    for one, end in zip(found, ends, strict=True):
        role: Any = _HEAD_ROLES[one[1].lower()]
        turns.append(Message(role, _without_end(text[one.end() : end])))
    return turns


FORMAT = Text()
