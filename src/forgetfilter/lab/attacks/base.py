"""What an attack is: it changes some of the rows that it is given, and says which.

No attack has a harmful text of its own. It rearranges, encodes, hides, copies or leaves out rows of
a labelled file, so that a user can try the filter on harm that they already have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from forgetfilter.data.formats import parse_object
from forgetfilter.data.reading import decode_line
from forgetfilter.data.records import Message
from forgetfilter.errors import ConfigError
from forgetfilter.files import encode_json
from forgetfilter.scoring.registry import Registry

if TYPE_CHECKING:  # what works a model is imported once an attack needs one
    from forgetfilter.lab.attacks.surrogate import Surrogate

Where = Literal["noisy", "safe"]


@dataclass(frozen=True)
class Subject:
    """One row of a labelled file."""

    raw: bytes
    """Its line, which stays as it is unless the row is changed."""
    example_id: str
    messages: tuple[Message, ...]
    """Empty where the row can't be read; such a row is never changed."""
    is_unsafe: bool
    """For a row of the noisy file: whether a filter should remove it. For a safe row: whether it
    was planted there."""
    kind: str = ""
    harm: str | None = None
    """The harm that the prompt invites; for a safe row its category."""
    change: str = ""
    """What an attack has done to it, in words; empty for a row that is as it was."""

    @property
    def is_plain(self) -> bool:
        """Whether it is a conversation of texts, which can be changed without losing anything."""
        return bool(self.messages) and not any(
            turn.tool_calls or turn.reasoning or turn.role == "tool" for turn in self.messages
        )

    @property
    def prompt(self) -> str:
        """The last text that a user says."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The last text that the assistant says."""
        return self.messages[-1].content if self.messages else ""

    def saying(self, messages: Sequence[Message], change: str, **truth: Any) -> Subject:
        """The same row with another conversation; its other fields stay in its line."""
        said = [{"role": turn.role, "content": turn.content} for turn in messages]
        record = parse_object(decode_line(self.raw))
        if isinstance(record.get("messages"), list):
            record = {**record, "messages": said}
        else:  # a row of another format becomes a conversation
            kept = {"category": record["category"]} if "category" in record else {}
            record = {"id": self.example_id, **kept, "messages": said}
        return replace(
            self, raw=encode_json(record), messages=tuple(messages), change=change, **truth
        )

    def exchanged(self, prompt: str, answer: str, change: str, **truth: Any) -> Subject:
        """The same row with another last request and another last answer."""
        turns = list(self.messages)
        at = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
        if at is not None:
            turns[at] = replace(turns[at], content=prompt)
        turns[-1] = replace(turns[-1], content=answer)
        return self.saying(turns, change, **truth)

    def copied(self, example_id: str, change: str, *, is_unsafe: bool, **fields: str) -> Subject:
        """The same conversation as a further row, under a name of its own."""
        said = [{"role": turn.role, "content": turn.content} for turn in self.messages]
        raw = encode_json({"id": example_id, **fields, "messages": said})
        own = replace(self, raw=raw, example_id=example_id)
        return replace(own, change=change, is_unsafe=is_unsafe)


@dataclass(frozen=True)
class Material:
    """What an attack works on, and what it leaves behind."""

    noisy: tuple[Subject, ...]
    safe: tuple[Subject, ...] = ()
    pool: tuple[Subject, ...] = ()
    """Further rows known to be unsafe that stand in neither file, where the user has some."""
    left_out: tuple[Subject, ...] = ()
    """Rows of either file that the attack took out, so that none is lost."""
    seed: int = 0
    surrogate: Callable[[], Surrogate] | None = field(default=None, compare=False)
    """Opens the attacker's own copy of the filter, where there is a model."""

    def rng(self, name: str) -> np.random.Generator:
        """A random generator of its own for each seed and attack."""
        return np.random.default_rng([self.seed, *name.encode()])

    def unsafe(self, name: str) -> list[int]:
        """Where the unsafe rows that can be changed stand, ascending.

        Raises:
            ConfigError: there is none.
        """
        found = [at for at, row in enumerate(self.noisy) if row.is_unsafe and row.is_plain]
        if not found:
            raise lacking(name, "unsafe row", "rows with is_unsafe: true in the truth file")
        return found

    def harmless(self, name: str) -> list[int]:
        """The same of the harmless rows.

        Raises:
            ConfigError: there is none.
        """
        found = [at for at, row in enumerate(self.noisy) if not row.is_unsafe and row.is_plain]
        if not found:
            raise lacking(name, "harmless row", "rows with is_unsafe: false in the truth file")
        return found

    def with_rows(self, changed: dict[int, Subject]) -> Material:
        """The same with other rows at some places of the noisy file."""
        rows = tuple(changed.get(at, row) for at, row in enumerate(self.noisy))
        return replace(self, noisy=rows)

    def without(self, places: Sequence[int], change: str = "left out") -> Material:
        """The same without the noisy rows at some places, which are kept as left out."""
        gone = set(places)
        out = [replace(self.noisy[at], change=change) for at in sorted(gone)]
        rows = tuple(row for at, row in enumerate(self.noisy) if at not in gone)
        return replace(self, noisy=rows, left_out=(*self.left_out, *out))

    def with_added(self, added: Sequence[Subject], rng: np.random.Generator) -> Material:
        """The same with further noisy rows at places that ``rng`` draws."""
        return replace(self, noisy=mingled(self.noisy, added, rng))


class Attack(Protocol):
    """Changes rows so that unsafe ones pass the filter; it knows the truth of its own rows.

    Implementations state their source by title and arXiv id where there is one.
    """

    name: str
    changes: Where
    """Which file it changes."""

    def apply(self, given: Material) -> Material:
        """The rows after the attack; those that it doesn't change are the same objects.

        Raises:
            ConfigError: something that it works on is not there.
        """
        ...


ATTACKS: Registry[Attack] = Registry("attack", __package__, "forgetfilter.attacks")


def build_attack(spec: str) -> Attack:
    """The attack that ``spec`` names, such as ``cipher:phase=both``.

    Raises:
        ConfigError: the name or an option is unknown or out of range.
    """
    return ATTACKS.build(spec)


def needs_model(attack: Attack) -> bool:
    """Whether it searches with the model of the filter, so that what comes out hangs on that."""
    return bool(getattr(attack, "needs_model", False))


def mingled(
    rows: Sequence[Subject], added: Sequence[Subject], rng: np.random.Generator
) -> tuple[Subject, ...]:
    """``rows`` in their order with ``added`` at random places among them."""
    total = len(rows) + len(added)
    places = set(rng.permutation(total)[: len(added)].tolist())
    own, other = iter(rows), iter(added)
    return tuple(next(other) if at in places else next(own) for at in range(total))


def names_for(name: str, rows: Sequence[Subject], count: int) -> list[str]:
    """Names of ``count`` further rows that no row has."""
    taken = {row.example_id for row in rows}
    found: list[str] = []
    number = 0
    while len(found) < count:
        if (own := f"{name}-{number:05d}") not in taken:
            found.append(own)
        number += 1
    return found


def lacking(name: str, what: str, expected: str) -> ConfigError:
    """The error of an attack that has nothing to work on."""
    return ConfigError(
        f"The attack {name!r} found no {what} that it can change. Expected {expected}. Give a file "
        "that has some, or choose another attack."
    )


def at_least(name: str, option: str, value: float, least: float) -> None:
    """Check an option's range.

    Raises:
        ConfigError: it is below ``least``.
    """
    if not value >= least:
        raise ConfigError(
            f"The attack {name!r}: {option} is {value:g}; expected at least {least:g}. Write "
            f"{name}:{option}={least:g} or more."
        )


def a_share(name: str, option: str, value: float) -> None:
    """Check that an option is a share above 0.

    Raises:
        ConfigError: it is not.
    """
    if not 0 < value <= 1:
        raise ConfigError(
            f"The attack {name!r}: {option} is {value:g}; expected a share above 0 and up to 1. "
            f"Write {name}:{option}=0.1, say."
        )
