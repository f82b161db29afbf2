"""A finished run folder as one self-contained page. Reads files only; never loads a model."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forgetfilter.arrays import FloatArray, SharedTexts
from forgetfilter.files import write_bytes_atomic
from forgetfilter.runs.decisions import load_decisions
from forgetfilter.runs.file_names import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    REPORT_FILE,
)
from forgetfilter.runs.parquet_parts import give_back
from forgetfilter.runs.reading import (
    ScoreTable,
    read_evaluation,
    read_json,
    read_rejected,
    read_scores,
    read_summary,
    read_text,
)
from forgetfilter.runs.report import shown_text
from forgetfilter.runs.report.facts import write_facts
from forgetfilter.runs.report.groups import groups_of, harms_of
from forgetfilter.runs.report.headline import (
    VERDICTS,
    formulas_line,
    headline,
    method,
    unscored_lines,
)
from forgetfilter.runs.report.histogram import histogram, nice_step
from forgetfilter.runs.report.listed import furthest_along, listed_rows
from forgetfilter.runs.report.noted import flatten, in_words
from forgetfilter.runs.report.opinion import opinion_view
from forgetfilter.runs.report.page_styles import PageStyles, digest
from forgetfilter.runs.report.row_data import gather, remove_outdated
from forgetfilter.runs.report.row_texts import open_texts
from forgetfilter.runs.report.shown_rows import nearest_to_threshold
from forgetfilter.runs.report.shown_text import Clip, clip
from forgetfilter.runs.schema import HarmCoverage, Summary

REJECTED_SHOWN = 20

_KINDS_SHOWN = 12
_WITHOUT_SCRIPT = 50
_SHEETS = ("report.css", "rows.css")
_OPINION_SHEET = "second_opinion.css"
_SCRIPTS = ("row_data.js", "row_card.js", "row_list.js", "report.js")


def render_report(run: Path, overruled: Mapping[int, str] | None = None) -> Path:
    """Write ``report.html`` and ``report.json`` into a finished run folder.

    The page loads nothing from anywhere, but what many rows say from ``report_rows`` beside it.
    Everything that comes from rows is escaped, cut, and blurred until it is asked for.

    Args:
        run: the run folder.
        overruled: what a reviewer has decided, by row: shown beside the run's own decision. None:
            what the run's journal says.

    Returns:
        The page's path.

    Raises:
        DataError: a file of the run is missing or damaged, or two of them disagree.
    """
    run = Path(run)
    overruled = _reviewed(run) if overruled is None else overruled
    summary = read_summary(run)
    table = read_scores(run, summary)
    give_back()
    score = table.cut_by
    is_readable = table.decision != "rejected"
    is_removed = table.decision == "removed"
    can_be_judged = table.is_learned if summary.needs_learned else np.ones_like(is_readable)
    is_judged = is_readable & can_be_judged
    cut = summary.threshold.value
    # Nothing of a row that was not learned can be forgotten, so it is no evidence of anything.
    judged = np.where(is_judged, score, np.nan)
    near = nearest_to_threshold(judged, cut)
    opinion = opinion_view(summary, table)
    also = sorted(row for row in overruled if 0 <= row < len(table.row))  # a row is its position
    also += furthest_along(table) + (opinion.positions.tolist() if opinion else [])
    order = listed_rows(table, judged, also)
    # All is read before anything is written: what fails leaves the last report as it was.
    rejected = read_rejected(run, REJECTED_SHOWN if summary.rejected else 0)
    evaluation = read_evaluation(run)
    config, provenance = read_text(run / CONFIG_FILE), run / PROVENANCE_FILE
    made = list(flatten(read_json(provenance))) if provenance.exists() else []
    with open_texts(run, table) as texts:
        data = gather(run, texts, order, overruled)
        groups = {name: groups_of(texts, name, is_judged) for name in ("source", "category")}
        harms = harms_of(texts)
        write_facts(run, summary, int(is_judged.sum()), groups, harms, texts, order, overruled)
    stays = "kept" if summary.is_decided else "undecided"
    drawn = {
        stays: is_judged & ~is_removed,
        f"{stays}, not learned": is_readable & ~is_removed & ~can_be_judged,
        "removed": is_removed,
    }
    coverage, outdated = _coverage(summary)
    is_evaluated = (
        evaluation is not None
        and evaluation.made_from.decision is not None
        and evaluation.made_from.decision == summary.decision
    )
    sheets = (*_SHEETS, _OPINION_SHEET) if opinion else _SHEETS
    script, styles = page_script(), PageStyles(_source(*sheets))
    page = (
        page_environment()
        .get_template(REPORT_FILE)
        .render(
            summary=summary,
            headline=headline(summary, int(is_judged.sum())),
            method=method(summary),
            formulas=formulas_line(summary),
            verdict=summary.verdict and VERDICTS[summary.verdict.level],
            judged=int(is_judged.sum()),
            script=Markup(script),
            script_hash=digest(script),
            styles=styles,
            placed=styles.placed,
            row_data=Markup(
                data.as_json(
                    decided=summary.is_decided,
                    cut=cut,
                    learned=summary.needs_learned,
                    joint=summary.joint,
                )
            ),
            data=data,
            listed_counts=table.decision[order].counts(),
            first_rows=_first_rows(table, order),
            groups=groups,
            harms=harms,
            unscored=unscored_lines(summary),
            overruled=len(overruled),
            opinion=opinion,
            evaluation=evaluation if is_evaluated else None,
            is_evaluation_outdated=evaluation is not None and not is_evaluated,
            coverage=coverage,
            outdated_coverage=outdated,
            lacks_evidence=not _is_of(summary, "evidence")
            and any(int(table.row[at]) not in texts.said for at in near),
            screen_command=f"forgetfilter screen --config {shlex.quote(str(run / CONFIG_FILE))} "
            f"--output-dir {shlex.quote(str(run))} --overwrite --threshold",
            group_counts={name: int(mask.sum()) for name, mask in drawn.items()},
            histogram=histogram(
                score[is_readable], {name: mask[is_readable] for name, mask in drawn.items()}, cut
            ),
            alternatives=_alternatives(
                score[is_judged], int((table.rule_decision == "removed").sum()), cut
            ),
            rejected_kinds=_kinds_of_reasons(table.reason[~is_readable]),
            rejected=[(line, row, clip(reason, 300)) for line, row, reason in rejected],
            notes=in_words(summary.threshold_notes),
            config=config,
            provenance=made,
            command=f"forgetfilter filter {shlex.quote(str(run))} --threshold",
            rule=shlex.quote(summary.threshold.rule),
        )
    )
    path = run / REPORT_FILE
    # A lone surrogate can come from a file's name; it must not cost the whole report.
    write_bytes_atomic(path, page.encode("utf-8", "backslashreplace"))
    remove_outdated(run, data)
    return path


def _reviewed(run: Path) -> dict[int, str]:
    """What people have decided, by row; nothing where nobody has."""
    latest = load_decisions(run).latest
    return {row: str(made.decision) for row, made in latest.items()}


@cache
def page_script() -> str:
    """The page's own script, the same for every run."""
    return '(function () {\n"use strict";\n' + _source(*_SCRIPTS) + "}());\n"


@cache
def _source(*names: str) -> str:
    """Files of the templates as they stand, one after the other."""
    loader = page_environment().loader
    assert loader is not None
    return "\n".join(loader.get_source(page_environment(), name)[0] for name in names)


def _first_rows(table: ScoreTable, order: npt.NDArray[np.int64]) -> list[tuple[int, Clip, str]]:
    """Number, id and score of the first listed rows, for readers without scripts."""
    score = table.cut_by
    return [
        (
            int(table.row[at]),
            clip(str(table.example_id[at]), 80),
            shown_text.number(float(score[at])),
        )
        for at in order[:_WITHOUT_SCRIPT]
        if table.decision[at] != "rejected"
    ]


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
        breakable=lambda text: shown_text.breakable(str(text)),
    )
    return environment


def _alternatives(
    scores: FloatArray, removed: int, cut: float | None
) -> list[tuple[str, int, bool]]:
    """Round thresholds around the present one: (value, rows removed, whether it is the present).

    Counts are of the rule alone, which reviewers overrule whatever it is. Empty where its present
    decision isn't a plain cut of the judged rows' ``scores``, because the counts would mislead.
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


def _kinds_of_reasons(reasons: SharedTexts) -> list[tuple[str, int]]:
    """Rows by kind of reason: what stands before the first colon, whatever the numbers in it."""
    kinds: Counter[str] = Counter()
    for reason, rows in reasons.counts().items():
        kinds[re.sub(r"(?<![\w-])\d+", "…", reason.split(":")[0])[:200]] += rows
    common = kinds.most_common(_KINDS_SHOWN)
    rest = kinds.total() - sum(value for _, value in common)
    return [*common, ("other reasons", rest)] if rest else common
