"""What a recipe makes of a source's row: conversations to choose from, and their group."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Role = Literal["unsafe", "harmless", "safe", "test"]
"""Where a row may go: unsafe or harmless rows of the noisy file, the safe file, the test file."""
ROLES: tuple[Role, ...] = get_args(Role)

_NO_WORD = re.compile(r"[\W_]+")


class LeftOut(Exception):
    """A row that a recipe has no use for; the message is the reason, which is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One prompt with one answer, and the places that it may take."""

    kind: str
    """What the row is: ``bias_ambiguous``, ``squad``, ``harmfulness_refusal`` …"""
    prompt: str
    response: str
    is_unsafe: bool
    roles: frozenset[Role]
    group: str
    """Template, prompt or passage; all offers of a group go to the same place."""
    source: str
    """Name of the file or of the public set that the row is from."""
    source_id: str
    """The row's own id there."""
    meta: Mapping[str, Any]
    """The row's original fields, for metrics."""
    asks: str = ""
    """The kind of its prompt as a test prompt, where that is another than the row's."""
    is_shared_prompt: bool = False
    """Whether its prompt is one of a few wordings that many rows share. Then the prompt with this
    answer goes to one place only, and the prompt may go to several."""

    @property
    def test_kind(self) -> str:
        """How answers to its prompt are judged."""
        return self.asks or self.kind

    @property
    def keys(self) -> frozenset[str]:
        """What goes to one place only: the group, and the prompt or the prompt with its answer."""
        own = f"{self.prompt}\n{self.response}" if self.is_shared_prompt else self.prompt
        return frozenset((self.group, same_text(own)))


def same_text(text: str) -> str:
    """What two texts share that differ in case, white space and punctuation only."""
    return _NO_WORD.sub(" ", text.casefold()).strip() or text


def is_held_out(offer: Offer) -> bool:
    """Whether the real-text model never sees this offer's group; about every second one.

    Follows from the group's name alone, so that mixes drawn from such groups, at any seed, share no
    template, prompt or passage with what that model was trained on.
    """
    return hashlib.sha256(offer.group.encode()).digest()[0] % 2 == 0
