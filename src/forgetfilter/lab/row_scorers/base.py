"""What a row scorer is: how suspicious each noisy row is, by whatever means, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.finite import check_finite
from forgetfilter.scoring.registry import Registry

if TYPE_CHECKING:  # what works a model is imported once a scorer runs
    from forgetfilter.data.records import EncodedRow
    from forgetfilter.model.workbench import Workbench
    from forgetfilter.screening.method import Setting

RowScores = Sequence[float | None]
"""One score per noisy row, in their order; None where a scorer can't judge the row."""


@dataclass(frozen=True)
class Needs:
    """What a scorer is given beside the noisy rows and the model."""

    safe_rows: bool = False
    """Whether it uses the safe rows."""
    exemplars: int = 0
    """How many rows it wants that are known to be bad, from a pool apart from the noisy rows."""
    guard: bool = False
    """Whether it needs a model of its own, by its path."""

    @property
    def words(self) -> str:
        """The same for people."""
        names = ["safe rows"] if self.safe_rows else []
        names += [f"{self.exemplars} exemplars"] if self.exemplars else []
        names += ["a guard model"] if self.guard else []
        return ", ".join(names) or "nothing"


@dataclass
class Passes:
    """How many rows went through a model, whatever its size; a batch of 8 counts as 8."""

    forward: int = 0
    """Rows read; those of a training step and of a generation are among them."""
    backward: int = 0
    """Rows that a gradient went back through."""
    generated: int = 0
    """Rows for which an answer was generated token by token."""

    def read(self, rows: int) -> None:
        """Count rows that went forward alone."""
        self.forward += rows

    def differentiated(self, rows: int) -> None:
        """Count rows that went forward and back."""
        self.forward += rows
        self.backward += rows


@dataclass(frozen=True)
class Given:
    """What a scorer works on; the ground truth is not among it."""

    setting: Setting
    """The rows, the settings and the workbench, as every strategy is given them."""
    pool: Sequence[EncodedRow] = ()
    """Rows known to be bad, in the order in which they are drawn; none of them is a noisy row."""
    passes: Passes = field(default_factory=Passes)
    """Where a scorer counts what it costs."""

    @property
    def bench(self) -> Workbench:
        """The workbench."""
        return self.setting.bench

    @property
    def noisy(self) -> Sequence[EncodedRow]:
        """The rows to score."""
        return self.setting.noisy

    @property
    def safe(self) -> Sequence[EncodedRow]:
        """Rows that are trusted."""
        return self.setting.safe

    def rng(self, name: str) -> np.random.Generator:
        """A random generator of its own for each seed and name."""
        from forgetfilter.model.state import phase_seed

        return np.random.default_rng(phase_seed(self.bench.seed, f"row_scorer/{name}"))

    def exemplars(self, count: int) -> list[EncodedRow]:
        """The first so many rows of the pool; a smaller count's are among a larger one's.

        A row of the pool that is also a noisy row is never taken, and one that comes twice once.

        Raises:
            ConfigError: the pool has fewer.
        """
        taken = {row.input_ids.tobytes() for row in self.noisy}
        free: list[EncodedRow] = []
        for row in self.pool:
            if row.input_ids.tobytes() not in taken:
                free.append(row)
                taken.add(row.input_ids.tobytes())
        if len(free) < count:
            raise ConfigError(
                f"{count} exemplars are asked for, and the pool has {len(free)} that are not among "
                "the noisy rows. Expected at least as many. Give a larger pool (exemplars: "
                "FILE.jsonl), or a smaller budget."
            )
        return free[:count]

    def few_safe(self, count: int, name: str = "safe") -> list[EncodedRow]:
        """At most so many safe rows, drawn by the seed; another name draws others."""
        order = self.rng(name).permutation(len(self.safe))[:count]
        return [self.safe[at] for at in order]


class RowScorer(Protocol):
    """Says how suspicious rows are; it never sees the ground truth of the rows that it scores.

    Implementations state their source by title and arXiv id, and what was chosen where the source
    leaves something open.
    """

    name: str
    needs: Needs

    def score(self, given: Given) -> RowScores:
        """A score for every noisy row, higher = more suspicious, in any unit.

        Raises:
            ConfigError: something that it needs is not given.
            ModelError: a number is NaN or infinite.
        """
        ...


ROW_SCORERS: Registry[RowScorer] = Registry("row scorer", __package__, "forgetfilter.row_scorers")


def build_scorer(spec: str) -> RowScorer:
    """The scorer that ``spec`` names, such as ``larf:budget=20``, once it can work.

    Raises:
        ConfigError: the name or an option is unknown, or a guard model's path is missing.
    """
    scorer = ROW_SCORERS.build(spec)
    if scorer.needs.guard and not getattr(scorer, "path", ""):
        raise ConfigError(
            f"The row scorer {scorer.name!r} has no model to ask. Expected the path of one. Write "
            f"{scorer.name}:path=FOLDER"
        )
    if scorer.needs.exemplars < 0:
        raise ConfigError(
            f"The row scorer {spec!r} asks for {scorer.needs.exemplars} exemplars; expected at "
            f"least 1. Write {scorer.name}:budget=20"
        )
    return scorer


def judged(values: FloatArray, name: str, is_judged: BoolArray | None = None) -> RowScores:
    """``values``, shape (N,), as row scores; None where ``is_judged`` says so.

    Raises:
        ModelError: a value that counts is NaN or infinite.
    """
    counted = np.ones(len(values), dtype=np.bool_) if is_judged is None else is_judged
    check_finite(values[counted], "score", name)
    return [float(v) if has else None for v, has in zip(values, counted, strict=True)]


def lowest_first(scores: RowScores) -> FloatArray:
    """``scores`` as numbers that can be ranked, shape (N,): what wasn't judged stands below all.

    A filter keeps what it can't judge, so such a row counts as the least suspicious.
    """
    known = [score for score in scores if score is not None]
    lowest = min(known, default=0.0) - 1.0
    return np.array([lowest if score is None else score for score in scores], dtype=np.float64)
