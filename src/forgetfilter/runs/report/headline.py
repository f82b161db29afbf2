"""What a run has come to, in sentences: the same on the page, in report.json and in a terminal."""

from __future__ import annotations

from forgetfilter.runs.report.shown_text import count
from forgetfilter.runs.schema import Summary

VERDICTS = {
    "none": "no unsafe row found",
    "some": "some unsafe rows",
    "many": "many unsafe rows",
    "cannot_tell": "can't tell",
}
"""The levels of a verdict in words."""

_FEW_LEARNED = 0.5

_BACK = "is then taken back to the original model's behaviour on the safe rows"
_METHODS = {
    "crossfit": "Three copies of the model learn the rows, one all of them and two a half each; "
    f"each {_BACK}, and rows are suspected that are forgotten on the way, they and the rows most "
    "like them.",
    "restoration": f"The model learns all rows and {_BACK}; rows that are forgotten on the way are "
    "suspected.",
    "completion_loss": "The model learns all rows and is then trained on the safe rows alone; rows "
    "that are forgotten on the way are suspected.",
}
_METHODS["rouge1"] = _METHODS["completion_loss"]
_METHODS["contradiction"] = (
    f"{_METHODS['crossfit']} What the copy says that has learned all rows is half of it. "
    "Forgetting counts more for rows that contradict what the original model would answer itself, "
    "where it answers as it does to the safe rows."
)
_UNLIKE_OTHERS = (
    "Where a tenth of the rows or more stand out, it counts less for rows that are unlike those, "
    "as a classifier says that was trained on the clearest rows of this file."
)
_OF_A_KIND = (
    "Forgetting counts more for rows of a kind that is forgotten, as a classifier says that was "
    "trained on the clearest rows of this file."
)
_ANY_METHOD = (
    "The model learns all rows and is then turned back towards safe behaviour; rows that are "
    "forgotten on the way are suspected."
)


UNSCORED = {
    "reasoning": "the reasoning of an answer; only what it shows is learned and scored",
    "system": "the system text; the rest is learned and scored",
    "answer": "an earlier answer, which it doesn't mark as generated; the others are scored",
}
"""What a chat template may leave out of a row, in words."""


def unscored_lines(summary: Summary) -> list[str]:
    """Of how many rows the chat template leaves out what; empty where it shows all."""
    return [
        f"Of {count(rows, 'row')} the chat template leaves out {UNSCORED.get(name, name)}."
        for name, rows in summary.unscored.items()
        if rows
    ]


def method(summary: Summary) -> str:
    """How the rows were judged, in one plain sentence."""
    name, _, options = summary.signal.partition(":")
    if name == "self_training":
        told = _METHODS["contradiction" if "contradiction" in options else "crossfit"]
        told += f" {_OF_A_KIND}"
    else:
        told = _METHODS.get(name, _ANY_METHOD)
        if name == "contradiction" and "kinds=false" not in options:
            told += f" {_UNLIKE_OTHERS}"
    if summary.learned_rows is not None:
        told += (
            f" What they learn is a sample of {count(summary.learned_rows, 'row')}, drawn by the "
            "seed; all rows are scored."
        )
    if summary.joint:
        is_likeness = summary.second_opinion and summary.second_opinion.kind == "known_unsafe"
        said = (
            "How like each answer is to rows known to be unsafe"
            if is_likeness
            else "What a text classifier says of each row"
        )
        told += f" {said} is added to that, as a second opinion."
    return told


def headline(summary: Summary, judged: int) -> str:
    """What the run has come to, in one sentence.

    Args:
        summary: of the run.
        judged: how many rows could be judged.
    """
    s = summary
    readable = s.rows - s.rejected
    if not s.rows:
        return "There are no rows in this run."
    if not readable:
        whole = "The only row" if s.rows == 1 else f"None of the {s.rows:,} rows"
        return f"{whole} could {'not ' if s.rows == 1 else ''}be used, so nothing was screened."
    unused = f"{s.rejected:,} could not be used."
    if not s.is_decided:
        return (
            f"Nothing was decided: the scores of {count(s.undecided, 'row')} can't be trusted. "
            f"{unused}"
        )
    rest = f"{s.kept:,} {_are(s.kept)} kept; {unused}"
    removed = f"{'looks' if s.removed == 1 else 'look'} unsafe and {_were(s.removed)} removed"
    if judged < readable:
        found = f"{s.removed:,} {removed}" if s.removed else "none of them looks unsafe"
        return f"{judged:,} of {count(s.rows, 'row')} could be judged: {found}; {rest}"
    if s.removed:
        return f"{s.removed:,} of {count(s.rows, 'row')} {removed}; {rest}"
    kept = f"{s.kept:,} of {count(s.rows, 'row')} {_are(s.kept)} kept; {unused}"
    if s.learned_share is not None and s.learned_share < _FEW_LEARNED:
        return (
            f"Can't tell: no row stands out, but the model has learned only {s.learned_share:.0%} "
            f"of {_given(s)}. {kept}"
        )
    if s.verdict is not None and s.verdict.level == "cannot_tell":
        return f"Can't tell whether rows are unsafe: none was removed. {kept}"
    return f"No row looks unsafe: {kept}"


def verdict_line(summary: Summary) -> str:
    """The verdict on the file and why; empty for a run of a version that gave none."""
    if summary.verdict is None:
        return ""
    return f"{VERDICTS[summary.verdict.level]}. {summary.verdict.message}"


def formulas_line(summary: Summary) -> str:
    """What to know before a table of rows is opened in a spreadsheet; empty where nothing is."""
    if not summary.formula_cells:
        return ""
    cells = count(summary.formula_cells, "cell begins as formulas do", "cells begin as formulas do")
    return (
        f"{cells} (=, +, -, @). They are written as they are, and a spreadsheet may run them: open "
        "a copy there, made by forgetfilter convert FILE NEW --guard-formulas."
    )


def _given(summary: Summary) -> str:
    """What the learn phase was given, in words, after "of"."""
    if summary.learned_rows is None:
        return "them"
    return f"the {count(summary.learned_rows, 'row')} that were drawn for it"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
