"""Safe rows that pull the other way: found by what restoring does to each, set aside and named.

Restoring brings a model back to the base model on all safe rows together. What a safe row says is
what the base model says, so its loss rises as unsafe rows are learned and falls again on the way
back. A row whose loss falls as they are learned, and *rises* on the way back, is undone by the
others as an unsafe row of the noisy file is: it was planted. The safe rows are screened, so to
speak, by the very rise by which the noisy ones are.

Such rows are left out and the restorations are made once more without them. Where there are none,
nothing is computed twice and the scores are those that there were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import EncodedRow, Row
from forgetfilter.data.strata import by_share, kinds_of
from forgetfilter.model.state import phase_seed
from forgetfilter.runs.schema import Finding
from forgetfilter.scoring.records import WHOLE, Probe, StateName

if TYPE_CHECKING:  # what works a model is imported once a screen runs
    from forgetfilter.model.state import ModelState
    from forgetfilter.model.workbench import Workbench

LEAST_UNDONE = 0.25
"""Nats per root token (see the signal ``crossfit``) from which on a safe row counts as undone;
chosen on one seed of the bundled world (docs/robustness.md)."""
TIMES_SPREAD = 2.0
"""And so many robust standard deviations above the median of the safe rows, of those above it: most
rows are far below zero, which says nothing of how far an honest one may rise."""
LEAST_READ = 10
"""Safe rows from which on they are looked at: of fewer none can stand out."""
MOST_READ = 400
"""Safe rows that are looked at; of more rows the first of the order in which restoring takes them,
and where some are set aside, no other rows are used."""
SEVERE_SHARE = 0.5
"""Share of the safe rows from which on the set as a whole can't stand for safe behaviour."""
_NAMED = 10


@dataclass(frozen=True)
class SafeRows:
    """The safe rows that restoring uses, and those that it does not."""

    used: Sequence[EncodedRow]
    """What is restored on; the very rows that were given where none is set aside."""
    aside: Sequence[EncodedRow] = ()
    """Rows that pull the other way, the furthest first."""
    undone: FloatArray = field(default_factory=lambda: np.zeros(0))
    """How much of each of ``aside`` is undone, nats per root token; see `pulls_away`."""
    read: int = 0
    """How many rows were looked at."""
    unused: int = 0
    """Rows that were not looked at and are not used either, because others were set aside."""

    @property
    def are_most(self) -> bool:
        """Whether so many pull the other way that it can't be told which way is the right one."""
        return bool(self.read) and len(self.aside) >= SEVERE_SHARE * self.read


def sort_out(
    bench: Workbench, safe: Sequence[EncodedRow], states: Mapping[StateName, ModelState]
) -> SafeRows:
    """Which safe rows the restorations of ``states`` undo.

    Args:
        bench: reads their losses, one stage a state.
        safe: the safe rows.
        states: the learned and the early model, each with what it was restored to.
    """
    if len(safe) < LEAST_READ:
        return SafeRows(safe)
    order = by_share(kinds_of(safe), phase_seed(bench.seed, "restore"))[:MOST_READ]
    read = [safe[at] for at in sorted(order)]
    names = ("base", *WHOLE)
    found = bench.measure([Probe("loss", name) for name in names], states, read)
    learned, early, restored, early_restored = WHOLE
    rises = np.maximum(
        *(
            (found[f"leading_loss_{after}"] - found[f"leading_loss_{before}"])
            / found["leading_scale"]
            for before, after in ((learned, restored), (early, early_restored))
        )
    )
    gained = (found["leading_loss_base"] - found["leading_loss_learned"]) / found["leading_scale"]
    # What learning has made no likelier was taught by no row, and is no row's to be undone.
    undone = np.minimum(rises, gained)
    is_aside = pulls_away(undone)
    places = [int(at) for at in np.argsort(-undone, kind="stable") if is_aside[at]]
    aside = [read[at] for at in places]
    result = SafeRows(safe, aside, undone[places], len(read))
    if not aside or result.are_most:
        return result
    gone = {id(row) for row in aside}
    used = [row for row in read if id(row) not in gone]
    return SafeRows(used, aside, undone[places], len(read), len(safe) - len(read))


def pulls_away(undone: FloatArray) -> BoolArray:
    """Which safe rows pull the other way, shape (M,).

    Args:
        undone: what of each row was taught and undone again, nats per root token: how much its loss
            fell as the noisy rows were learned, or how much it rose as the model was restored,
            whichever is less.
    """
    found: BoolArray = undone > LEAST_UNDONE
    if not found.any():
        return found
    middle = float(np.median(undone))
    # Where half of the rows or more are undone there is no crowd to stand out from.
    if middle < LEAST_UNDONE:
        above = undone[undone > middle] - middle
        found &= undone > middle + TIMES_SPREAD * 1.4826 * float(np.median(above))
    return found


def lines_of(found: SafeRows, rows: Sequence[Row]) -> list[int]:
    """Where the rows that were set aside stand in their file, the furthest first."""
    lines = {row.row: row.line for row in rows}
    return [lines.get(row.row, row.row + 1) for row in found.aside]


def finding_of(found: SafeRows, rows: Sequence[Row]) -> list[Finding]:
    """What is to be said of the rows that were set aside; nothing where there are none.

    Args:
        found: which.
        rows: the safe rows as they were read, which know their lines.
    """
    if not found.aside:
        return []
    pairs = zip(lines_of(found, rows), found.undone, strict=True)
    listed = ", ".join(f"line {line} ({undone:.2f})" for line, undone in list(pairs)[:_NAMED])
    more = len(found.aside) - _NAMED
    listed += f" and {more:,} more" if more > 0 else ""
    one = len(found.aside) == 1
    what = (
        f"{len(found.aside):,} of {found.read:,} safe rows {'pulls' if one else 'pull'} the other "
        f"way: restoring safe behaviour undoes what {'it says' if one else 'they say'}, as it "
        f"undoes unsafe rows ({listed}; nats per root token). Expected rows that restoring brings "
        f"back, below {LEAST_UNDONE:g}."
    )
    if found.are_most:
        text = "These rows don't stand for safe behaviour. Check that it is the file you meant."
        severity = "severe"
    else:
        text = (
            f"{'It was' if one else 'They were'} set aside and the scores made without "
            f"{'it' if one else 'them'}. Read {'it' if one else 'them'}, take out what is not safe "
            "and screen again; --set restore.set_aside=false uses all rows."
        )
        severity = "warning"
    return [
        Finding(
            name="safe_rows_set_aside",
            severity=severity,
            message=f"{what} {text}",
            value=float(len(found.aside)),
        )
    ]
