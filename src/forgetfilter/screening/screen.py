"""The main story: a noisy file in; kept, removed and rejected rows, scores and a report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows, to_dataset
from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.records import EncodedRow, Row
from forgetfilter.data.sources import Source
from forgetfilter.files import write_bytes_atomic, write_json_atomic
from forgetfilter.pipes import pipes_read_once
from forgetfilter.progress import Progress
from forgetfilter.runs import pending
from forgetfilter.runs.decisions import refuse_cut
from forgetfilter.runs.file_names import COVERAGE_FILE
from forgetfilter.runs.folder import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    RunFolder,
    config_text,
)
from forgetfilter.runs.inputs import read_input, stored_reading
from forgetfilter.runs.provenance import describe_environment
from forgetfilter.runs.schema import Finding
from forgetfilter.safe import safe_name, safe_path
from forgetfilter.scoring.formulas import changed_formulas, rule_version, signal_version
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import choose_rule
from forgetfilter.scoring.token_mask import check_maskable
from forgetfilter.screening.again import (
    changes_of,
    differs,
    finished_or_told,
    is_intact,
    is_outdated,
    refuse_other_kind,
    restore_outputs,
    with_formulas,
)
from forgetfilter.screening.annotations.described_harm import check_description, described_rows
from forgetfilter.screening.annotations.evidence import write_evidence
from forgetfilter.screening.annotations.harms import write_harms
from forgetfilter.screening.annotations.second_opinion import ask, check_second_opinion
from forgetfilter.screening.annotations.token_forgetting import write_tokens
from forgetfilter.screening.checks.coverage import measure_coverage, read_reference, reference_path
from forgetfilter.screening.checks.coverage_verdict import Coverage, names_with
from forgetfilter.screening.checks.fitness import (
    check_before,
    check_coverage,
    check_scores,
    is_severe,
    unfit,
)
from forgetfilter.screening.checks.safe_fitness import check_safe_rows
from forgetfilter.screening.checks.spelling import check_spelling
from forgetfilter.screening.deciding.asked_for import weight_of
from forgetfilter.screening.deciding.decide import (
    SCORES_FILE,
    apply_decisions,
    commit_decision,
    decide_again,
    has_decision,
    honoured,
    is_decided,
    is_finished,
    read_summary,
    run_folder,
)
from forgetfilter.screening.deciding.tables import write_readings, write_scores
from forgetfilter.screening.inputs.opening import check_rows, name_of, open_input, reading_of
from forgetfilter.screening.inputs.recorded import check_recorded, with_recording
from forgetfilter.screening.inputs.setup import (
    copy_input,
    encode_rows,
    fingerprints,
    keep_date,
    open_workbench,
    resolved,
    safe_rows_used,
    unchanged,
    unscored_texts,
)
from forgetfilter.screening.inputs.trusted import check_trusted, with_trusted
from forgetfilter.screening.method import filter_rows, score_rows
from forgetfilter.screening.sampling import learned_of
from forgetfilter.screening.set_aside import finding_of, lines_of

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class ScreenResult:
    """A finished screen; tables are read from the run folder when asked for."""

    output_dir: Path
    summary: dict[str, Any]
    was_finished: bool
    """Whether the run had been finished before, so that nothing was done now."""
    was_decided_again: bool = False
    """Whether the run had been finished before, and its stored scores were decided again now."""

    @cached_property
    def kept(self) -> Dataset:
        """The rows to fine-tune on."""
        return self._dataset("kept")

    @cached_property
    def removed(self) -> Dataset:
        """The rows that were forgotten too much: suspected unsafe."""
        return self._dataset("removed")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every row's scores, decision and reason; see the README for the columns."""
        return pd.read_parquet(self.output_dir / SCORES_FILE)

    def _dataset(self, decision: str) -> Dataset:
        path = self.output_dir / f"{decision}.jsonl"
        reading = stored_reading(self.output_dir)
        return to_dataset(read_rows(path, reading).rows if path.stat().st_size else ())


@pipes_read_once()
def screen(
    config: ScreenConfig,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    data: Any = None,
) -> ScreenResult:
    """Screen a file: learn, forget, score, filter. Resumes where it stopped.

    A finished run whose threshold rule alone differs is decided again from its stored scores. One
    whose signal, or what the signal reads, differs goes on from the learn phase that both share;
    the outputs are replaced together, once the new ones are there.

    Args:
        config: all settings.
        progress: where long stages report.
        overwrite: replace the outputs of a run with other inputs or another learn phase too, and
            make again what is of an earlier decision. Finished stages stay.
        data: the rows themselves in place of ``noisy_data``: a Dataset, a DataFrame or a list of
            dictionaries.

    Raises:
        ConfigError: an unknown signal or threshold rule, a rule that doesn't fit the signal, or a
            second opinion that can't be named or added, or too few trusted rows for the rule.
        DataError: an input can't be used as a whole.
        ModelError: the model can't be loaded or trained.
        RunExistsError: the output folder holds another run, or is in use.
        UnfitError: the scores can't be trusted; they are kept, and nothing is decided.
    """
    progress = progress or Progress()
    # Named from here on, so that a finished run keeps its rule whatever becomes of the defaults.
    has_trusted = config.trusted_data is not None
    rule = choose_rule(config.signal, config.threshold, has_trusted=has_trusted)
    config = with_recording(config.model_copy(update={"threshold": rule}))
    check_second_opinion(config)
    check_description(config)
    sources = open_input(config, data)
    if config.action == "mask":
        check_maskable(config.signal)
    inputs = fingerprints(config, sources)
    run = run_folder(config.output_dir)
    with run.lock():
        run.sweep()
        finished_or_told(run.path, progress)
        if has_decision(run.path):
            changes = changes_of(run, config, inputs)
            is_whole, other = is_finished(run.path) and is_intact(run.path, progress), {}
            if is_whole:
                # What is damaged of them is found before hours of work.
                refuse_cut(run.path, honoured(read_summary(run.path)))
                other = changed_formulas(read_summary(run.path), config.signal, rule)
                changes = with_formulas(changes, other)
            # A run that left its rows undecided has no outputs that would be replaced.
            is_open = is_whole and not is_decided(read_summary(run.path))
            if changes.must_be_asked_for and not overwrite and not is_open:
                raise differs(run, changes)
            if is_whole:
                for line in other.values():
                    progress.say(f"{line}; decided again from the readings.")
                if changes.is_none and not (overwrite and is_outdated(run.path, config)):
                    if changes.unread:
                        run.record(config.model_dump())
                    again = restore_outputs(run.path, progress) or apply_decisions(run.path)
                    return _result(run, was_finished=not again, was_decided_again=again)
                # Masks need to know how the tokens of every removed row were forgotten.
                is_stored = changes.only_decides and config.action != "mask"
                if is_stored and not overwrite:
                    text, action = config_text(config.model_dump()), config.action
                    decide_again(
                        run.path,
                        rule,
                        "screen",
                        text,
                        force=config.force,
                        action=action,
                        joint=config.joint,
                    )
                    return _result(run, was_decided_again=True)
        else:
            # What an earlier try recorded, and never brought to its end, binds nobody.
            refuse_other_kind(run)
            run.record(config.model_dump())
        # The run's files stay as they are until those of the decision replace them together.
        summary = _measure(config, rule, run, sources, inputs, progress)
        # What was measured is let go of by now: what follows is made from files alone.
        commit_decision(run.path, summary, rule, is_of_screen=True, force=config.force)
    return _result(run)


def _result(
    run: RunFolder, *, was_finished: bool = False, was_decided_again: bool = False
) -> ScreenResult:
    """What the run has come to.

    Raises:
        UnfitError: severe findings left its rows undecided.
    """
    summary = read_summary(run.path)
    if not is_decided(summary):
        raise unfit(run.path, [Finding.model_validate(found) for found in summary["findings"]])
    return ScreenResult(run.path, summary, was_finished, was_decided_again)


def _measure(
    config: ScreenConfig,
    rule: str,
    run: RunFolder,
    sources: list[Source],
    inputs: dict[str, str],
    progress: Progress,
) -> dict[str, Any]:
    """Learn, restore and score; what was found lies in the run's pending files. The summary."""
    part = pending.prepare(run.path)
    noisy = read_input(copy_input(run.path, part, sources, reading_of(config.reading)))
    noisy = replace(noisy, sources=tuple(sources))  # rows are called by the user's names
    check_rows(noisy, config)
    safe = unchanged(read_rows(safe_path(config.safe_data)), "safe_data", inputs)
    reference = unchanged(read_rows(reference_path(config)), "reference_data", inputs)
    findings = check_safe_rows(config.safe_data, safe.rows, noisy.rows)
    for found in findings:
        progress.say(f"{found.severity}: {found.message}")
    bench = open_workbench(config, run, progress)
    keep_date(run, bench)
    setting, rejected = encode_rows(config, bench, noisy, progress, safe)
    check_recorded(setting, noisy, len(rejected), progress)
    check_trusted(setting, noisy, rule)
    readable = _readable(noisy.rows, setting.noisy)
    for found in (unknown := check_spelling(readable, bench.tokenizer)):
        progress.say(f"{found.severity}: {found.message}")
    findings += unknown
    opinion = ask(setting, readable, safe.rows, inputs)
    described = described_rows(setting, safe.rows, progress)
    findings += check_before(setting)
    if is_severe(findings) and not config.force:
        raise unfit(None, findings)
    given, scored = setting, with_trusted(score_rows(setting), noisy)
    if scored.safe is not None:
        setting = replace(setting, safe=scored.safe.used)
        for found in finding_of(scored.safe, safe.rows):
            progress.say(f"{found.severity}: {found.message}")
            findings.append(found)
    findings += check_scores(scored)

    second = opinion.scores if opinion else None
    harm = described.scores if described else None
    scored = replace(scored, opinion=second, weight=config.joint)
    found = (scored.readings, scored.scores, second, harm)
    write_scores(part, noisy, rejected, *found, encoded=setting.noisy)
    write_readings(part, scored.readings)
    write_evidence(part, setting, scored)
    write_harms(part, setting, safe)
    used = safe_rows_used(given, scored)
    if scored.safe is not None and scored.safe.used is not given.safe:
        used["set_aside"] = lines_of(scored.safe, safe.rows)
    _tell_of_safe_rows(used, progress)
    measured = measure_coverage(setting, scored, read_reference(reference, bench.encoder))
    measured.write(part / COVERAGE_FILE)
    selection = filter_rows(scored, rule)
    coverage = measured.decided(scored.scores.forgetting_score, selection.is_removed)
    if config.action == "mask":
        write_tokens(part, setting, scored, noisy, selection.is_removed)
    _warn_of_uncovered(coverage, progress)
    findings += check_coverage(coverage)
    summary = {
        "signal": config.signal,
        "unit": SIGNALS.build(config.signal).unit,
        "formulas": {"signal": signal_version(config.signal), "rule": rule_version(rule)},
        "needs_learned": scored.judges_learned,
        **learned_of(scored.readings),
        "decided_by": "screen",
        "seed": config.seed,
        "seconds": bench.store.seconds(),
        "stages": bench.store.handed_out(),
        "model": config.model,
        "noisy_data": name_of(config.noisy_data),
        "safe_data": safe_name(config.safe_data),
        "safe_rows": used,
        "generation": config.generation.model_dump(),
        "preset": config.preset,
        "placement": bench.placement.reason,
        "template": bench.encoder.template_reason,
        "unscored": unscored_texts(setting.noisy),
        "findings": [found.model_dump() for found in findings],
        "action": config.action,
        **({"second_opinion": opinion.described()} if opinion else {}),
        **({"described_harm": described.told()} if described else {}),
        **weight_of(config.joint),
    }
    write_bytes_atomic(part / CONFIG_FILE, config_text(config.model_dump()).encode("utf-8"))
    provenance = {**describe_environment(), "seed": config.seed, "inputs": inputs}
    if opinion:
        provenance["second_opinion"] = opinion.described()
    provenance |= {**resolved(bench, config), "formulas": summary["formulas"]}
    write_json_atomic(part / PROVENANCE_FILE, provenance)
    return summary


def _readable(rows: Sequence[Row], scored: Sequence[EncodedRow]) -> Sequence[Row]:
    """The input rows that are scored, in the same order."""
    if len(rows) == len(scored):
        return rows
    numbers = np.fromiter((row.row for row in rows), np.int64, len(rows))
    wanted = np.fromiter((row.row for row in scored), np.int64, len(scored))
    return chosen(rows, np.searchsorted(numbers, wanted))


def _tell_of_safe_rows(used: dict[str, Any], progress: Progress) -> None:
    kinds = ", ".join(f"{name} {n['used']}" for name, n in used["by_category"].items())
    progress.say(
        f"safe_data: {used['used']:,} of {used['of']:,} rows used{f' ({kinds})' if kinds else ''}"
    )


def _warn_of_uncovered(coverage: Coverage, progress: Progress) -> None:
    unseen = names_with("not covered", coverage.harms)
    if unseen:
        progress.say(
            f"The safe rows can't judge: {', '.join(unseen)}. Unsafe rows of such a kind are kept; "
            "add safe rows of it."
        )
    faint = names_with("faint", coverage.harms)
    if faint:
        progress.say(
            f"The safe rows see only faintly: {', '.join(faint)}. Unsafe rows of such a kind rank "
            "high, but may stay below the threshold; add safe rows of it, or lower the threshold."
        )
