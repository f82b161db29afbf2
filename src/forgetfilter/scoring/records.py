"""What is measured of each row, what is made of it, and who goes. Pure: no model, no disk."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import BoolArray, FloatArray

StateName = Literal[
    "base",
    "early",
    "learned",
    "forgotten",
    "restored",
    "early_restored",
    "half_a",
    "half_a_early",
    "half_a_restored",
    "half_a_early_restored",
    "half_b",
    "half_b_early",
    "half_b_restored",
    "half_b_early_restored",
    "retrained",
    "prepared",
    "repaired",
]
"""``early`` is the learn phase after its first passes; ``half_a`` and ``half_b`` have learned half
of the rows each; the others are named after the phase that ends there."""

WHOLE: tuple[StateName, StateName, StateName, StateName] = (
    "learned",
    "early",
    "restored",
    "early_restored",
)
"""After the learn phase on all rows, after its first passes, and either of them restored."""
HALVES: tuple[tuple[StateName, StateName, StateName, StateName], ...] = (
    ("half_a", "half_a_early", "half_a_restored", "half_a_early_restored"),
    ("half_b", "half_b_early", "half_b_restored", "half_b_early_restored"),
)
"""The same for each half of the rows."""

TRUSTED = "is_trusted"
"""Column of the readings: whether a row comes from ``trusted_data`` (bool); only where some do."""

REVIEWED = "reviewed"
"""What people decided, for rules that read it: 1 to remove, 0 to keep, -1 nothing that counts
(int); never stored with the readings."""

SAMPLED = "is_sampled"
"""Column of the readings: whether a row was drawn for the learn phase (bool); only where that was
given a sample of the rows (``learn.max_rows``)."""

EVIDENCE = "evidence"
"""Column of the readings: `SignalScores.evidence`, of signals that tell it."""

ALONE = "alone"
"""Column of the readings: `SignalScores.alone`, of signals that tell it."""

NEIGHBOURS = 4
"""How many of the most alike rows are found for each row, and how many safe rows."""

Objective = Literal["completion_loss", "kl_to_base"]
"""What is lowered over the safe rows: their loss, or their divergence from the base model."""


@dataclass(frozen=True)
class Probe:
    """One thing to measure per row in one model state; see `Readings` for the columns."""

    kind: Literal[
        "loss",
        "generation",
        "divergence",
        "rate",
        "damage",
        "neighbours",
        "likeness",
        "own_likeness",
        "text_likeness",
        "forgotten_likeness",
        "removed_likeness",
        "safe_neighbours",
        "unsafe_likeness",
    ]
    state: StateName
    objective: Objective | None = None
    """For ``rate``: what of the safe rows the direction of change lowers."""
    groups: int = 1
    """For ``rate``: into how many groups of alike rows the safe rows are parted, each with a
    direction of its own."""
    evidence: str = "crossfit"
    """For ``forgotten_likeness`` and ``removed_likeness``: the signal that says which rows are
    forgotten most; what it needs is measured before."""

    @property
    def name(self) -> str:
        """What the probe is called in stage and column names."""
        middle = f"_{self.objective}_{self.groups}" if self.objective else ""
        return f"{self.kind}{middle}_{self.state}"


@dataclass(frozen=True)
class Readings:
    """All measured values, one entry per readable row, in the order of ``row``.

    Columns by probe, where S is a model state:

    - always: ``target`` (str), ``completion_tokens`` (int), ``guessing`` (what guessing at random
      costs, nats a token: the logarithm of the vocabulary's size; the same for all rows)
    - of a screen with trusted rows: ``is_trusted`` (bool)
    - of a screen that learned a sample of the rows: ``is_sampled`` (bool)
    - of a signal by which evidence counts more or less: ``evidence`` (in the scores' unit, before
      it is counted)
    - of a signal by which rows count less that are unlike those which stand out: ``alone`` (the
      score before that)
    - ``loss`` in S: ``loss_sum_S`` (nats over all completion tokens, lower = better fitted),
      ``greedy_match_S`` (bool: each target token is the model's first choice), ``leading_loss_S``
      (nats, summed with weights that fall from the first token of each answer on; the square root
      of the sum of their squares is the column ``leading_scale``, measured always)
    - ``generation`` in S: ``generation_S`` (str, the greedy continuation of the prompt)
    - ``divergence`` in S: ``divergence_S`` (``KL(base || S)``, nats per completion token: how far
      behaviour on the row has moved from the base model's; 0 = not at all)
    - ``damage`` in S: ``damage_S`` (``KL(base || S)`` over the safe rows, nats per token: how far
      S has moved from base's safe behaviour; the same for all rows)
    - ``neighbours`` in S: ``neighbour_k_S`` for each k < 4 (the ``row`` whose answer S represents
      most alike, second most and so on; its own where there are too few others)
    - ``likeness`` in S: ``likeness_S`` (log odds: how much the row's prompt, as S represents it, is
      like the prompts of the safe rows; higher = more)
    - ``own_likeness`` in S: ``own_likeness_S`` (log odds: how much what S would answer itself is
      like what it answers to the prompts of the safe rows; higher = more)
    - ``text_likeness`` in S: ``own_text_likeness_S`` (log odds: the same of those answers read as
      texts, without what they answer) and ``given_text_likeness_S`` (of the row's own answer)
    - ``forgotten_likeness`` in S: ``forgotten_likeness_S`` (log odds: how much the row, as S
      represents it, is like the rows with the most evidence of `Probe.evidence`; higher = more)
    - ``removed_likeness`` in S: ``removed_likeness_S`` (log odds: the same of the rows that stand
      out furthest above that signal's own cut; all 0 where fewer than a tenth stand out)
    - ``unsafe_likeness`` in S: ``unsafe_likeness_S`` (0 to 1: the row's answer, as S
      represents it, and one known to be unsafe, by their cosine, the largest; higher = more)
    - ``safe_neighbours`` in S: ``safe_neighbour_k_S`` for each k < 4 (the ``row`` of the safe file
      whose prompt S represents most like this row's, second most and so on, all of one category)
    - ``rate`` of objective O in S with G groups, for each group k < G: ``rate_O_G_S_k`` (nats,
      summed over the completion: how fast the row's loss rises along minus the gradient of O over
      the safe rows of group k, per unit of that gradient) and ``step_O_G_S_k`` (the same for all
      rows: the step that would bring O to zero, see `divergence.SafeGradient.restoring_step`)
    """

    row: npt.NDArray[np.int64]
    columns: Mapping[str, npt.NDArray[Any]]
    added: FloatArray | float = 0.0
    """What of the scores that a rule is given is no evidence of forgetting: a second opinion's."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        if column not in self.columns:
            raise KeyError(f"{column!r} was not measured; measured: {', '.join(self.columns)}")
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def uncounted(self, scores: FloatArray) -> FloatArray:
        """``scores`` as they would be if all evidence counted alike, shape (N,)."""
        return self[EVIDENCE] + self.added if EVIDENCE in self else scores

    def alone(self, scores: FloatArray) -> FloatArray:
        """``scores`` as they would be if no row were held against those that stand out; (N,)."""
        return self[ALONE] + self.added if ALONE in self else scores

    def loss_mean(self, state: StateName) -> FloatArray:
        """Completion loss in ``state``, nats per completion token, shape (N,)."""
        mean: FloatArray = self[f"loss_sum_{state}"] / self["completion_tokens"]
        return mean

    def neighbours(self, state: StateName) -> npt.NDArray[np.int64]:
        """Positions of each row's most alike rows in ``state``, nearest first, shape (N, 4)."""
        positions = np.empty((len(self), NEIGHBOURS), dtype=np.int64)
        order = np.argsort(self.row)
        ascending = self.row[order]
        for k in range(NEIGHBOURS):
            rows = self[f"neighbour_{k}_{state}"]
            positions[:, k] = order[np.searchsorted(ascending, rows)]
        return positions

    @property
    def learned(self) -> BoolArray:
        """Which rows the learn phase has learned, shape (N,); see `is_learned`."""
        matched: BoolArray = self["greedy_match_learned"].astype(np.bool_)
        most = None
        if "guessing" in self:
            most = self["guessing"] * self["completion_tokens"]
        return is_learned(self["loss_sum_base"], self["loss_sum_learned"], matched, most)

    @property
    def was_given(self) -> BoolArray:
        """Which rows the learn phase was given, shape (N,): all, unless it learned a sample."""
        if SAMPLED in self:
            return self[SAMPLED].astype(np.bool_)
        return np.ones(len(self), dtype=np.bool_)

    @property
    def trusted(self) -> BoolArray:
        """Which rows are kept whatever they score, shape (N,): none, unless some were named."""
        if TRUSTED in self:
            return self[TRUSTED].astype(np.bool_)
        return np.zeros(len(self), dtype=np.bool_)

    @property
    def learned_share(self) -> float:
        """Share of the rows given to the learn phase that it has learned; 0 where there are none.

        What it has learned of others, it has learned of their kind.
        """
        given = self.learned[self.was_given]
        return float(given.mean()) if len(given) else 0.0


def is_learned(
    loss_before: FloatArray,
    loss_after: FloatArray,
    greedy_match: BoolArray,
    guessing: FloatArray | None = None,
) -> BoolArray:
    """Which rows fine-tuning has learned; all arrays have shape (N,).

    A row is learned when its completion loss (nats) fell by at least half, and below what guessing
    at random would cost it where that is given (``guessing``, nats); or when every target token is
    the fine-tuned model's first choice.
    """
    is_halved = loss_after <= 0.5 * loss_before
    if guessing is not None:
        is_halved &= loss_after < guessing
    return is_halved | greedy_match


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
    evidence: FloatArray | None = None
    """The score before it counts more or less, in its unit, by which `valley` tells how noisy it
    is; None where that is told by the score itself."""
    alone: FloatArray | None = None
    """The score before rows count less that are unlike those which stand out, in its unit, by which
    `valley` places its cut; None where no row is held against others so."""


def with_evidence(readings: Readings, scores: SignalScores) -> Readings:
    """The same with the columns ``evidence`` and ``alone``, where the signal tells them."""
    told = {EVIDENCE: scores.evidence, ALONE: scores.alone}
    own = {name: values for name, values in told.items() if values is not None}
    if not own:
        return readings
    return replace(readings, columns=ChainMap(own, cast(Any, readings.columns)))


@dataclass(frozen=True)
class Cut:
    """Where a threshold rule cuts: rows with a forgetting score strictly above ``value`` go."""

    value: float
    expected_false_removals: float | None = None
    """Expected number of clean rows among the removed ones, where the rule can say so."""
    lacks_estimate: bool = False
    """Whether the rule estimates that number as a rule, but can't on these scores."""
    fixes_share: bool = False
    """Whether the share of removed rows was asked for, whatever the scores."""
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Selection:
    """The decision on every readable row, shape (N,)."""

    cut: Cut
    is_removed: BoolArray
    reasons: Sequence[str]
    scores: FloatArray | None = None
    """What was cut, higher = suspected unsafe; None where nothing was scored."""
