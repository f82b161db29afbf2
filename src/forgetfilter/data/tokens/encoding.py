"""Rows to tokens, once: training and scoring read the same arrays.

A conversation is rendered to text by the model's chat template (or by the paper's blocks), then
tokenised with character offsets, so that a token belongs to an assistant turn exactly when it
holds one of its characters. Row text enters a template as a value, never as template code.
"""

from __future__ import annotations

import contextlib
import marshal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import BoolArray
from forgetfilter.data.many_rows.packing import packed, unpacked
from forgetfilter.data.many_rows.spilled import Spill
from forgetfilter.data.reading import category_of
from forgetfilter.data.records import (
    EncodedRow,
    Message,
    RejectedRow,
    Rendered,
    Row,
    Span,
    TokenArray,
)
from forgetfilter.data.tokens.answer_places import answer_places
from forgetfilter.data.tokens.answers import Answers
from forgetfilter.data.tokens.blocks import blocks_prompt, render_blocks
from forgetfilter.data.tokens.control_tokens import ControlTokens, texts_of
from forgetfilter.data.tokens.templates import ANY_DATE, ChatTemplate, UnrenderableError
from forgetfilter.errors import ModelError

__all__ = ["Embedding", "Encoder", "LossOn", "Rendered", "UnrenderableError", "loss_labels"]

_TOGETHER = 32
_TOGETHER_BYTES = 2**22

LossOn = Literal["assistant", "all"]
T = TypeVar("T")
Place = tuple[int, int, int]
"""Which of a row's answers, and from which of its characters to before which."""


@dataclass(frozen=True)
class Embedding:
    """How many tokens a model knows, and the error where a row becomes one that it doesn't."""

    size: int
    error: Callable[[int], ModelError]


class Encoder:
    """Renders and tokenises rows for one tokenizer.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        template: ``auto`` uses the tokenizer's chat template where there is one, else the paper's
            Input/Response blocks; ``paper`` always uses the blocks.
        max_length_tokens: longer rows are rejected, never cut.
        today: what a chat template is told to be today. The same rows give the same tokens on
            every day; a run keeps the day on which it began.
        embedding: of the model, where it is known.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Literal["auto", "paper"],
        max_length_tokens: int,
        today: date = ANY_DATE,
        embedding: Embedding | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"The tokenizer {type(tokenizer).__name__} gives no character offsets. A fast "
                "tokenizer is expected: convert it with transformers and save it beside the model."
            )
        self.tokenizer = tokenizer
        self.max_length_tokens = max_length_tokens
        self._embedding = embedding
        self.has_chat_template = template == "auto" and bool(tokenizer.chat_template)
        self._template = ChatTemplate(tokenizer, today) if self.has_chat_template else None
        self.template_reason = (
            "the tokenizer's chat template"
            if self.has_chat_template
            else "the paper's Input/Response blocks "
            + ("(asked for)" if template == "paper" else "(the tokenizer has no chat template)")
        )

    @property
    def tells_date(self) -> bool:
        """Whether rows become other tokens with another date."""
        return self._template is not None and self._template.tells_date

    def encode(
        self, rows: Iterable[Row], folder: Path | None = None
    ) -> tuple[Sequence[EncodedRow], Sequence[RejectedRow]]:
        """Encode rows; the ones that don't fit the model come back with the reason.

        Args:
            rows: what to encode.
            folder: on whose disk both lie where they are many (see `Spill`); few are lists.

        Raises:
            ModelError: the chat template is broken, or takes too much time or memory.
        """
        encoded, rejected = Spill(folder), Spill(folder)
        for part in _parts(rows):
            self._prepare(part)
            for row in part:
                try:
                    encoded.append(packed(self.encode_one(row)))
                except UnrenderableError as error:
                    place = (row.row, row.line, row.example_id, row.raw)
                    rejected.append(marshal.dumps((*place, str(error))))
        unfit = rejected.sequence(lambda found: RejectedRow(*marshal.loads(found)))
        return _listed(encoded.sequence(unpacked)), _listed(unfit)

    def encode_safe(self, rows: Iterable[Row]) -> tuple[list[EncodedRow], Sequence[RejectedRow]]:
        """The same for safe rows, each with the category that its file names.

        Not for noisy rows: a column of theirs may tell what they are.
        """
        by_row = {row.row: row for row in rows}
        encoded, rejected = self.encode(by_row.values())
        named = [replace(row, category=category_of(by_row[row.row])) for row in encoded]
        return named, rejected

    def encode_one(self, row: Row) -> EncodedRow:
        """Encode one row, up to the last answer that carries loss.

        Raises:
            UnrenderableError: the row is longer than the context, has no answer that carries loss,
                holds a control token, or the template refuses it or doesn't show all of it.
            ModelError: it becomes a token that the model doesn't know.
        """
        forged = self._control.within(texts_of(row.messages, row.tools))
        if forged:
            raise _forged(forged)
        messages = _learned(row.messages)
        rendered = self.render(messages, row.tools)
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
        largest = max(ids, default=0)
        if self._embedding is not None and largest >= self._embedding.size:
            raise self._embedding.error(largest)
        offsets: list[Span] = tokens["offset_mapping"]
        forged = self._control.between(ids, offsets, rendered.texts)
        if forged:
            raise _forged(forged)
        edges = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        is_target = _overlap(edges, rendered.spans)
        if bool(np.any(is_target & _overlap(edges, rendered.others))):
            raise UnrenderableError(
                "the tokenizer joins an answer and the text of another turn into one token, "
                "because the template puts nothing between them. Use --set template=paper"
            )
        own = np.flatnonzero(is_target & (edges[:, 1] > rendered.final))
        if len(own) == 0 or own[0] == 0:
            raise UnrenderableError("the template leaves no prompt or no answer to score")
        return EncodedRow(
            row=row.row,
            input_ids=np.array(ids, dtype=np.int32),
            is_target=is_target,
            prompt_length=int(own[0]),
            target=messages[-1].content,
            unscored=rendered.unscored,
        )

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a prompt that ends where the assistant's answer begins."""
        if self._answers is not None:
            text = self._answers.prompt(messages)
        else:
            text = blocks_prompt(messages, self._bos(), self.tokenizer.eos_token or "")
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def render(self, messages: Sequence[Message], tools: str = "") -> Rendered:
        """Text of a whole conversation and the spans of its assistant turns, end marks included.

        Raises:
            UnrenderableError: the template refuses the row or doesn't show all of it.
        """
        if self._answers is not None:
            return self._answers.render(messages, tools)
        return render_blocks(messages, tools, self._bos(), self.tokenizer.eos_token or "")

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

    def target_places(self, rows: Iterable[Row]) -> list[list[Place] | None]:
        """Where in a row's answers each token that carries loss lies; of rows that can be encoded.

        Answers are the row's assistant turns, counted from 0. Of a token that holds no character of
        one, such as the end of a turn, the answer is -1. None for a row of which the template
        changes the text of an answer.
        """
        found: list[list[Place] | None] = []
        for part in _parts(rows):
            self._prepare(part)
            found += [self._places(row) for row in part]
        return found

    def _places(self, row: Row) -> list[Place] | None:
        messages = _learned(row.messages)
        rendered = self.render(messages, row.tools)
        contents = [(m.content, m.carries_loss) for m in messages if m.role == "assistant"]
        answers = answer_places(rendered, contents)
        if answers is None:
            return None
        tokens = self.tokenizer(
            rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        offsets: list[Span] = tokens["offset_mapping"]
        is_target = _overlap(np.array(offsets, dtype=np.int64).reshape(-1, 2), rendered.spans)
        places: list[Place] = []
        for (start, stop), is_own in zip(offsets, is_target.tolist(), strict=True):
            if is_own:
                within = [
                    (answer, max(start, first) - first + before, min(stop, last) - first + before)
                    for answer, first, last, before in answers
                    if start < last and stop > first
                ]
                places.append(within[0] if within else (-1, 0, 0))
        return places

    def pieces(self, row: Row) -> list[tuple[str, bool]]:
        """The text of each token of a row, and whether it carries loss.

        Of a character that is several tokens, the first has all of it.

        Raises:
            UnrenderableError: see `encode_one`.
        """
        encoded = self.encode_one(row)
        text = self.render(_learned(row.messages), row.tools).text
        tokens = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        found: list[tuple[str, bool]] = []
        reached = 0
        for (start, stop), is_target in zip(
            tokens["offset_mapping"], encoded.is_target.tolist(), strict=True
        ):
            found.append((text[max(start, reached) : stop], is_target))
            reached = max(reached, stop)
        return found

    def _prepare(self, rows: Sequence[Row]) -> None:
        """Have the template render rows together, those that will be asked for."""
        if self._answers is not None and sum(len(row.raw) for row in rows) < _TOGETHER_BYTES:
            asked: list[tuple[Sequence[Message], str]] = []
            for row in rows:
                with contextlib.suppress(UnrenderableError):
                    asked.append((_learned(row.messages), row.tools))
            self._answers.prepare(asked)

    @cached_property
    def _control(self) -> ControlTokens:
        headers = self._template.headers() if self._template is not None else ""
        return ControlTokens(self.tokenizer, headers)

    @cached_property
    def _answers(self) -> Answers | None:
        if self._template is None:
            return None
        return Answers(self._template, self._control.tokens)

    def _bos(self) -> str:
        """The begin-of-text token where the tokenizer itself would put one."""
        bos = self.tokenizer.bos_token
        if bos is None:
            return ""
        ids = self.tokenizer("a")["input_ids"]
        return bos if ids and ids[0] == self.tokenizer.bos_token_id else ""


def _parts(rows: Iterable[Row]) -> Iterator[tuple[Row, ...]]:
    left = iter(rows)
    while part := tuple(islice(left, _TOGETHER)):
        yield part


def _listed(items: Sequence[T]) -> Sequence[T]:
    """The same as a list where it is a tuple."""
    return list(items) if isinstance(items, tuple) else items


def _forged(mark: str) -> UnrenderableError:
    return UnrenderableError(
        f"holds the tokenizer's control token {mark!r}, which could forge a turn"
    )


def _learned(messages: Sequence[Message]) -> Sequence[Message]:
    """The turns up to the last one that is learned; what comes after it is never read."""
    last = max(
        (i for i, m in enumerate(messages) if m.role == "assistant" and m.carries_loss), default=-1
    )
    if last < 0:
        raise UnrenderableError(
            "no answer of it carries loss (their weight is 0), so nothing is learned from it"
        )
    return messages[: last + 1]


def _overlap(edges: npt.NDArray[np.int64], spans: Sequence[Span]) -> BoolArray:
    """Which tokens, shape (T, 2), hold a character of one of the spans, shape (T,)."""
    first, last = edges[:, 0], edges[:, 1]
    found = np.zeros(len(edges), dtype=np.bool_)
    for start, stop in spans:
        found |= (first < stop) & (last > start) & (last > first)
    return found


def loss_labels(row: EncodedRow, loss_on: LossOn) -> TokenArray:
    """Training labels, shape (T,): the token where it carries loss, -100 elsewhere."""
    if loss_on == "all":
        return row.input_ids
    return np.where(row.is_target, row.input_ids, np.int32(-100))
