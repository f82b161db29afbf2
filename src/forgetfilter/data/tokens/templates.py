"""A model's chat template: conversations to text, within limits of time and memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from forgetfilter.data.records import Message, Span
from forgetfilter.data.tokens import template_process
from forgetfilter.data.tokens.conversations import SHAPES, conversation
from forgetfilter.data.tokens.template_process import TemplateWorker
from forgetfilter.errors import ModelError
from forgetfilter.text import printable

ANY_DATE = date(2024, 7, 26)
"""What templates are told to be today where nobody names a date, so that encoding is repeatable."""


class UnrenderableError(Exception):
    """The template can't render one row in a way that shows where its answers lie."""


_TOKENS = frozenset({"bos_token", "eos_token", "pad_token", "unk_token"})
_UNDEFINED = re.compile("'(\\w+)' is undefined")


@dataclass(frozen=True)
class Rendering:
    """One conversation as a template renders it, or the template's error."""

    text: str = ""
    marks: tuple[Span, ...] = ()
    """What ``{% generation %}`` stands around, as character positions."""
    error: str | None = None


class ChatTemplate:
    """The chat template of one tokenizer.

    Args:
        tokenizer: of Hugging Face, with a chat template.
        today: what the template is told to be today, on whatever day it is asked.

    Raises:
        ModelError: the template is no valid template, or takes too much to be compiled.
    """

    def __init__(self, tokenizer: Any, today: date = ANY_DATE) -> None:
        self._tokenizer = tokenizer
        self._today = today.isoformat()
        self._variables = {
            name: value if isinstance(value, list) else str(value)
            for name, value in tokenizer.special_tokens_map.items()
        }
        self._name = printable(str(getattr(tokenizer, "name_or_path", "")) or "the model", 200)
        self._known: dict[str, dict[str, Any]] = {}

    @property
    def tells_date(self) -> bool:
        """Whether what the template renders depends on the date."""
        return bool(self._loaded(self._source(None))["tells_date"])

    def constants(self, tools: Any = None) -> tuple[str, ...]:
        """The texts that stand in the template's code; by them it may treat texts differently."""
        return tuple(self._loaded(self._source(tools))["constants"])

    def headers(self) -> str:
        """What the template puts around turns, in renderings of a short conversation."""
        said = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
        asked = conversation(said, "", SHAPES[0])
        tasks = [asked.task(2), asked.task(3, add_generation_prompt=True)]
        found = self.render(tasks)
        for _ in _TOKENS:
            # Some tokenizers have no such token, and their templates never ask whether they do.
            asked = [_UNDEFINED.match(rendering.error or "") for rendering in found]
            names = {match.group(1) for match in asked if match} & _TOKENS
            if not names:
                break
            self._variables |= dict.fromkeys(names, "")
            found = self.render(tasks)
        return "\n".join(rendering.text for rendering in found if rendering.error is None)

    def render(self, tasks: Sequence[Any]) -> list[Rendering]:
        """Render each task of `Conversation.task`, in order.

        Raises:
            ModelError: the template takes too much time or memory.
        """
        source = self._source(tasks[0]["tools"] if tasks else None)
        key = self._loaded(source)["key"]
        request = {"key": key, "variables": {**self._variables, "documents": None}, "tasks": tasks}
        reply = self._ask(request, source)
        return [
            Rendering(error=found["error"])
            if "error" in found
            else Rendering(found["text"], tuple((start, stop) for start, stop in found["marks"]))
            for found in reply["renderings"]
        ]

    def _source(self, tools: Any) -> str:
        try:
            return self._tokenizer.get_chat_template(None, tools)
        except ValueError as error:
            raise ModelError(
                f"{self._name} has several chat templates and none of them is the default: "
                f"{printable(str(error))} Expected one. Name one of them 'default' in its "
                "tokenizer_config.json, or use --set template=paper."
            ) from None

    def _loaded(self, source: str) -> dict[str, Any]:
        if source not in self._known:
            key = hashlib.sha256(f"{self._today}{source}".encode()).hexdigest()
            self._known[source] = {"key": key}
            self._known[source] |= self._load(source)
        return self._known[source]

    def _load(self, source: str) -> dict[str, Any]:
        key = self._known[source]["key"]
        reply = self._ask({"key": key, "source": source, "date": self._today}, None)
        if "error" in reply:
            raise ModelError(
                f"The chat template of {self._name} is no valid Jinja template: "
                f"{printable(reply['error'])}. Expected one that transformers can render. Mend "
                "its chat_template.jinja, or use --set template=paper."
            )
        return reply

    def _ask(self, request: Mapping[str, Any], source: str | None) -> dict[str, Any]:
        """The worker's reply; ``source`` is the template that it has to know for that."""
        worker = TemplateWorker.shared()
        if source is not None and request["key"] not in worker.loaded:
            self._load(source)
            worker = TemplateWorker.shared()
        reply = worker.ask(request)
        if reply.get("failure") == "idle":
            return self._ask(request, source)
        failure = reply.get("failure")
        if failure is not None:
            took = {
                "time": f"more than {template_process.CPU_SECONDS} seconds of processor time",
                "memory": f"more than {template_process.MEGABYTES} MB of memory",
            }.get(failure, "the process that rendered it down")
            raise ModelError(
                f"The chat template of {self._name} took {took} for one row. Expected a template "
                "that renders a row in milliseconds. It may be broken or hostile: look at its "
                "chat_template.jinja, or use --set template=paper, which leaves it unused."
            )
        if "source" in request and "error" not in reply:
            worker.loaded.add(request["key"])
        return reply


def text_of(found: Rendering) -> str:
    """The text of a rendering.

    Raises:
        UnrenderableError: the template has refused the conversation.
    """
    if found.error is not None:
        raise UnrenderableError(f"the chat template refuses this row: {printable(found.error)}")
    return found.text
