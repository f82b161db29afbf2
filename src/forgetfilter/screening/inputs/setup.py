"""What a screen works with: its inputs, its model, and both files as tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from forgetfilter.config import PACKAGED_SAFE, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.formats import Reading
from forgetfilter.data.many_rows.views import by_position
from forgetfilter.data.reading import fingerprint_of
from forgetfilter.data.records import EncodedRow, RejectedRow, RowFile
from forgetfilter.data.sources import Source, read_bytes
from forgetfilter.data.tokens.template_process import stop_worker
from forgetfilter.errors import DataError
from forgetfilter.files import sha256_file, write_chunks_atomic
from forgetfilter.model.loading.model_files import model_fingerprint
from forgetfilter.model.stages.phases import forgotten_on, restored_on
from forgetfilter.model.workbench import Workbench
from forgetfilter.pipes import is_pipe
from forgetfilter.progress import Progress
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.inputs import store_input
from forgetfilter.runs.recording import Recording
from forgetfilter.runs.report.headline import UNSCORED
from forgetfilter.runs.stages import StageStore
from forgetfilter.safe import safe_name, safe_path
from forgetfilter.screening.annotations.described_harm import description_fingerprint
from forgetfilter.screening.annotations.second_opinion import opinion_fingerprint
from forgetfilter.screening.checks.coverage import reference_path
from forgetfilter.screening.inputs.opening import nothing_to_score, reading_of, tell_of_ids
from forgetfilter.screening.inputs.recorded import recording_of
from forgetfilter.screening.method import Scored, Setting
from forgetfilter.text import printable

_CATEGORIES_TOLD = 20
TEMPLATE_DATE = "template_date"


def fingerprints(config: ScreenConfig, sources: Sequence[Source]) -> dict[str, str]:
    """The sha256 of each input, by its setting's name.

    Raises:
        DataError: a file can't be read.
        ModelError: there is no such model or classifier.
    """
    inputs = {"noisy_data": fingerprint_of(sources, reading_of(config.reading))}
    paths = {"safe_data": safe_path(config.safe_data), "reference_data": reference_path(config)}
    inputs |= {name: _fingerprint(path, name) for name, path in paths.items()}
    inputs["model"] = model_fingerprint(config.model, config.trust_remote_code)
    if config.learned_from is not None:
        inputs["learned_from"] = Recording(Path(config.learned_from)).fingerprint
    if config.second_opinion is not None:
        inputs["second_opinion"] = opinion_fingerprint(config.second_opinion)
    if config.describe_harm is not None:
        inputs["describe_harm"] = description_fingerprint(config.describe_harm)
    return inputs


def open_workbench(config: ScreenConfig, run: RunFolder, progress: Progress) -> Workbench:
    """The workbench of a run: its model, its stages in the run folder, and its date."""
    store = StageStore(run.stages, on_reuse=lambda name: progress.say(f"{name}: done before"))
    recording = recording_of(config, run)
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
        today=_first_day(run, recording),
        recording=recording,
        checkpoint_minutes=config.checkpoint_minutes,
        settings=config.loading,
    )


def _first_day(run: RunFolder, recording: Recording | None) -> date:
    """The date that templates were told when the run began, today where none is recorded.

    With a recorded training that is the day on which it was set up.
    """
    if recording is not None and recording.is_there:
        return date.fromisoformat(recording.record.date)
    recorded = run.provenance().get(TEMPLATE_DATE)
    try:
        return date.fromisoformat(recorded) if isinstance(recorded, str) else date.today()
    except ValueError:
        return date.today()


def keep_date(run: RunFolder, bench: Workbench) -> None:
    """Record what the template was told to be today, where it says so in each row.

    Whatever goes on with the run, on whatever day, then sees the same tokens.
    """
    if bench.encoder.tells_date:
        run.write_provenance({TEMPLATE_DATE: bench.today.isoformat()})


def unchanged(file: RowFile, name: str, inputs: Mapping[str, str]) -> RowFile:
    """A file as it was read, once it is known to be the one that the run is named by.

    Raises:
        DataError: it has changed since.
    """
    if file.fingerprint != inputs[name]:
        raise DataError(
            f"{name} {printable(file.path, 300)!r} changed while it was read. Expected a file that "
            "stays as it is. Repeat the command once it is written."
        )
    return file


def encode_safe(
    config: ScreenConfig, bench: Workbench, progress: Progress, file: RowFile | None = None
) -> list[EncodedRow]:
    """The safe rows as tokens; unusable ones are named and left out.

    ``file`` is what was read of them, where that was done before.

    Raises:
        DataError: none is left.
    """
    file = file or read_rows(safe_path(config.safe_data))
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
    _tell_unscored("safe_data", encoded, progress)
    if not encoded:
        raise DataError(
            f"safe_data has no usable row ({len(file)} read). Expected rows whose answers are "
            "known to be safe. Check the reasons above, or make a set for the bundled model with "
            "`forgetfilter testbed safe`."
        )
    return encoded


def encode_rows(
    config: ScreenConfig,
    bench: Workbench,
    noisy: RowFile,
    progress: Progress,
    safe: RowFile | None = None,
) -> tuple[Setting, Sequence[RejectedRow]]:
    """Both files as tokens, and every noisy row that can't be scored, with its reason."""
    encoded, unfit = bench.encoder.encode(noisy.rows, Path(config.output_dir))
    rejected = by_position(noisy.rejected, unfit)
    if not encoded:
        raise nothing_to_score(len(noisy), rejected)
    if rejected:
        progress.say(f"noisy_data: {len(rejected)} of {len(noisy)} rows rejected, with reasons.")
    tell_of_ids(noisy, progress)
    _tell_unscored("noisy_data", encoded, progress)
    safe_rows = encode_safe(config, bench, progress, safe)
    stop_worker()  # which need not wait while a model is trained
    return Setting(bench, encoded, safe_rows, config), rejected


def _tell_unscored(file: str, rows: Iterable[EncodedRow], progress: Progress) -> None:
    for name, count in unscored_texts(rows).items():
        progress.say(f"{file}: of {count} rows the chat template leaves out {UNSCORED[name]}.")


def unscored_texts(rows: Iterable[EncodedRow]) -> dict[str, int]:
    """How many rows have text that their template doesn't show, by what it is."""
    return dict(Counter(name for row in rows for name in row.unscored))


def resolved(bench: Workbench, config: ScreenConfig) -> dict[str, Any]:
    """What was decided from the model and the machine, for the record."""
    told = {TEMPLATE_DATE: bench.today.isoformat()} if bench.encoder.tells_date else {}
    return {
        "model_fingerprint": bench.base.fingerprint,
        "placement": bench.placement.reason,
        "template": bench.encoder.template_reason,
        **told,
        "max_length_tokens": bench.encoder.max_length_tokens,
        "max_batch_tokens": bench.max_batch_tokens,
        "learning_rate": {
            "learn": bench.completed(config.learn).learning_rate,
            "forget": bench.completed(config.forget).learning_rate,
        },
        "num_train_epochs": bench.completed(config.learn).num_train_epochs,
    }


def copy_input(run: Path, part: Path, sources: Sequence[Source], reading: Reading) -> Path:
    """Keep the input with the run, so that it can be decided again whatever becomes of the file.

    Returns:
        The folder that has it: ``run`` where it was there already, else ``part``.
    """
    return store_input(run, part, sources, reading, write_chunks_atomic)


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


def _fingerprint(path: Path, name: str) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest() if is_pipe(path) else sha256_file(path)
    except OSError as error:
        raise DataError(
            f"Can't read {name} {printable(str(path))!r}: {error.strerror}. Expected a JSON "
            "Lines file. Check the path."
        ) from None
