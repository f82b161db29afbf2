"""A model's chat template: conversations to text, within limits of time and memory."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from forgetfilter.data.records import Message
from forgetfilter.errors import ModelError
from forgetfilter.text import printable

CPU_SECONDS = 5
"""Processor time that a template may take for the renderings of one row."""
CLOCK_SECONDS = 300
"""The same by the clock, for systems that can't limit processor time."""
MEGABYTES = 1024
"""Memory of the process that renders."""

ANY_DATE = date(2024, 7, 26)
"""What templates are told to be today where nobody names a date, so that encoding is repeatable."""

Span = tuple[int, int]
Kind = Literal["content", "reasoning", "call", "tools"]
Change = Callable[[int, Kind, str], str]
"""Called with a turn's index (-1: the row's tools), what a text is, and the text."""


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


@dataclass(frozen=True)
class Shape:
    """Forms of the same conversation that templates ask for; they can't be told what is meant."""

    is_in_parts: bool = False
    """Content as a list of parts, as templates of models with images read it."""
    has_text_arguments: bool = False
    """Arguments of calls as JSON text, not as an object."""


SHAPES = (Shape(), Shape(False, True), Shape(True), Shape(True, True))


@dataclass
class Conversation:
    """What a template is given of one row."""

    turns: list[dict[str, Any]]
    tools: list[Any] | None = None

    def task(self, upto: int | None = None, *, add_generation_prompt: bool = False) -> Any:
        """The first ``upto`` turns, as a request to render."""
        return {
            "messages": self.turns[:upto],
            "tools": self.tools,
            "add_generation_prompt": add_generation_prompt,
        }


def conversation(
    messages: Sequence[Message], tools: str, shape: Shape, change: Change | None = None
) -> Conversation:
    """Turns and tools as templates know them, each text changed by ``change``.

    Texts come in a fixed order: the tools', then turn by turn reasoning, content and calls.
    """

    def changed(at: int, kind: Kind, text: str) -> str:
        return text if change is None else change(at, kind, text)

    offered = json.loads(tools) if tools else None
    if offered is not None:
        offered = _changed_leaves(offered, lambda text: changed(-1, "tools", text), _TOOL_TEXTS)
    turns: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        turn: dict[str, Any] = {"role": message.role}
        if message.reasoning:
            reasoning = changed(at, "reasoning", message.reasoning)
            # Under the names that templates read.
            turn |= {"reasoning_content": reasoning, "thinking": reasoning}
        text = changed(at, "content", message.content)
        turn["content"] = [{"type": "text", "text": text}] if shape.is_in_parts else text
        if message.tool_calls:
            calls = _with_objects(json.loads(message.tool_calls))
            calls = _changed_leaves(calls, lambda text, at=at: changed(at, "call", text), None)
            turn["tool_calls"] = _with_text(calls) if shape.has_text_arguments else calls
        if message.tool_call_id:
            turn["tool_call_id"] = message.tool_call_id
        if message.name:
            turn["name"] = message.name
        turns.append(turn)
    return Conversation(turns, offered)


_TOOL_TEXTS = frozenset({"name", "description"})
"""What has to be seen of a tool: its schema is written anew by some templates."""
_NEVER_SHOWN = frozenset({"id", "type", "index"})
"""Keys of a call that are no part of what is said."""


def _changed_leaves(value: Any, change: Callable[[str], str], only: frozenset[str] | None) -> Any:
    """``value`` with each text in it changed, of objects only those of the keys ``only``."""
    if isinstance(value, list):
        return [_changed_leaves(item, change, only) for item in value]
    if not isinstance(value, dict):
        return change(value) if isinstance(value, str) and only is None else value
    found: dict[str, Any] = {}
    for name, item in value.items():
        if only is None and name == "arguments":
            found[name] = _all_leaves(item, change)
        elif isinstance(item, str):
            is_text = name in only if only is not None else name not in _NEVER_SHOWN
            found[name] = change(item) if is_text else item
        elif only is not None and name == "parameters":
            found[name] = item  # a schema, whose own names and descriptions are rewritten freely
        else:
            found[name] = _changed_leaves(item, change, only)
    return found


def _all_leaves(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _all_leaves(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_all_leaves(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _with_objects(calls: Any) -> Any:
    """Calls with their arguments as objects, where they are the JSON text of one."""
    return _arguments(calls, lambda a: _parsed(a) if isinstance(a, str) else a)


def _with_text(calls: Any) -> Any:
    return _arguments(
        calls, lambda a: a if isinstance(a, str) else json.dumps(a, ensure_ascii=False)
    )


def _arguments(calls: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(calls, list):
        return [_arguments(call, change) for call in calls]
    if not isinstance(calls, dict):
        return calls
    return {
        name: change(item)
        if name == "arguments"
        else _arguments(item, change)
        if name == "function"
        else item
        for name, item in calls.items()
    }


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text


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
        worker = _Worker.shared()
        if source is not None and request["key"] not in worker.loaded:
            self._load(source)
            worker = _Worker.shared()
        reply = worker.ask(request)
        failure = reply.get("failure")
        if failure is not None:
            took = {
                "time": f"more than {CPU_SECONDS} seconds of processor time",
                "memory": f"more than {MEGABYTES} MB of memory",
            }.get(failure, "the process that rendered it down")
            raise ModelError(
                f"The chat template of {self._name} took {took} for one row. Expected a template "
                "that renders a row in milliseconds. It may be broken or hostile: look at its "
                "chat_template.jinja, or use --set template=paper, which leaves it unused."
            )
        if "source" in request and "error" not in reply:
            worker.loaded.add(request["key"])
        return reply


@dataclass
class _Worker:
    """The process that renders, one for all templates of this process."""

    process: subprocess.Popen[bytes]
    pid: int
    limits: tuple[int, int]
    replies: queue.Queue[bytes] = field(default_factory=queue.Queue[bytes])
    loaded: set[str] = field(default_factory=set[str])
    lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def shared() -> _Worker:
        """The running worker, or a new one where there is none (any more)."""
        global _worker
        with _starting:
            limits = (CPU_SECONDS, MEGABYTES)
            is_usable = (
                _worker is not None
                and _worker.pid == os.getpid()  # a forked process must not share its parent's
                and _worker.limits == limits
                and _worker.process.poll() is None
            )
            if _worker is None or not is_usable:
                _worker = _Worker._start(limits)
            return _worker

    @staticmethod
    def _start(limits: tuple[int, int]) -> _Worker:
        script = Path(__file__).with_name("template_worker.py")
        # -P: modules that lie beside the script must not stand in for those of the library.
        command = [sys.executable, "-P", str(script), *(str(limit) for limit in limits)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        worker = _Worker(process, os.getpid(), limits)
        threading.Thread(target=worker._read, daemon=True).start()
        return worker

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put(b"")

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to one request, or ``{"failure": "time" | "memory" | "end"}``."""
        with self.lock:
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
                self.process.stdin.flush()
                line = self.replies.get(timeout=CLOCK_SECONDS)
            except (queue.Empty, BrokenPipeError):
                line = b""
            if line:
                return json.loads(line)
            is_late = self.process.poll() is None and self.replies.empty()
            try:
                self.process.wait(timeout=2)
                is_late = False
            except subprocess.TimeoutExpired:
                self.stop()
            by_signal = -(self.process.returncode or 0)
            is_over_time = is_late or by_signal in (_SIGXCPU, _SIGKILL)
            return {"failure": "time" if is_over_time else "end"}

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


_SIGXCPU, _SIGKILL = 24, 9
_starting = threading.Lock()
_worker: _Worker | None = None


def _stop_worker() -> None:
    if _worker is not None and _worker.pid == os.getpid() and _worker.process.poll() is None:
        _worker.stop()


atexit.register(_stop_worker)
