"""Fitness checks: whether the scores of a screen can be trusted, said before anybody reads them.

A forgetting score compares losses. It means something only if the model knows what it reads, if the
rows were learned, and if the way back to safe behaviour undoes the unsafe rows rather than all that
was learned. Each check looks at one of these and returns a `Finding` where it does not hold. After
a severe one the scores are kept and nothing is decided, unless it is asked for (``--force``).

No label is read. But for one pass of the base model over at most 200 safe rows, all figures come
from readings that a screen takes anyway. The bounds stand beside
what they were seen to separate: screens of the bundled world from 0% to 30% unsafe rows, and the
same model screening 100 rows of English, a language that it has never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.strata import damage_rows
from forgetfilter.errors import UnfitError
from forgetfilter.runs.file_names import REPORT_FILE
from forgetfilter.runs.schema import Finding
from forgetfilter.scoring.records import SAMPLED, Probe, Readings, Selection, SignalScores
from forgetfilter.scoring.signals import SIGNALS, needs_learned
from forgetfilter.screening.checks.coverage_verdict import WHOLESALE_DAMAGE, Coverage
from forgetfilter.text import printable

if TYPE_CHECKING:
    from forgetfilter.screening.method import Scored, Setting

UNKNOWN_SHARE = 0.75
UNKNOWN_SHARE_SEVERE = 1.25
"""Median base loss, as a share of guessing's (the logarithm of the vocabulary). The bundled model:
0.16 on its own world, 2.5 on English; a model that was never trained: 1.0, and it removes nothing,
because it has no habits to go back to."""
FEW_LEARNED = 0.5
HARDLY_LEARNED = 0.05
"""Learned share of the scored rows. The bundled world: 0.87 to 0.90."""
FORGOTTEN_QUARTILE = 0.1
FORGOTTEN_QUARTILE_SEVERE = 0.3
"""Share of what it had learned that the least forgotten quarter of the learned rows lost again. The
bundled world: 0.001 at most; English: 0.63."""
BY_HEART = 0.5
"""Share of what a model gains on its own rows that a model of other rows does not. Drawn worlds:
0.02 to 0.19; 150 to 300 rows of real English in a 135M model: 0.90 to 0.97
(docs/lab/transfer.md)."""
LEAST_GAINED = 0.05
"""In the unit of what is compared, nats a token as a rule. Where less is learned, shares of it are
noise."""
MOST_REMOVED = 0.6
"""Share of the scored rows that is plausible to remove. Of files of which half are unsafe up to
0.51 are removed by the default and 0.54 by `crossfit` (docs/lab/transfer.md)."""
FEW_DRAWN = 200
"""Rows given to the learn phase, where it learns a sample, below which little is found."""
LEAST_SHARED = 0.5
"""Share of the tokens of the noisy rows' answers that occur in some safe row's answer."""

OF_A_DECISION = frozenset({"most_rows_removed", "no_estimate"})
"""Findings about a decision; the others are about the scores, whatever is decided by them."""


def is_severe(findings: Sequence[Finding]) -> bool:
    """Whether some finding forbids a decision that nobody has asked for."""
    return any(finding.severity == "severe" for finding in findings)


def unfit(run: Path | None, findings: Sequence[Finding]) -> UnfitError:
    """The error that ends a command after severe findings.

    Args:
        run: folder of the run that keeps the scores; None where nothing has been scored yet.
        findings: all of them.
    """
    severe = [found for found in findings if found.severity == "severe"]
    listed = "".join(f"\n  {found.name}: {found.message}" for found in severe)
    rest = (
        "Nothing was trained. Mend it and repeat the command; --force goes on all the same."
        if run is None
        else f"The scores are kept; {printable(str(run / REPORT_FILE), 300)} shows them. Mend it "
        "and repeat the command (what is finished is used again), or read the report and decide "
        "all the same with --force."
    )
    return UnfitError(f"The scores can't be trusted, so nothing was decided:{listed}\n{rest}")


def check_before(setting: Setting) -> list[Finding]:
    """What can be said before anything is trained: whether the model knows both kinds of row."""
    bench, seed = setting.bench, setting.config.seed
    sample = damage_rows(setting.safe, seed)
    # All of them are read in base anyway, unless the learn phase keeps what it sees of them.
    noisy = damage_rows(setting.noisy, seed) if setting.config.learn.keeps_losses else setting.noisy
    findings: list[Finding] = []
    for which, rows in (("noisy", noisy), ("safe", sample)):
        found = bench.measure((Probe("loss", "base"),), {"base": bench.base}, rows)
        tokens = found["completion_tokens"]
        findings += check_known(which, found["loss_sum_base"], tokens, bench.guessing)
    return [*findings, *check_alike(setting.noisy, setting.safe)]


def check_scores(scored: Scored) -> list[Finding]:
    """What can be said of the scores themselves, whatever is decided by them."""
    judges_learned = needs_learned(SIGNALS.build(scored.signal))
    return [
        *(check_learned(scored.readings) if judges_learned else []),
        *check_drawn(scored.readings),
        *check_selective(scored.readings, scored.scores),
        *check_by_heart(scored.readings),
    ]


def check_coverage(coverage: Coverage) -> list[Finding]:
    """Whether learning has changed the behaviour on safe rows of every kind."""
    damage = coverage.wholesale_damage
    if damage is None:
        return []
    return [
        Finding(
            name="safe_behaviour_changed",
            severity="severe",
            message="Learning has changed the model's behaviour on safe rows of every kind, by "
            f"{damage:.2g} nats a token or more. Expected below {WHOLESALE_DAMAGE:g}: harmless "
            "rows are forgotten with the unsafe ones. Learn for fewer epochs "
            "(--set learn.num_train_epochs) or at a lower rate (--set learn.learning_rate).",
            value=damage,
        )
    ]


def check_known(
    which: str, loss_sum: FloatArray, tokens: FloatArray, guessing: float
) -> list[Finding]:
    """Whether the base model knows the language of some rows; before anything is trained.

    Args:
        which: of the rows: ``noisy`` or ``safe``.
        loss_sum: completion loss in the base model, nats, shape (N,).
        tokens: completion tokens, shape (N,).
        guessing: loss of guessing at random, nats a token: the logarithm of the vocabulary's size.
    """
    if not len(loss_sum):
        return []
    median = float(np.median(loss_sum / tokens))
    if median < UNKNOWN_SHARE * guessing:
        return []
    return [
        Finding(
            name=f"{which}_rows_unknown",
            severity="severe" if median >= UNKNOWN_SHARE_SEVERE * guessing else "warning",
            message=f"The base model does not know the language or form of the {which} rows: half "
            f"of them cost it {median:.1f} nats a token or more, and guessing at random costs "
            f"{guessing:.1f}. Expected well below {UNKNOWN_SHARE * guessing:.1f}. Use a model that "
            f"was trained on such text, or {which} rows in a language that this one knows.",
            value=median,
        )
    ]


def check_alike(noisy: Sequence[EncodedRow], safe: Sequence[EncodedRow]) -> list[Finding]:
    """Whether the safe rows are written like the noisy ones, by the tokens of their answers."""
    if not noisy or not safe:
        return []
    known = np.unique(np.concatenate([row.input_ids[row.is_target] for row in safe]))
    is_known = np.zeros(int(known[-1]) + 1, dtype=np.bool_)
    is_known[known] = True
    met = shared = 0
    for row in noisy:
        own = row.input_ids[row.is_target]
        met += len(own)
        shared += int(np.count_nonzero(is_known[own[own < len(is_known)]]))
    share = shared / met
    if share >= LEAST_SHARED:
        return []
    return [
        Finding(
            name="safe_rows_unlike",
            severity="warning",
            message=f"The safe rows are unlike the noisy ones: only {share:.0%} of the tokens of "
            "the noisy rows' answers occur in some safe row's. Expected at least "
            f"{LEAST_SHARED:.0%}. Give safe rows in the language and form of your own data "
            "(--safe-data).",
            value=share,
        )
    ]


def check_learned(readings: Readings) -> list[Finding]:
    """Whether enough of the rows that the learn phase was given were learned."""
    if not len(readings):
        return []
    share = readings.learned_share
    if share >= FEW_LEARNED:
        return []
    which, so = "scored rows", "can't be judged and is kept, whatever it says"
    if SAMPLED in readings:
        which, so = (
            "rows drawn for the learn phase",
            "has nothing to lose, so its score says little",
        )
    return [
        Finding(
            name="rows_not_learned",
            severity="severe" if share < HARDLY_LEARNED else "warning",
            message=f"Only {share:.1%} of the {which} were learned. A row that was not learned "
            f"{so}. Expected at least {FEW_LEARNED:.0%}. "
            "Learn for longer (--set learn.num_train_epochs) or at another rate "
            "(--set learn.learning_rate).",
            value=share,
        )
    ]


def check_drawn(readings: Readings) -> list[Finding]:
    """Whether a sample that the learn phase was given is large enough to say something."""
    drawn = int(readings.was_given.sum())
    if SAMPLED not in readings or drawn >= FEW_DRAWN:
        return []
    return [
        Finding(
            name="few_rows_drawn",
            severity="warning",
            message=f"Only {drawn:,} of {len(readings):,} rows were learned (learn.max_rows). "
            f"Expected at least {FEW_DRAWN:,}: a kind of row of which hardly any was learned is "
            "hardly forgotten either, and is kept. Give a larger --set learn.max_rows, or leave it "
            "out.",
            value=float(drawn),
        )
    ]


def check_by_heart(readings: Readings) -> list[Finding]:
    """Whether what is learned of a row is learned of its kind, or of that row alone.

    Needs the readings of `crossfit`: the loss of each row in two models, one of which has not seen
    it. Rows that neither has seen tell nothing of that.
    """
    own = ("loss_sum_half_a", "loss_sum_half_b")
    given = readings.was_given
    if not given.any() or any(name not in readings for name in own):
        return []
    base = readings.loss_mean("base")[given]
    losses = np.stack([readings.loss_mean(half)[given] for half in ("half_a", "half_b")])
    seen, unseen = losses.min(axis=0).mean(), losses.max(axis=0).mean()
    gained = float(base.mean() - seen)
    share = float(unseen - seen) / gained if gained > 0 else 0.0
    if gained < LEAST_GAINED or share < BY_HEART:
        return []
    return [
        Finding(
            name="learned_by_heart",
            severity="warning",
            message=f"Rows were learned by heart: {min(share, 1.0):.0%} of what a model gains on "
            "its own rows is not gained by one that learned other rows of the file. Expected at "
            f"most {BY_HEART:.0%}: what is no habit of the model is hardly taken back with its "
            "habits, so unsafe rows move little and scores are noisy. Screen more rows together, "
            "learn for fewer epochs (--set learn.num_train_epochs), or use a larger model.",
            value=share,
        )
    ]


def check_selective(readings: Readings, scores: SignalScores) -> list[Finding]:
    """Whether the way back to safe behaviour has undone some rows, not all that was learned.

    Looks at the rows that were screened, not at reference rows: the quarter of the learned rows
    that was forgotten least should have kept what it had learned.
    """
    if scores.after is None:
        return []
    learned = scores.base - scores.before
    lost = scores.after - scores.before
    # A loss falls while a row is learned and a similarity rises: the ratio is the same for both.
    # Of a row that base knows already, next to nothing was learned, and all of that may be lost.
    told = readings.learned & (np.abs(learned) > LEAST_GAINED)
    if not told.any():
        return []
    share = float(np.quantile(lost[told] / learned[told], 0.25))
    if share < FORGOTTEN_QUARTILE:
        return []
    return [
        Finding(
            name="changed_as_a_whole",
            severity="severe" if share >= FORGOTTEN_QUARTILE_SEVERE else "warning",
            message="Learning has changed the model as a whole: on the way back to safe behaviour "
            f"even the least forgotten quarter of the learned rows lost {share:.0%} or more of "
            f"what it had learned. Expected below {FORGOTTEN_QUARTILE:.0%}: harmless rows are "
            "forgotten with the unsafe ones. Learn at a lower rate (--set learn.learning_rate) or "
            "for fewer epochs (--set learn.num_train_epochs).",
            value=share,
        )
    ]


def check_decision(
    selection: Selection, is_judged: BoolArray, is_trusted: BoolArray
) -> list[Finding]:
    """Whether a decision is plausible, and whether its false removals can be estimated.

    Args:
        selection: the decision.
        is_judged: which rows could be judged, shape (N,).
        is_trusted: which rows are kept whatever they score, shape (N,): of those nothing follows.
    """
    count, removed = int((~is_trusted).sum()), int(selection.is_removed.sum())
    findings: list[Finding] = []
    if removed > MOST_REMOVED * count and not selection.cut.fixes_share:
        findings.append(
            Finding(
                name="most_rows_removed",
                severity="severe",
                message=f"The threshold would remove {removed:,} of {count:,} scored rows. "
                f"Expected at most {MOST_REMOVED:.0%}: either the scores say nothing about these "
                "rows, or the file is too unsafe to be filtered row by row. Read the most "
                "forgotten rows in the report; then name a higher threshold "
                "(--threshold phi:VALUE) or a share (--threshold fraction:0.1).",
                value=removed / count,
            )
        )
    if removed and selection.cut.lacks_estimate:
        judged = int((is_judged & ~is_trusted).sum())
        findings.append(
            Finding(
                name="no_estimate",
                severity="warning",
                message="How many harmless rows are among the removed ones can't be estimated: "
                f"{judged - removed:,} of {judged:,} judged rows lie below the threshold, but "
                "not where the harmless ones end. Expected most of them far below "
                "it. Read the removed rows before you drop them.",
                value=(judged - removed) / judged,
            )
        )
    return findings
