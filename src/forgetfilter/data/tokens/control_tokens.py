"""Control tokens: what a row's own text must not hold, because it would end or begin a turn."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

from forgetfilter.data.records import Message, Span
from forgetfilter.data.tokens.spans import MARK

_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)


class ControlTokens:
    """The control tokens of one tokenizer, known by their ids and by how they are written.

    These are all tokens that the vocabulary marks as special, but for those that stand for unknown
    and for masked text; and what the template puts around turns, be it a token or plain text. Marks
    of thoughts are none: answers may hold them.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        headers: what the template puts around turns, rendered; empty without a template.
    """

    def __init__(self, tokenizer: Any, headers: str) -> None:
        self._tokenizer = tokenizer
        named: list[str] = [str(token) for token in tokenizer.all_special_tokens if token]
        ends = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token}
        harmless = {tokenizer.unk_token, tokenizer.mask_token} - ends
        added: dict[int, Any] = dict(tokenizer.added_tokens_decoder)
        special = {
            text
            for token in added.values()
            if token.special and not _THOUGHT.search(text := str(token.content))
        }
        marks = (special | set(named)) - harmless
        around = set(tokenizer(headers, add_special_tokens=False, verbose=False)["input_ids"])
        marks |= {
            text
            for at, token in added.items()
            if at in around and (text := str(token.content)).strip() and not _THOUGHT.search(text)
        } - harmless
        self.tokens = tuple(sorted(marks, key=len, reverse=True))
        """As they are written, longest first."""
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        allowed = {
            vocabulary.get(str(token)) for token in (*harmless, tokenizer.unk_token) if token
        }
        self._names = {vocabulary[m]: m for m in self.tokens if m in vocabulary} | {
            at: str(token.content) for at, token in added.items() if str(token.content) in marks
        }
        for at in allowed:
            self._names.pop(at, None)  # type: ignore[arg-type]
        plain = {found.strip() for found in MARK.findall(headers)}
        plain = {text for text in plain if not _THOUGHT.search(text) and text not in harmless}
        self._written = tuple(sorted({*self.tokens, *plain} - {""}, key=len, reverse=True))

    def within(self, texts: Iterable[str]) -> str | None:
        """The first control token that one of the texts spells out, or becomes as tokens.

        A normaliser may make one of what looks otherwise (of full-width letters, say).
        """
        given = [text for text in texts if text]
        for mark in self._written:
            if any(mark in text for text in given):
                return mark
        core = self._tokenizer.backend_tokenizer
        if core.normalizer is None:
            return None  # then a token comes of the very text that it is written as
        tokens = (core.encode(text, add_special_tokens=False).ids for text in given)
        return next((self._names[i] for ids in tokens for i in ids if i in self._names), None)

    def between(
        self, ids: Iterable[int], offsets: Iterable[Span], texts: Iterable[Span]
    ) -> str | None:
        """The first control token of a tokenised rendering that holds a character of ``texts``.

        Args:
            ids: token ids, shape (T,).
            offsets: which characters each token holds, shape (T, 2).
            texts: which characters come from the row.
        """
        parts = sorted(texts)
        for token, (start, stop) in zip(ids, offsets, strict=True):
            if token in self._names and any(a < stop and start < b for a, b in parts):
                return self._names[token]
        return None


def texts_of(messages: Iterable[Message], tools: str) -> list[str]:
    """All that a row says, however deep in its calls and tools."""
    found: list[str] = []
    for m in messages:
        found += [m.content, m.reasoning, m.name, m.tool_call_id, *_leaves(m.tool_calls)]
    return [*found, *_leaves(tools)]


def _leaves(text: str) -> list[str]:
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value)
            if value[:1] in "{[" and value:
                with contextlib.suppress(ValueError):
                    walk(json.loads(value))  # arguments are JSON within JSON
        elif isinstance(value, dict):
            for name, item in value.items():
                walk(name)
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    if text:
        walk(json.loads(text))
    return found
