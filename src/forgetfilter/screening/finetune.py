"""Retrain: fine-tune the base model on what a screen kept, and write the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from forgetfilter import __version__
from forgetfilter.arrays import BoolArray
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.errors import DataError
from forgetfilter.progress import Progress
from forgetfilter.runs.adapter_folder import Origin, require_place, write_adapter
from forgetfilter.runs.cards import model_card
from forgetfilter.runs.file_names import MASKS_FILE
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.inputs import input_fingerprint, read_input
from forgetfilter.runs.intact import refuse_changed
from forgetfilter.runs.schema import Summary
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.deciding.decide import (
    SCORES_FILE,
    apply_decisions,
    finished_run,
    is_decided,
    read_summary,
)
from forgetfilter.screening.deciding.masks import digest_of_masks, masked_rows
from forgetfilter.screening.inputs.setup import open_workbench
from forgetfilter.screening.method import Setting, fine_tune


@dataclass(frozen=True)
class FinetuneResult:
    """A finished fine-tune."""

    adapter: Path
    rows: int
    seconds: float
    is_masked: bool = False
    """Whether all rows were trained on, without the tokens that the run masks."""


def finetune(
    run_path: str | Path,
    output_dir: str | Path,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    checkpoint_minutes: float | None = None,
) -> FinetuneResult:
    """Fine-tune the run's base model on its kept rows, with the learn phase's settings.

    Of a run whose action is ``mask``: on all rows, without the loss of their masked tokens.
    What people have decided of single rows since is applied first (`apply_decisions`).
    The adapter is trained once per decision; a repeated command finds it in ``output_dir``, where
    ``forgetfilter.json`` says what it was made from. Whether it may be written there is found out
    before anything is trained. ``checkpoint_minutes`` are those of the run where not given.

    Raises:
        ConfigError: ``checkpoint_minutes`` is no number from 0 on.
        DataError: not a finished run, no row was kept, or a file was edited by hand.
        RunExistsError: ``output_dir`` holds other files or another adapter, is the run folder, or
            can't be written to.
    """
    progress = progress or Progress()
    output = Path(output_dir)
    with finished_run(run_path) as folder:
        apply_decisions(folder.path)
        summary = read_summary(folder.path)
        if not is_decided(summary):
            raise DataError(
                f"Nothing was decided in {folder.path}: its scores can't be trusted, as its report "
                "says. Expected kept and removed rows. Mend it and screen again, or decide all the "
                "same: `forgetfilter filter RUN --threshold RULE --force`."
            )
        is_masked = summary.get("action") == "mask"
        decision = summary["decision"]
        if is_masked:
            refuse_changed(folder.path, summary, MASKS_FILE)
            decision += f":{digest_of_masks(folder.path)}"
        there = require_place(output, folder.path, decision, overwrite=overwrite)
        if there is not None:
            return FinetuneResult(output, there.rows, there.seconds, is_masked)
        given = {} if checkpoint_minutes is None else {"checkpoint_minutes": checkpoint_minutes}
        config = resolve(ScreenConfig, folder.config(), given)
        setting, is_kept = stored_setting(folder, config, progress)
        bench = setting.bench
        masked = masked_rows(folder.path, setting.noisy) if is_masked else None
        state = fine_tune(setting, is_kept, bench.base, masked=masked)
        record_stages(folder, bench.store)
        origin = Origin(
            decision=decision,
            noisy_data=input_fingerprint(folder.path),
            model=bench.base.fingerprint,
            rows=int(is_kept.sum()) if masked is None else len(masked),
            seconds=sum(bench.store.seconds().values()),
            version=__version__,
        )
        assert state.adapter is not None
        card = model_card(Summary.model_validate(summary), origin.rows)
        write_adapter(Path(state.adapter), output, origin, card)
    return FinetuneResult(output, origin.rows, origin.seconds, is_masked)


def record_stages(folder: RunFolder, store: StageStore) -> None:
    """Write down which stages were used for the present decision, so that `gc` spares them."""
    decision = read_summary(folder.path)["decision"]
    known = folder.provenance().get("trained", {})
    earlier = known["stages"] if known.get("decision") == decision else []
    stages = sorted({*earlier, *store.handed_out()})
    folder.write_provenance({"trained": {"decision": decision, "stages": stages}})


def stored_setting(
    folder: RunFolder, config: ScreenConfig, progress: Progress
) -> tuple[Setting, BoolArray]:
    """The scored rows of a finished run as it was screened, and which of them are kept.

    Raises:
        DataError: the run kept no row, or its model has changed.
    """
    bench = open_workbench(config, folder, progress)
    screened = folder.provenance().get("model_fingerprint", bench.base.fingerprint)
    if screened != bench.base.fingerprint:
        raise DataError(
            f"The model {config.model!r} has changed since {folder.path} was screened. Expected "
            "the same files. Restore them, or screen again with --overwrite."
        )
    frame = pd.read_parquet(folder.path / SCORES_FILE)
    encoded, _ = bench.encoder.encode(read_input(folder.path).rows)
    decisions = frame["decision"].to_numpy()[[row.row for row in encoded]]
    is_kept: BoolArray = decisions == "kept"
    if not is_kept.any():
        raise DataError(
            f"The run in {folder.path} kept no row, so there is nothing to fine-tune on. Decide "
            "again with a higher threshold: `forgetfilter filter RUN --threshold RULE`."
        )
    return Setting(bench, encoded, (), config), is_kept
