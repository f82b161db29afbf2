"""A screen that begins with the learned model of a training of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.records import RowFile
from forgetfilter.errors import ConfigError
from forgetfilter.progress import Progress
from forgetfilter.runs.changes import difference_lines, flatten
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.recording import Recording
from forgetfilter.scoring.records import HALVES
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.screening.method import Setting
from forgetfilter.text import printable


def with_recording(config: ScreenConfig) -> ScreenConfig:
    """``config`` with the learn phase's settings as they were recorded; else as it is.

    Raises:
        ConfigError: the signal needs more models than one; or a setting of the learn phase was
            given that the training did not have.
        DataError: there is no such recording.
    """
    if config.learned_from is None:
        return config
    if _needs_halves(config.signal):
        fitting = [name for name in SIGNALS.names() if not _needs_halves(name)]
        raise ConfigError(
            f"signal is {config.signal!r}, which needs two more models that have learned half of "
            "the rows each, and the recorded training has one, of all rows. Expected with "
            f"learned_from: {', '.join(fitting)}. Use --signal restoration, or leave learned_from "
            "out, and the screen learns by itself."
        )
    record = Recording(Path(config.learned_from)).record
    own = {"learn": record.learn, "lora": record.lora}
    preset = {"preset": config.preset, "noisy_data": "", "model": "", "output_dir": ""}
    defaults = resolve(ScreenConfig, preset)
    wrong: list[str] = []
    for group, recorded in own.items():
        given = flatten(getattr(config, group).model_dump(), group)
        usual = flatten(getattr(defaults, group).model_dump(), group)
        # A setting that may be left out is one that has its default.
        asked = {name: given[name] for name in given if given[name] != usual.get(name)}
        then = {name: flatten(recorded.model_dump(), group).get(name) for name in asked}
        wrong += difference_lines(then, asked).values()
    if wrong:
        raise ConfigError(
            "The recorded training had other settings of the learn phase than were given "
            f"(recorded -> given): {'; '.join(wrong)}. Expected those of the training, which are "
            "taken from the recording. Leave these settings out."
        )
    return config.model_copy(update=own)


def recording_of(config: ScreenConfig, run: RunFolder) -> Recording | None:
    """The recording that a run began with; its folder may be gone once it was taken over."""
    if config.learned_from is None:
        return None
    known = run.provenance().get("inputs", {}).get("learned_from")
    return Recording(Path(config.learned_from), known if isinstance(known, str) else None)


def check_recorded(setting: Setting, noisy: RowFile, rejected: int, progress: Progress) -> None:
    """See that a recording is of the rows and the model of the screen, before anything costly.

    Raises:
        DataError: the rows differ, or the recording was changed.
        ModelError: model or tokenizer differ.
    """
    recording = setting.bench.recording
    if recording is None:
        return
    from forgetfilter.model.recorded.taking_over import check_recording

    lines, sources = np.zeros(len(noisy), dtype=np.int64), noisy.source_names()
    for row in noisy.rows:
        lines[row.row] = row.line
    several = len(sources.counts()) > 1

    def name_of(row: int) -> str:
        where = f" of {printable(sources[row], 100)}" if several else ""
        return f"line {lines[row]}{where}"

    check_recording(setting.bench, recording, setting.noisy, rejected, name_of)
    record = recording.record
    progress.say(
        f"learn: taken from {printable(str(recording.folder), 200)}, recorded {record.date} "
        f"({record.steps:,} steps on {record.rows:,} different rows)."
    )
    if record.not_repeated:
        progress.say(
            "`forgetfilter finetune` can't repeat of that training: "
            f"{printable('; '.join(record.not_repeated), 300)}."
        )


def _needs_halves(signal: str) -> bool:
    halves = {name for own in HALVES for name in own}
    return any(probe.state in halves for probe in SIGNALS.build(signal).probes)
