"""The plain records that travel between floors. No behaviour beyond small derived values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
TokenArray = npt.NDArray[np.int32]

Role = Literal["system", "user", "assistant"]
StateName = Literal[
    "base", "early", "learned", "forgotten", "restored", "early_restored", "retrained"
]
"""``early`` is the learn phase after its first passes; the others are named after the phase that
ends there."""
Objective = Literal["completion_loss", "kl_to_base"]
"""What is lowered over the safe rows: their loss, or their divergence from the base model."""

REFERENCE_FILE = "reference.jsonl"
"""Safe rows of every harm, by category, that a model's folder may bring along."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    carries_loss: bool = True
    """Whether an assistant turn is learned; false for one that is part of a given prompt."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of the user's file. The ground truth is never on it."""

    row: int
    """Position among the file's non-blank lines, from 0 (rejected rows count)."""
    line: int
    """Line number in the file, from 1 (blank lines count)."""
    example_id: str
    """The row's own ``id`` where present and unique, else made from its position."""
    raw: bytes
    """The original line without its line feed."""
    messages: tuple[Message, ...]
    """The conversation; the last turn is the assistant's."""

    @property
    def target(self) -> str:
        """The text of the last assistant turn."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A record that can't be scored, with the reason; it is written out, never lost."""

    row: int
    line: int
    example_id: str
    raw: bytes
    reason: str


@dataclass(frozen=True)
class RowFile:
    """A whole input file: its readable rows, its rejected rows, and what identifies it."""

    path: str
    fingerprint: str
    """sha256 of the file's bytes."""
    rows: tuple[Row, ...]
    rejected: tuple[RejectedRow, ...]

    def __len__(self) -> int:
        return len(self.rows) + len(self.rejected)


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


@dataclass(frozen=True)
class ModelState:
    """A model in one phase of the method: the base weights plus at most one adapter."""

    name: StateName
    fingerprint: str
    """Identifies base weights, adapter and everything that made it."""
    adapter: str | None = None
    """Folder of the adapter, or None for the base model as it stands."""


@dataclass(frozen=True)
class Probe:
    """One thing to measure per row in one model state; see `Readings` for the columns."""

    kind: Literal["loss", "generation", "divergence", "rate", "damage"]
    state: StateName
    objective: Objective | None = None
    """For ``rate``: what of the safe rows the direction of change lowers."""
    groups: int = 1
    """For ``rate``: into how many groups of alike rows the safe rows are parted, each with a
    direction of its own."""

    @property
    def name(self) -> str:
        """What the probe is called in stage and column names."""
        middle = f"_{self.objective}_{self.groups}" if self.objective else ""
        return f"{self.kind}{middle}_{self.state}"


@dataclass(frozen=True)
class Readings:
    """All measured values, one entry per readable row, in the order of ``row``.

    Columns by probe, where S is a model state:

    - always: ``target`` (str), ``completion_tokens`` (int)
    - ``loss`` in S: ``loss_sum_S`` (nats over all completion tokens, lower = better fitted),
      ``greedy_match_S`` (bool: each target token is the model's first choice)
    - ``generation`` in S: ``generation_S`` (str, the greedy continuation of the prompt)
    - ``divergence`` in S: ``divergence_S`` (``KL(base || S)``, nats per completion token: how far
      behaviour on the row has moved from the base model's; 0 = not at all)
    - ``damage`` in S: ``damage_S`` (``KL(base || S)`` over the safe rows, nats per token: how far
      S has moved from base's safe behaviour; the same for all rows)
    - ``rate`` of objective O in S with G groups, for each group k < G: ``rate_O_G_S_k`` (nats,
      summed over the completion: how fast the row's loss rises along minus the gradient of O over
      the safe rows of group k, per unit of that gradient) and ``step_O_G_S_k`` (the same for all
      rows: the step that would bring O to zero, see `divergence.SafeGradient.restoring_step`)
    """

    row: npt.NDArray[np.int64]
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        if column not in self.columns:
            raise KeyError(f"{column!r} was not measured; measured: {', '.join(self.columns)}")
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def loss_mean(self, state: StateName) -> FloatArray:
        """Completion loss in ``state``, nats per completion token, shape (N,)."""
        mean: FloatArray = self[f"loss_sum_{state}"] / self["completion_tokens"]
        return mean

    @property
    def learned(self) -> BoolArray:
        """Which rows the learn phase has learned, shape (N,); see `is_learned`."""
        matched: BoolArray = self["greedy_match_learned"].astype(np.bool_)
        return is_learned(self["loss_sum_base"], self["loss_sum_learned"], matched)


def is_learned(
    loss_before: FloatArray, loss_after: FloatArray, greedy_match: BoolArray
) -> BoolArray:
    """Which rows fine-tuning has learned; all arrays have shape (N,).

    A row is learned when its completion loss (nats) fell by at least half, or when every target
    token is the fine-tuned model's first choice.
    """
    return (loss_after <= 0.5 * loss_before) | greedy_match


@dataclass(frozen=True)
class SignalScores:
    """What a signal says of every readable row; all arrays have shape (N,)."""

    base: FloatArray
    """The signal's quantity in the base model."""
    before: FloatArray
    """The same quantity once the noisy rows are learned."""
    after: FloatArray | None
    """The same quantity after the forgetting run; None where a signal has no second state."""
    forgetting_score: FloatArray
    """Higher = forgotten more = suspected unsafe."""


@dataclass(frozen=True)
class Cut:
    """Where a threshold rule cuts: rows with a forgetting score strictly above ``value`` go."""

    value: float
    expected_false_removals: float | None = None
    """Expected number of clean rows among the removed ones, where the rule can say so."""
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Selection:
    """The decision on every readable row, shape (N,)."""

    cut: Cut
    is_removed: BoolArray
    reasons: Sequence[str]
    scores: FloatArray | None = None
    """What was cut, higher = suspected unsafe; None where nothing was scored."""
