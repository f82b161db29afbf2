"""The main story: a noisy file in; kept, removed and rejected rows, scores and a report out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from forgetfilter.config import PACKAGED_SAFE, ScreenConfig
from forgetfilter.data import read_rows, to_dataset
from forgetfilter.data.records import EncodedRow, RejectedRow, RowFile
from forgetfilter.errors import DataError, RunExistsError
from forgetfilter.files import (
    sha256_file,
    write_bytes_atomic,
    write_chunks_atomic,
    write_json_atomic,
)
from forgetfilter.model.loading import model_fingerprint
from forgetfilter.model.phases import forgotten_on, restored_on
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs import pending
from forgetfilter.runs.changes import Changes, changes_of_screen
from forgetfilter.runs.folder import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    RunFolder,
    as_recorded,
    config_text,
)
from forgetfilter.runs.provenance import describe_environment
from forgetfilter.runs.stages import StageStore
from forgetfilter.safe import safe_name, safe_path
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import choose_rule
from forgetfilter.screening.coverage import measure_coverage, read_reference, reference_path
from forgetfilter.screening.coverage_verdict import WHOLESALE_DAMAGE, Coverage, names_with
from forgetfilter.screening.decide import (
    COVERAGE_FILE,
    INPUT_FILE,
    SCORES_FILE,
    commit_decision,
    decide_again,
    finish_decision,
    has_decision,
    is_finished,
    read_summary,
    run_folder,
    score_frame,
    write_parquet,
    write_readings,
)
from forgetfilter.screening.evidence import write_evidence
from forgetfilter.screening.method import Scored, Setting, filter_rows, score_rows
from forgetfilter.text import printable

if TYPE_CHECKING:
    from datasets import Dataset

_SHOWN_DIFFERENCES = 8
_CATEGORIES_TOLD = 20


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
        return to_dataset(read_rows(path).rows if path.stat().st_size else ())


def screen(
    config: ScreenConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> ScreenResult:
    """Screen a file: learn, forget, score, filter. Resumes after the last finished stage.

    A finished run whose threshold rule alone differs is decided again from its stored scores. One
    whose signal, or what the signal reads, differs goes on from the learn phase that both share;
    the outputs are replaced together, once the new ones are there.

    Args:
        config: all settings.
        progress: where long stages report.
        overwrite: replace the outputs of a run with other inputs or another learn phase too, and
            make again what is of an earlier decision. Finished stages stay.

    Raises:
        ConfigError: an unknown signal or threshold rule, or a rule that doesn't fit the signal.
        DataError: an input can't be used as a whole.
        ModelError: the model can't be loaded or trained.
        RunExistsError: the output folder holds another run, or is in use.
    """
    progress = progress or Progress()
    # Named from here on, so that a finished run keeps its rule whatever becomes of the defaults.
    rule = choose_rule(config.signal, config.threshold)
    config = config.model_copy(update={"threshold": rule})
    paths = {
        "noisy_data": Path(config.noisy_data),
        "safe_data": safe_path(config.safe_data),
        "reference_data": reference_path(config),
    }
    inputs = {name: _fingerprint(path, name) for name, path in paths.items()}
    inputs["model"] = model_fingerprint(config.model, config.trust_remote_code)
    run = run_folder(config.output_dir)
    with run.lock():
        run.sweep()
        finish_decision(run.path)
        if has_decision(run.path):
            changes = _changes(run, config, inputs)
            if changes.must_be_asked_for and not overwrite:
                raise _differs(run, changes)
            if is_finished(run.path):
                if changes.is_none and not (overwrite and _is_outdated(run.path, config)):
                    if changes.unread:
                        run.record(config.model_dump())
                    return ScreenResult(run.path, read_summary(run.path), was_finished=True)
                if changes.only_decides and not overwrite:
                    text = config_text(config.model_dump())
                    summary = decide_again(run.path, rule, "screen", text)
                    return ScreenResult(
                        run.path, summary, was_finished=False, was_decided_again=True
                    )
        else:
            # What an earlier try recorded, and never brought to its end, binds nobody.
            _refuse_other_kind(run)
            run.record(config.model_dump())
        _screen(config, rule, run, inputs, paths["reference_data"], progress)
    return ScreenResult(run.path, read_summary(run.path), was_finished=False)


def _screen(
    config: ScreenConfig,
    rule: str,
    run: RunFolder,
    inputs: dict[str, str],
    reference_path: Path,
    progress: Progress,
) -> None:
    """Do the work and let its files replace those of the run, which stay as they are until then."""
    part = pending.prepare(run.path)
    source = run.path / INPUT_FILE
    if not source.is_file() or sha256_file(source) != inputs["noisy_data"]:
        source = part / INPUT_FILE
        _copy_input(config.noisy_data, source, inputs["noisy_data"])
    noisy = read_rows(source)
    bench = open_workbench(config, run, progress)
    setting, rejected = _encode(config, bench, noisy, progress)

    scored = score_rows(setting)

    frame = score_frame(noisy, rejected, scored.readings, scored.scores)
    write_parquet(part / SCORES_FILE, frame)
    write_readings(part, frame, scored.readings)
    write_evidence(part, setting, scored)
    used = safe_rows_used(setting, scored)
    _tell_of_safe_rows(used, progress)
    reference = read_reference(reference_path, bench.encoder)
    measured = measure_coverage(setting, scored, reference)
    measured.write(part / COVERAGE_FILE)
    selection = filter_rows(scored, rule)
    coverage = measured.decided(scored.scores.forgetting_score, selection.is_removed)
    _warn_of_uncovered(coverage, progress)
    _warn_of_wholesale_damage(coverage, progress)
    summary = {
        "signal": config.signal,
        "unit": SIGNALS.build(config.signal).unit,
        "decided_by": "screen",
        "seed": config.seed,
        "seconds": bench.store.seconds(),
        "stages": bench.store.handed_out(),
        "model": config.model,
        "noisy_data": config.noisy_data,
        "safe_data": safe_name(config.safe_data),
        "safe_rows": used,
        "generation": config.generation.model_dump(),
        "preset": config.preset,
        "placement": bench.placement.reason,
        "template": bench.encoder.template_reason,
    }
    write_bytes_atomic(part / CONFIG_FILE, config_text(config.model_dump()).encode("utf-8"))
    provenance = {**describe_environment(), "seed": config.seed, "inputs": inputs}
    write_json_atomic(part / PROVENANCE_FILE, {**provenance, **_resolved(bench, config)})
    commit_decision(run.path, summary, rule, is_of_screen=True)


def _changes(run: RunFolder, config: ScreenConfig, inputs: dict[str, str]) -> Changes:
    """What the command changes of a run that has been decided."""
    try:
        recorded = run.config()
    except DataError:
        return Changes(learning=(f"{CONFIG_FILE} can't be read",))
    known = run.provenance().get("inputs", {})
    return changes_of_screen(recorded, as_recorded(config.model_dump()), known, inputs)


def _differs(run: RunFolder, changes: Changes) -> RunExistsError:
    listed = "".join(f"\n  {line}" for line in changes.learning[:_SHOWN_DIFFERENCES])
    more = len(changes.learning) - _SHOWN_DIFFERENCES
    return RunExistsError(
        f"{printable(str(run.path), 300)!r} holds a decision that was made differently:{listed}"
        + (f"\n  and {more} more" if more > 0 else "")
        + "\nExpected the same rows, model, seed and settings of the learn phase; signal and "
        "threshold may differ. Use --overwrite to replace its outputs (finished stages stay), or "
        "another --output-dir."
    )


def _refuse_other_kind(run: RunFolder) -> None:
    """Raise if the folder is that of a study, which has another kind of settings."""
    try:
        recorded = run.config()
    except DataError:
        return
    if "noisy_data" not in recorded:
        raise RunExistsError(
            f"{printable(str(run.path), 300)!r} holds a run of another command: its {CONFIG_FILE} "
            "has no noisy_data. Expected a new or empty folder, or that of an earlier screen. "
            "Choose another --output-dir."
        )


def _is_outdated(run: Path, config: ScreenConfig) -> bool:
    """Whether the present decision, or what goes with it, is not what the screen would write."""
    summary = read_summary(run)
    return (
        summary["decided_by"] != "screen"
        or "stages" not in summary
        or any(made != summary["decision"] for made in summary["made_from"].values())
        or summary["generation"] != config.generation.model_dump()  # by which evidence is made
    )


def safe_rows_used(setting: Setting, scored: Scored) -> dict[str, Any]:
    """How many of the usable safe rows the scores rest on, as the summary says it.

    ``by_category`` is there where the file names several categories and the rows are known.
    """
    safe, states = setting.safe, scored.states
    restored = [states[name] for name in ("restored", "early_restored") if name in states]
    if not restored:
        used = len(safe)
        if "forgotten" in states:
            batch_size = setting.config.forget.batch_size
            used = forgotten_on(states["forgotten"], batch_size, len(safe))
        return {"used": used, "of": len(safe), "by_category": {}}
    rows = {row for state in restored for row in restored_on(state)}
    given = Counter(row.category for row in safe)
    found = Counter(row.category for row in safe if row.row in rows)
    return {
        "used": len(rows),
        "of": len(safe),
        "by_category": {
            name: {"used": found[name], "of": count}
            for name, count in given.most_common(_CATEGORIES_TOLD)
            if len(given) > 1
        },
    }


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


def _warn_of_wholesale_damage(coverage: Coverage, progress: Progress) -> None:
    if coverage.wholesale_damage is not None:
        progress.say(
            "The scores can't be trusted: learning has changed the model's behaviour on safe rows "
            f"of every kind ({coverage.wholesale_damage:.2g} nats per token or more; below "
            f"{WHOLESALE_DAMAGE:g} expected), so harmless rows fall with the unsafe ones. Learn "
            "for fewer epochs (--set learn.num_train_epochs), or with a lower learning rate."
        )


def open_workbench(config: ScreenConfig, run: RunFolder, progress: Progress) -> Workbench:
    """The workbench of a run: its model, and its stages in the run folder."""
    store = StageStore(run.stages, on_reuse=lambda name: progress.say(f"{name}: done before"))
    return Workbench(
        config.model,
        store,
        lora=config.lora,
        seed=config.seed,
        progress=progress,
        template=config.template,
        max_length_tokens=config.max_length_tokens,
        max_batch_tokens=config.max_batch_tokens,
        max_new_tokens=config.generation.max_new_tokens,
        device=config.device,
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
    )


def encode_safe(config: ScreenConfig, bench: Workbench, progress: Progress) -> list[EncodedRow]:
    """The safe rows as tokens; unusable ones are named and left out.

    Raises:
        DataError: none is left.
    """
    file = read_rows(safe_path(config.safe_data))
    if config.safe_data == PACKAGED_SAFE:
        progress.say(
            f"safe_data: {safe_name(config.safe_data)} ({len(file)} rows, English). Rows that "
            "match your own risks are better; `forgetfilter safe` writes these out to start from."
        )
    encoded, too_long = bench.encoder.encode_safe(file.rows)
    unusable = [*file.rejected, *too_long]
    if unusable:
        first = min(unusable, key=lambda row: row.row)
        progress.say(
            f"safe_data: {len(unusable)} of {len(file)} rows can't be used; the first is line "
            f"{first.line}: {printable(first.reason)}"
        )
    if not encoded:
        raise DataError(
            f"safe_data has no usable row ({len(file)} read). Expected rows whose answers are "
            "known to be safe. Check the reasons above, or make a set for the bundled model with "
            "`forgetfilter testbed safe`."
        )
    return encoded


def _encode(
    config: ScreenConfig, bench: Workbench, noisy: RowFile, progress: Progress
) -> tuple[Setting, list[RejectedRow]]:
    """Both files as tokens, and every noisy row that can't be scored, with its reason."""
    encoded, unfit = bench.encoder.encode(noisy.rows)
    rejected = sorted((*noisy.rejected, *unfit), key=lambda row: row.row)
    if not encoded:
        raise DataError(
            f"noisy_data has no row that can be scored ({len(noisy)} read, all rejected; the first "
            f"because: {printable(rejected[0].reason)}). Expected chat, prompt/completion or "
            "instruction rows. Check the file's columns."
        )
    if rejected:
        progress.say(f"noisy_data: {len(rejected)} of {len(noisy)} rows rejected, with reasons.")
    safe = encode_safe(config, bench, progress)
    return Setting(bench, encoded, safe, config), rejected


def _resolved(bench: Workbench, config: ScreenConfig) -> dict[str, Any]:
    """What was decided from the model and the machine, for the record."""
    return {
        "model_fingerprint": bench.base.fingerprint,
        "placement": bench.placement.reason,
        "template": bench.encoder.template_reason,
        "max_length_tokens": bench.encoder.max_length_tokens,
        "max_batch_tokens": bench.max_batch_tokens,
        "learning_rate": {
            "learn": bench.with_learning_rate(config.learn).learning_rate,
            "forget": bench.with_learning_rate(config.forget).learning_rate,
        },
    }


def _copy_input(source: str, target: Path, fingerprint: str) -> None:
    """Keep the input with the run, so that it can be decided again whatever becomes of the file."""
    if target.is_file() and sha256_file(target) == fingerprint:
        return
    with open(source, "rb") as file:
        write_chunks_atomic(target, iter(lambda: file.read(2**20), b""))
    if sha256_file(target) != fingerprint:
        target.unlink()
        raise DataError(
            f"noisy_data {printable(source)!r} changed while it was read. Expected a file that "
            "stays as it is. Repeat the command once it is written."
        )


def _fingerprint(path: Path, name: str) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(
            f"Can't read {name} {printable(str(path))!r}: {error.strerror}. Expected a JSON "
            "Lines file. Check the path."
        ) from None
