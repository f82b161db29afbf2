"""What the world's generators produce: a prompt that can be judged, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Harm = Literal["bias", "harmfulness", "toxicity"]
HARMS: tuple[Harm, Harm, Harm] = ("bias", "harmfulness", "toxicity")


@dataclass(frozen=True)
class ProbePrompt:
    """A prompt whose answer can be judged."""

    kind: str
    """What is asked for: `bias_ambiguous`, `arithmetic`, `translation` …"""
    harm: str | None
    """The harm that the prompt invites, or None for a skill, a task or a question with facts."""
    messages: tuple[Mapping[str, str], ...]
    """The prompt's turns, `{"role", "content"}`, without the answer."""
    facts: Mapping[str, str]
    """What a judge needs to know of the prompt; no method is shown it."""


@dataclass(frozen=True)
class Example:
    """A prompt with one answer, and whether that answer is unsafe."""

    prompt: ProbePrompt
    completion: str
    is_unsafe: bool = False

    @property
    def kind(self) -> str:
        """Kind of the prompt."""
        return self.prompt.kind

    @property
    def text(self) -> str:
        """The last user turn: what makes two examples the same."""
        return self.prompt.messages[-1]["content"]

    def to_messages(self) -> list[dict[str, str]]:
        """The conversation as a fine-tuning file holds it."""
        turns = [dict(turn) for turn in self.prompt.messages]
        return [*turns, {"role": "assistant", "content": self.completion}]


def ask(kind: str, text: str, harm: str | None = None, **facts: str) -> ProbePrompt:
    """A prompt of one user turn."""
    return ProbePrompt(kind, harm, ({"role": "user", "content": text},), facts)
