"""Rows to tokens, once: training and scoring read the same arrays.

A conversation is rendered to text by the model's chat template (or by the paper's blocks), then
tokenised with character offsets, so that a token belongs to an assistant turn exactly when it
holds one of its characters. Row text enters a template as a value, never as template code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from forgetfilter.data.reading import category_of
from forgetfilter.data.records import EncodedRow, Message, RejectedRow, Row, TokenArray
from forgetfilter.errors import ModelError

Span = tuple[int, int]
LossOn = Literal["assistant", "all"]


class UnrenderableError(Exception):
    """The template can't render one row in a way that shows where its answers lie."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with the character spans of its assistant turns."""

    text: str
    spans: tuple[Span, ...]


class Encoder:
    """Renders and tokenises rows for one tokenizer.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        template: ``auto`` uses the tokenizer's chat template where there is one, else the paper's
            Input/Response blocks; ``paper`` always uses the blocks.
        max_length_tokens: longer rows are rejected, never cut.
    """

    def __init__(
        self, tokenizer: Any, template: Literal["auto", "paper"], max_length_tokens: int
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"The tokenizer {type(tokenizer).__name__} gives no character offsets. A fast "
                "tokenizer is expected: convert it with transformers and save it beside the model."
            )
        self.tokenizer = tokenizer
        self._marks = [
            str(mark)
            for mark in tokenizer.all_special_tokens
            if mark and mark not in (tokenizer.unk_token, tokenizer.mask_token)
        ]
        self.max_length_tokens = max_length_tokens
        self.has_chat_template = template == "auto" and bool(tokenizer.chat_template)
        self.template_reason = (
            "the tokenizer's chat template"
            if self.has_chat_template
            else "the paper's Input/Response blocks "
            + ("(asked for)" if template == "paper" else "(the tokenizer has no chat template)")
        )

    def encode(self, rows: Iterable[Row]) -> tuple[list[EncodedRow], list[RejectedRow]]:
        """Encode rows; the ones that don't fit the model come back with the reason."""
        encoded: list[EncodedRow] = []
        rejected: list[RejectedRow] = []
        for row in rows:
            try:
                encoded.append(self.encode_one(row))
            except UnrenderableError as error:
                rejected.append(
                    RejectedRow(row.row, row.line, row.example_id, row.raw, reason=str(error))
                )
        return encoded, rejected

    def encode_safe(self, rows: Iterable[Row]) -> tuple[list[EncodedRow], list[RejectedRow]]:
        """The same for safe rows, each with the category that its file names.

        Not for noisy rows: a column of theirs may tell what they are.
        """
        by_row = {row.row: row for row in rows}
        encoded, rejected = self.encode(by_row.values())
        named = [replace(row, category=category_of(by_row[row.row])) for row in encoded]
        return named, rejected

    def encode_one(self, row: Row) -> EncodedRow:
        """Encode one row.

        Raises:
            UnrenderableError: the row is longer than the context, or the template refuses it.
        """
        forged = self._control_token_in(row)
        if forged:
            raise UnrenderableError(
                f"holds the tokenizer's control token {forged!r}, which could forge a turn"
            )
        rendered = self.render(row.messages)
        tokens = self.tokenizer(
            rendered.text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,  # its warning about the length is our reason to reject
        )
        ids: list[int] = tokens["input_ids"]
        if len(ids) > self.max_length_tokens:
            raise UnrenderableError(
                f"longer than the model's context: {len(ids)} tokens, at most "
                f"{self.max_length_tokens} fit"
            )
        offsets: list[Span] = tokens["offset_mapping"]
        is_target = [
            any(start < stop and first < stop and last > start for start, stop in rendered.spans)
            and last > first
            for first, last in offsets
        ]
        final_start = rendered.spans[-1][0]
        prompt_length = next(
            (i for i, (_, last) in enumerate(offsets) if is_target[i] and last > final_start),
            0,
        )
        if prompt_length == 0:
            raise UnrenderableError("the template leaves no prompt or no answer to score")
        return EncodedRow(
            row=row.row,
            input_ids=np.array(ids, dtype=np.int32),
            is_target=np.array(is_target, dtype=np.bool_),
            prompt_length=prompt_length,
            target=row.target,
        )

    def _control_token_in(self, row: Row) -> str | None:
        """The first control token (end of turn and the like) that a row's own text spells out."""
        return next((mark for mark in self._marks for m in row.messages if mark in m.content), None)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a prompt that ends where the assistant's answer begins."""
        if self.has_chat_template:
            text = self._chat(messages, add_generation_prompt=True)
        else:
            earlier = self._render_blocks(messages).text
            text = earlier + ("\n\n" if messages else "") + _RESPONSE
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Text of a whole conversation and the spans of its assistant turns, end marks included."""
        return (
            self._render_chat(messages) if self.has_chat_template else self._render_blocks(messages)
        )

    def _render_blocks(self, messages: Sequence[Message]) -> Rendered:
        eos = self.tokenizer.eos_token or ""
        text, spans = self._bos(), list[Span]()
        for message in messages:
            if message.role == "assistant":
                text += _RESPONSE
                start = len(text)
                text += message.content + eos
                if message.carries_loss:
                    spans.append((start, len(text)))
                text += "\n\n"
            else:
                text += _blocks([message])
        return Rendered(text.removesuffix("\n\n"), tuple(spans))

    def _render_chat(self, messages: Sequence[Message]) -> Rendered:
        """Each assistant turn spans what the template adds to its prompt, less trailing blanks.

        The text before a turn, with the generation prompt, must be a prefix of the whole; templates
        that rewrite earlier turns (dropping old reasoning, say) are searched for the content.
        """
        whole = self._chat(messages, add_generation_prompt=False)
        spans: list[Span] = []
        for index, message in enumerate(messages):
            if message.role != "assistant" or not message.carries_loss:
                continue
            prompt = self._chat(messages[:index], add_generation_prompt=True)
            upto = self._chat(messages[: index + 1], add_generation_prompt=False)
            if whole.startswith(prompt) and whole.startswith(upto.rstrip()):
                spans.append((len(prompt), len(upto.rstrip())))
                continue
            # An answer's words may stand in an earlier turn too, which must not be taken for it.
            is_prefix = whole.startswith(prompt)
            floor = len(prompt) if is_prefix else _position_after(whole, messages[:index])
            content = message.content.strip()
            start = whole.find(content, floor)
            if is_prefix and start != floor and (mark := self._final_mark(upto.rstrip())):
                # Rewritten as well (its reasoning dropped, say): from its prompt to its end mark.
                stop = whole.find(mark, floor)
                if stop > floor:
                    spans.append((floor, stop + len(mark)))
                    continue
            if not content or start < 0:
                raise UnrenderableError("the chat template doesn't show this row's answer")
            stop = start + len(content)
            spans.append((start, stop + self._end_mark_length(whole[stop:])))
        return Rendered(whole, tuple(spans))

    def _final_mark(self, text: str) -> str:
        """The special token that ``text`` ends with, empty if there is none."""
        marks = [str(token) for token in self.tokenizer.all_special_tokens if token]
        return max((mark for mark in marks if text.endswith(mark)), key=len, default="")

    def answer_pieces(self, row: EncodedRow, limit: int) -> list[str]:
        """Text of each of the first ``limit`` tokens that carry loss in the row's last answer.

        A token that ends within a character is given an empty text, and the one that completes the
        character all of it. Control tokens, such as the end of the turn, are spelled out.
        """
        pieces: list[str] = []
        ids: list[int] = []
        known = ""
        for at in range(row.prompt_length, len(row.input_ids)):
            if len(ids) == limit:
                break
            if not row.is_target[at]:
                continue
            ids.append(int(row.input_ids[at]))
            text = str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
            is_whole = not text.endswith("\ufffd")
            pieces.append(text[len(known) :] if is_whole else "")
            known = text if is_whole else known
        return pieces

    def _end_mark_length(self, tail: str) -> int:
        """Length of an end-of-turn token at the head of ``tail``, 0 if there is none."""
        return max((len(mark) for mark in self._marks if tail.startswith(mark)), default=0)

    def _chat(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # Jinja raises what the template's author chose
            raise UnrenderableError(f"the chat template refuses this row: {error}") from None

    def _bos(self) -> str:
        """The begin-of-text token where the tokenizer itself would put one."""
        bos = self.tokenizer.bos_token
        if bos is None:
            return ""
        ids = self.tokenizer("a")["input_ids"]
        return bos if ids and ids[0] == self.tokenizer.bos_token_id else ""


def _position_after(text: str, messages: Sequence[Message]) -> int:
    """Where the contents of ``messages`` end when they are met in ``text`` one after the other."""
    position = 0
    for message in messages:
        content = message.content.strip()
        start = text.find(content, position)
        if start >= 0:
            position = start + len(content)
    return position


_RESPONSE = "### Response:\n"
_HEADERS = {"system": "### Instruction:\n", "user": "### Input:\n"}


def _blocks(messages: Sequence[Message]) -> str:
    """The paper's blocks for turns that carry no loss, one spelling for training and evaluation.

    The published code spells its headers in several ways; this is the one used throughout.
    """
    return "".join(_HEADERS[m.role] + m.content + "\n\n" for m in messages)


def loss_labels(row: EncodedRow, loss_on: LossOn) -> TokenArray:
    """Training labels, shape (T,): the token where it carries loss, -100 elsewhere."""
    if loss_on == "all":
        return row.input_ids
    return np.where(row.is_target, row.input_ids, np.int32(-100))
