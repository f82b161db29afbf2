"""A verdict on the file: none, some or many unsafe rows, or that this can't be told.

It says no more than the decision knows: how many rows could be judged, how many the rule removed,
and whether the rule can tell harmless rows from unsafe ones on these scores.
"""

from __future__ import annotations

import math
import re
from typing import Any

from forgetfilter.runs.schema import Summary, Verdict
from forgetfilter.scoring.records import Cut
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN
from forgetfilter.scoring.thresholds import reads_decisions
from forgetfilter.scoring.thresholds.base import HARMLESS_AT_MOST, RANKS, ROWS_NEEDED

MANY_SHARE = 0.1
"""Removed share of the judged rows from which it is "many": a convention, not a measurement."""
LEAST_LEARNED = 0.5
"""Learned share of the readable rows below which an empty result says nothing of the file."""
NOISY = 0.03
"""Noise of the scores (a note of the rule `valley`, nats per root token) beyond that of the files
that the rule was chosen on (0.027 at most). Mixes of real rows have 0.035 and 0.046, and nearly all
of their unsafe rows are kept (docs/lab/transfer.md). Where many rows are removed all the same, the
unsafe ones make the noise themselves: a made-up file with 0.052 was decided without an error."""
_NOISY_OF = {"contradiction": 0.02}
"""The same of signals whose evidence is quieter, by what names it: made-up files of which less
than a tenth is removed have 0.011 at most, and 120 real rows 0.030."""

_DOUBTS = frozenset(
    {
        "noisy_rows_unknown",
        "safe_rows_unknown",
        "safe_behaviour_changed",
        "changed_as_a_whole",
        "learned_by_heart",
        "rows_not_learned",
        "few_rows_drawn",
    }
)
"""Findings on the scores, each of which is reason enough not to conclude anything from silence."""

_MEASURED = {
    (
        "contradiction",
        "valley:least=0.015,quiet=0.001,growth=0.8,most=0.3,widest=2.5,spread=10,noise=kept,hill=true",
    ): (
        18_500,
        20,
        "eighteen clean files of made-up worlds, small models, nine of them files that the rule "
        "was chosen on; of real text not measured",
    ),
    ("crossfit", "valley"): (
        15_000,
        18,
        "fifteen clean files of made-up worlds, small models, three of them files that the rule "
        "was chosen on; of real text 20 of 1,200 rows in three files, 135M model",
    ),
}
"""Of a signal and its rule: harmless rows, and how many of them were removed, in files without an
unsafe row (docs/lab/transfer.md). At 95% 20 of 18,500 is a rate of 0.07% to 0.17% for such rows
(eight are of one file), and 18 of 15,000, all in one world, one of 0.08% to 0.19%. Keep the figures
to what is measured."""


def judge_file(summary: Summary, cut: Cut, *, trusted: int = 0) -> Verdict:
    """The verdict on a decided file.

    Args:
        summary: counts, learned share and whether it was decided; its own verdict is not read.
        cut: where the rule has cut, and what it says of that.
        trusted: how many of the judged rows are trusted, and kept whatever they score.
    """
    # Of a file that is half trusted rows the other half may be bad throughout.
    judged = (summary.judged or 0) - trusted
    level, reason, message = _level(summary, judged, cut)
    told: dict[str, Any] = {"level": level, "reason": reason, "message": message}
    measured = _MEASURED.get((summary.signal, summary.threshold.rule))
    # All rows of those files were learned, and forgetting alone decided.
    if measured and not summary.joint and summary.learned_rows is None:
        told |= dict(zip(("clean_rows", "clean_removed", "clean_files"), measured, strict=True))
    return Verdict.model_validate(told)


def _level(summary: Summary, judged: int, cut: Cut) -> tuple[str, str, str]:
    removed = _removed_by_rule(summary)
    unsure = _why_unsure(summary, judged, cut)
    if unsure:
        return "cannot_tell", *unsure
    if not removed:
        return (
            "none",
            "nothing_stands_out",
            f"None of the {judged:,} rows that could be judged stands out. That is no proof: harms "
            "that the safe rows don't speak against, and rare rows, can be missed.",
        )
    is_many = removed / judged >= MANY_SHARE
    level, bound = ("many", "at least") if is_many else ("some", "below")
    message = (
        f"{removed:,} of the {judged:,} rows that could be judged stand out "
        f"({_share(removed, judged)}, {bound} the {MANY_SHARE:.0%} that counts as many)."
    )
    if cut.expected_false_removals is not None:
        expected = cut.expected_false_removals
        few = "fewer than one" if expected < 1 else f"about {expected:.0f}"
        ends = cut.notes.get("harmless_range")
        few += f" ({ends[0]} to {ends[1]})" if ends else ""
        message += f" The rule expects {few} of them to be harmless"
        most = float(cut.notes.get(HARMLESS_AT_MOST, 0.0))
        if most > max(expected, 1.0):
            message += f", or up to {math.ceil(most):,} if harmless scores have a long tail"
        message += "."
    return level, "rows_stand_out", message


def _removed_by_rule(summary: Summary) -> int:
    """How many rows the rule alone removes: what people decided says nothing of the others."""
    people = summary.overruled
    return summary.removed + (people.kept_instead - people.removed_instead if people else 0)


def _why_unsure(summary: Summary, judged: int, cut: Cut) -> tuple[str, str] | None:
    """Why nothing can be said of the file as a whole: identifier and words; None where it can."""
    removed, readable = _removed_by_rule(summary), summary.rows - summary.rejected
    learned = summary.learned_share or 0.0
    if not readable:
        return "no_rows", "No row could be used, so nothing was screened."
    if not summary.is_decided:
        return "undecided", "The scores can't be trusted, so nothing was decided."
    if severe := [found.name for found in summary.findings if found.severity == "severe"]:
        return (
            "untrusted_scores",
            f"It was decided by force although the scores can't be trusted: {_words(severe)}.",
        )
    if cut.fixes_share:
        return (
            "fixed_share",
            f"The rule {summary.threshold.rule} removes the share that was asked for, whatever the "
            "rows are. The most forgotten ones are those to look at.",
        )
    if not judged or (not removed and learned < LEAST_LEARNED):
        return (
            "few_learned",
            f"Only {learned:.0%} of the rows were learned, and what was not learned can't be "
            "forgotten. That nothing stands out says nothing of the others.",
        )
    doubts = [found.name for found in summary.findings if found.name in _DOUBTS]
    if not removed and doubts:
        return (
            "doubtful_scores",
            f"Nothing stands out, but there is reason to doubt the scores: {_words(doubts)}.",
        )
    noise = summary.threshold_notes.get("noise")
    quiet = min(_NOISY_OF.get(name, NOISY) for name in re.split("[:=,]", summary.signal))
    is_noisy = isinstance(noise, float) and noise > quiet
    if is_noisy and removed < MANY_SHARE * judged:
        return (
            "noisy_scores",
            f"The scores are noisier ({noise:.2g}) than in the files that the rule was chosen on "
            f"({quiet:g} or less), so it cuts far out, and unsafe rows may lie below."
            + _next_step(summary),
        )
    if cut.lacks_estimate and not removed:
        return "rule_cannot_tell", _why_nothing_goes(cut)
    if cut.lacks_estimate:
        return (
            "mingled",
            f"{removed:,} of the {judged:,} judged rows stand out, but near the threshold unsafe "
            "and harmless rows are mingled, so the rule can't say how many are harmless, or were "
            "missed. Read them." + _next_step(summary),
        )
    if removed and (cut.expected_false_removals or 0.0) >= removed / 2:
        return (
            "mostly_expected",
            f"The rule expects about {max(1, round(cut.expected_false_removals or 0.0)):,} of the "
            f"{removed:,} removed rows to be harmless ones that went too far by chance.",
        )
    return None


def _why_nothing_goes(cut: Cut) -> str:
    """Why a rule that can't tell has removed nothing."""
    if cut.notes.get(RANKS) is False:
        return (
            "The rule removed nothing: of the rows that people decided, those to remove don't "
            "score higher than those to keep, so no cut follows from them. Decide more rows, in "
            "the order 'Spread over the scores' of `forgetfilter review RUN`, or name another rule."
        )
    needed, there = cut.notes.get(ROWS_NEEDED), cut.notes.get("trusted_rows")
    if needed is not None and there is not None:
        return (
            f"The rule removed nothing: it compares rows with trusted ones, of which {there:,} "
            f"could be judged. Expected at least {needed:,} for its rate. Screen with more rows as "
            "--trusted-data, or name a higher rate or another rule."
        )
    return "The rule removed nothing, and can't tell whether any row should go. Name another rule."


def _next_step(summary: Summary) -> str:
    """What ranks mingled rows better, or where that was done says where to cut them."""
    if reads_decisions(summary.threshold.rule):
        return ""
    given = summary.second_opinion
    is_likeness = given is not None and given.kind == "known_unsafe"
    can_join = summary.unit == NATS_PER_ROOT_TOKEN
    if is_likeness or not can_join:
        return (
            " Read twenty rows with `forgetfilter review RUN`, in the order 'Spread over the "
            "scores', decide them, and cut with `forgetfilter filter RUN --threshold reviewed"
            f"{' --joint reviewed' if is_likeness and can_join else ''}`."
        )
    return (
        " Read ten rows with `forgetfilter review RUN`, in the order 'Most forgotten, unlike each "
        "other', remove the unsafe ones, and screen again with --second-opinion known_unsafe:RUN "
        "--joint 1, which trains nothing; then ten more."
    )


def _share(count: int, of_all: int) -> str:
    """A share in words, never rounded up to the bound that it lies below."""
    return f"{count * 1000 // of_all / 10:.1f}%"


def _words(names: list[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)
