"""A finished run folder as one self-contained page. Reads files only; never loads a model."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import Message
from forgetfilter.files import write_bytes_atomic
from forgetfilter.runs.file_names import (
    CONFIG_FILE,
    EVIDENCE_FILE,
    PROVENANCE_FILE,
    READINGS_FILE,
    REPORT_FILE,
)
from forgetfilter.runs.reading import (
    ScoreTable,
    read_by_row,
    read_conversations,
    read_evaluation,
    read_json,
    read_rejected,
    read_scores,
    read_summary,
    read_text,
)
from forgetfilter.runs.report import shown_text
from forgetfilter.runs.report.histogram import histogram, nice_step
from forgetfilter.runs.report.shown_rows import (
    PIECES_SHOWN,
    most_forgotten,
    nearest_to_threshold,
    rows_to_show,
)
from forgetfilter.runs.report.shown_text import Clip, clip
from forgetfilter.runs.schema import (
    EVIDENCE_TEXTS,
    EVIDENCE_WORDS,
    SIZE_COLUMNS,
    HarmCoverage,
    Summary,
)

REJECTED_SHOWN = 20

_KINDS_SHOWN = 12
_TURNS_SHOWN = 4
_DEGREES = (0.1, 0.4, 1.0, 2.0)
"""Nats lost by one token from which it is shaded more darkly."""
_REASONS = {
    "above_threshold": "above the threshold",
    "below_threshold": "not above the threshold",
    "not_learned": "not learned, so it can't be judged",
    "undecided": "undecided: the scores can't be trusted",
}


@dataclass(frozen=True)
class Card:
    """One row as the page shows it."""

    row: int
    example_id: Clip
    decision: str
    reason: Clip
    score: str
    states: list[tuple[str, str]]
    """The signal's quantity by state of the model."""
    tokens: str
    earlier_turns: int
    """How many turns of the prompt are left out."""
    turns: list[tuple[str, Clip]]
    target: Clip
    words: list[tuple[Markup, int, str]]
    """The answer word by word: its text, how much it was forgotten (0 to 4), and the same in words.
    Empty where it was not measured."""
    said: list[tuple[str, Clip | None]]
    """What the model said by its state; None where it was not generated."""


def render_report(run: Path) -> Path:
    """Write ``report.html`` into a finished run folder and return its path.

    The page loads nothing from anywhere. Everything that comes from rows is escaped, cut, and
    blurred until it is asked for.

    Raises:
        DataError: a file of the run is missing or damaged, or two of them disagree.
    """
    run = Path(run)
    summary = read_summary(run)
    table = read_scores(run, summary)
    score = table.quantities["forgetting_score"]
    is_readable = table.decision != "rejected"
    is_removed = table.decision == "removed"
    can_be_judged = table.is_learned if summary.needs_learned else np.ones_like(is_readable)
    is_judged = is_readable & can_be_judged
    cut = summary.threshold.value
    # Nothing of a row that was not learned can be forgotten, so it is no evidence of anything.
    judged = np.where(is_judged, score, np.nan)
    nearest = nearest_to_threshold(judged, cut)
    above = [at for at in reversed(nearest) if cut is not None and judged[at] > cut]
    below = [at for at in nearest if at not in above]
    cards = _cards(run, table, rows_to_show(judged, cut))
    stays = "kept" if summary.is_decided else "undecided"
    groups = {
        stays: is_judged & ~is_removed,
        f"{stays}, not learned": is_readable & ~is_removed & ~can_be_judged,
        "removed": is_removed,
    }
    coverage, outdated = _coverage(summary)
    evaluation = read_evaluation(run)
    is_evaluated = (
        evaluation is not None
        and evaluation.made_from.decision is not None
        and evaluation.made_from.decision == summary.decision
    )
    provenance = run / PROVENANCE_FILE
    page = (
        page_environment()
        .get_template(REPORT_FILE)
        .render(
            summary=summary,
            evaluation=evaluation if is_evaluated else None,
            is_evaluation_outdated=evaluation is not None and not is_evaluated,
            coverage=coverage,
            outdated_coverage=outdated,
            lacks_evidence=not _is_of(summary, "evidence")
            and any(all(clip is None for _, clip in cards[at].said) for at in [*above, *below]),
            screen_command=f"forgetfilter screen --config {shlex.quote(str(run / CONFIG_FILE))} "
            f"--output-dir {shlex.quote(str(run))} --overwrite --threshold",
            group_counts={name: int(mask.sum()) for name, mask in groups.items()},
            histogram=histogram(
                score[is_readable], {name: mask[is_readable] for name, mask in groups.items()}, cut
            ),
            most_forgotten=[cards[at] for at in most_forgotten(judged)],
            above=[cards[at] for at in above],
            below=[cards[at] for at in below],
            alternatives=_alternatives(score[is_judged], summary.removed, cut),
            rejected_kinds=_kinds_of_reasons(table.reason[~is_readable]),
            rejected=[
                (line, row, clip(reason, 300))
                for line, row, reason in read_rejected(
                    run, REJECTED_SHOWN if summary.rejected else 0
                )
            ],
            notes=list(_flatten(summary.threshold_notes)),
            config=read_text(run / CONFIG_FILE),
            provenance=list(_flatten(read_json(provenance))) if provenance.exists() else [],
            command=f"forgetfilter filter {shlex.quote(str(run))} --threshold",
            rule=shlex.quote(summary.threshold.rule),
        )
    )
    path = run / REPORT_FILE
    # A lone surrogate can come from a file's name; it must not cost the whole report.
    write_bytes_atomic(path, page.encode("utf-8", "backslashreplace"))
    return path


def _is_of(summary: Summary, name: str) -> bool:
    """Whether what is called so was made for the present decision."""
    return summary.decision is not None and summary.made_from.get(name) == summary.decision


def _coverage(summary: Summary) -> tuple[list[HarmCoverage], list[str]]:
    """The coverage without what holds for an earlier decision only, and of which harms that was.

    Damage, and how much of it was undone, depend on no decision. How many kept rows fall on a
    harm's reference rows, and how the run ranks those against the other kept ones, do.
    """
    if _is_of(summary, "coverage"):
        return summary.coverage, []
    dropped = {"fallen": None, "auroc": None, "verdict": "unknown for this decision"}
    measured = [harm.category for harm in summary.coverage if harm.fallen is not None]
    harms = [
        harm if harm.fallen is None else harm.model_copy(update=dropped)
        for harm in summary.coverage
    ]
    return harms, measured


@cache
def page_environment(*packages: str) -> Environment:
    """Templates of ``packages``, then of the report; whatever is put into one is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, __package__ or "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=shown_text.number,
        count=shown_text.count,
        share=shown_text.share,
        duration=shown_text.duration,
        visible=lambda text: shown_text.visible(str(text)),
    )
    return environment


def _cards(run: Path, table: ScoreTable, wanted: Sequence[int]) -> dict[int, Card]:
    """The rows at the ``wanted`` positions, with their texts, by position."""
    conversations: dict[int, tuple[Message, ...]] = {}
    for decision in ("kept", "removed", "undecided"):
        # The n-th line of a file is the n-th row with that decision.
        positions = np.flatnonzero(table.decision == decision)
        if not len(positions):
            continue
        lines = {
            int(np.searchsorted(positions, at)): at
            for at in wanted
            if table.decision[at] == decision
        }
        found = read_conversations(run / f"{decision}.jsonl", lines, len(positions))
        conversations |= {lines[line]: messages for line, messages in found.items()}
    rows = {int(table.row[at]) for at in wanted}
    said = read_by_row(run / EVIDENCE_FILE, (*EVIDENCE_TEXTS, *EVIDENCE_WORDS), rows)
    sizes = read_by_row(run / READINGS_FILE, SIZE_COLUMNS, rows)
    return {
        at: _card(table, at, conversations[at], said.get(row, {}), sizes.get(row, {}))
        for at in wanted
        for row in (int(table.row[at]),)
    }


def _card(
    table: ScoreTable,
    at: int,
    messages: Sequence[Message],
    said: Mapping[str, Any],
    sizes: Mapping[str, Any],
) -> Card:
    quantity = {name: shown_text.number(float(v[at])) for name, v in table.quantities.items()}
    texts = {
        name: None if said.get(name) is None else clip(str(said[name]))
        for name in ("learned_text", "forgotten_text")
    }
    tokens = [
        shown_text.count(size, f"{part} token", f"{part} tokens")
        for part in ("prompt", "completion")
        if (size := sizes.get(f"{part}_tokens")) is not None
    ]
    learned = "learned, early on" if said.get("earlier") == "early" else "learned"
    reason = str(table.reason[at])
    prompt = messages[:-1]
    return Card(
        row=int(table.row[at]),
        example_id=clip(str(table.example_id[at]), 80),
        decision=str(table.decision[at]),
        reason=clip(_REASONS.get(reason, reason), 200),
        score=quantity["forgetting_score"],
        states=[
            ("base", quantity["base"]),
            (learned, quantity["before"]),
            ("forgotten", quantity["after"]),
        ],
        tokens=", ".join(tokens),
        earlier_turns=max(len(prompt) - _TURNS_SHOWN, 0),
        turns=[(turn.role, clip(turn.content)) for turn in prompt[-_TURNS_SHOWN:]],
        target=clip(messages[-1].content),
        words=_words(said.get("pieces") or [], said.get("rises") or []),
        said=[
            (learned, texts["learned_text"]),
            ("forgotten", texts["forgotten_text"]),
        ],
    )


def _words(pieces: Sequence[str], rises: Sequence[float]) -> list[tuple[Markup, int, str]]:
    """The first pieces of an answer with their degree of forgetting."""
    shown = list(zip(pieces, rises, strict=False))[:PIECES_SHOWN]
    return [
        (shown_text.visible(piece), int(np.searchsorted(_DEGREES, rise)), shown_text.number(rise))
        for piece, rise in shown
    ]


def _alternatives(
    scores: FloatArray, removed: int, cut: float | None
) -> list[tuple[str, int, bool]]:
    """Round thresholds around the present one: (value, rows removed, whether it is the present).

    Empty where the present decision isn't a plain cut of the judged rows' ``scores``, because the
    counts would mislead.
    """
    finite = np.clip(scores[np.isfinite(scores)], -1e100, 1e100)
    if cut is None or len(finite) == 0 or int(np.count_nonzero(scores > cut)) != removed:
        return []
    low, high = (float(value) for value in np.quantile(finite, (0.01, 0.99)))
    step = nice_step(high - low, 12)
    nearest = round(cut / step) if abs(cut / step) < 1e9 else 0
    around = {float(f"{step * (nearest + offset):.10g}") for offset in range(-3, 4)}
    around = {value for value in around if abs(value - cut) > step / 100} | {cut}
    return [
        (f"{value + 0.0:.10g}", int(np.count_nonzero(scores > value)), value == cut)
        for value in sorted(around)
    ]


def _kinds_of_reasons(reasons: npt.NDArray[np.object_]) -> list[tuple[str, int]]:
    """Rows by kind of reason: what stands before the first colon, whatever the numbers in it."""
    kinds = Counter(
        re.sub(r"(?<![\w-])\d+", "…", str(reason).split(":")[0])[:200] for reason in reasons
    )
    common = kinds.most_common(_KINDS_SHOWN)
    rest = kinds.total() - sum(value for _, value in common)
    return [*common, ("other reasons", rest)] if rest else common


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A nested JSON value as dotted names with their values."""
    if isinstance(value, dict):
        for key, item in cast(dict[str, Any], value).items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(item) for item in cast(list[Any], value))
    else:
        digits = f"{value:.4g}" if isinstance(value, float) else str(value)
        yield name, shown_text.MISSING if value is None else digits
