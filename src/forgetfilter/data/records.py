"""A user's rows: as they were read, and as the model sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import BoolArray, FloatArray, SharedTexts

if TYPE_CHECKING:
    from forgetfilter.data.formats.mapping import Reading
    from forgetfilter.data.sources import Source

TokenArray = npt.NDArray[np.int32]
Span = tuple[int, int]
"""From one character to before another."""

Role = Literal["system", "user", "assistant", "tool"]

LEADING_DECAY = 0.95
"""See `EncodedRow.leading_weights`."""

REFERENCE_FILE = "reference.jsonl"
"""Safe rows of every harm, by category, that a model's folder may bring along."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    carries_loss: bool = True
    """Whether an assistant turn is learned; false for one that is part of a given prompt."""
    reasoning: str = ""
    """What the assistant thought before it answered, where the row keeps it apart."""
    tool_calls: str = ""
    """The tools that the assistant calls: a JSON list as chat templates expect it; empty: none."""
    tool_call_id: str = ""
    """For the turn of a tool: which call it answers."""
    name: str = ""
    """For the turn of a tool: its name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of the user's file. The ground truth is never on it."""

    row: int
    """Position among all rows, from 0 (rejected rows count)."""
    line: int
    """Where it begins in its file, from 1 (blank lines count); in a table, its number."""
    example_id: str
    """The row's own ``id`` where present and unique, else made from its position."""
    raw: bytes
    """The original line without its line feed; of another container, the row as JSON."""
    messages: tuple[Message, ...]
    """The conversation; the last turn is the assistant's."""
    tools: str = ""
    """The tools that the assistant is offered: a JSON list as chat templates expect it."""
    own_id: str = ""
    """What the file calls the row, by ``id`` or another such name; other rows may share it."""

    @property
    def target(self) -> str:
        """The text of the last answer that is learned; of one without text, what it has."""
        learned = [m for m in self.messages if m.role == "assistant" and m.carries_loss]
        last = (learned or list(self.messages))[-1]
        return last.content or last.tool_calls or last.reasoning


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A record that can't be scored, with the reason; it is written out, never lost."""

    row: int
    line: int
    example_id: str
    raw: bytes
    reason: str
    own_id: str = ""


@dataclass(frozen=True)
class RowFile:
    """A whole input: its readable rows, its rejected rows, and what identifies it."""

    path: str
    fingerprint: str
    """sha256 of the file's bytes; of several files, or with a reading, of all of these."""
    rows: Sequence[Row]
    """Tuples, or sequences that lie in a file where there are many; so is ``rejected``."""
    rejected: Sequence[RejectedRow]
    malformed: int = 0
    """How many of the rejected are not even records: broken JSON, lost fields, no UTF-8."""
    sources: tuple[Source, ...] = ()
    """Where the rows come from, in order."""
    counts: tuple[int, ...] = ()
    """How many rows each source has."""
    reading: Reading | None = None
    """How the rows were said to be read."""

    def __len__(self) -> int:
        return len(self.rows) + len(self.rejected)

    def in_order(self) -> Iterator[Row | RejectedRow]:
        """Readable and rejected rows together, by position."""
        return merge(self.rows, self.rejected, key=lambda row: row.row)

    def source_names(self) -> SharedTexts:
        """What the user calls the source of each row, by position."""
        names, start = SharedTexts.full(sum(self.counts)), 0
        for source, count in zip(self.sources, self.counts, strict=True):
            names.put(slice(start, start + count), source.name)
            start += count
        return names


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with the character spans of its answers."""

    text: str
    spans: tuple[Span, ...]
    """Of the answers that carry loss, end marks included; disjoint and in order."""
    final: int = 0
    """Where the last of them begins."""
    others: tuple[Span, ...] = ()
    """Texts of other turns, of which no token may be learned."""
    texts: tuple[Span, ...] = ()
    """All that comes from the row and not from the template."""
    unscored: tuple[str, ...] = ()
    """What of the row the template doesn't show: ``reasoning``, ``system``, ``answer``."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """A row as the model sees it; training and scoring use the same arrays.

    Both arrays have shape (T,), can't be written to, and are copies of what the constructor was
    given (any sequences): five bytes a token. Rows are equal when all that they hold is.

    ``is_target[t]`` says that token ``t`` is part of an assistant turn and carries loss.
    ``prompt_length`` tokens precede the last assistant turn: they are the generation prompt.
    """

    row: int
    input_ids: TokenArray
    is_target: BoolArray
    prompt_length: int
    target: str
    category: str = ""
    """What a safe row's file says it is about; empty for every noisy row."""
    unscored: tuple[str, ...] = ()
    """What of the row its template doesn't show, so that no score tells of it: ``reasoning``,
    ``system`` (a system text), ``answer`` (an earlier one)."""

    def __post_init__(self) -> None:
        for name, dtype in (("input_ids", np.int32), ("is_target", np.bool_)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncodedRow):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[int, bytes, bytes, int, str]:
        arrays = self.input_ids.tobytes(), self.is_target.tobytes()
        return (self.row, *arrays, self.prompt_length, self.target)

    @property
    def target_tokens(self) -> int:
        """How many tokens carry loss."""
        return int(np.count_nonzero(self.is_target))

    @property
    def leading_weights(self) -> FloatArray:
        """How much each completion token counts where the first ones decide, shape (K,).

        1 for the first token of an answer and 0.95 of the one before for each further one: whether
        a model complies or refuses is settled by its first tokens, and the rest follows (Qi et al.,
        *Safety Alignment Should Be Made More Than Just a Few Tokens Deep*, ICLR 2025, arXiv
        2406.05946). Chosen on the choosing worlds and one real mix, docs/lab/transfer.md.
        """
        is_target = self.is_target[1:]  # nothing predicts a first token
        starts = is_target & ~np.concatenate([[False], is_target])[:-1]
        since = np.arange(len(is_target))
        at = since - np.maximum.accumulate(np.where(starts, since, 0))
        weights: FloatArray = LEADING_DECAY ** at[is_target].astype(np.float64)
        return weights
