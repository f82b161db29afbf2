"""Retrain: fine-tune the base model on what a screen kept, and hand over the adapter."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data import read_rows
from forgetfilter.decision import INPUT_FILE, SCORES_FILE, finished_run, read_summary
from forgetfilter.errors import DataError, RunExistsError
from forgetfilter.files import PART_SUFFIX, fsync_tree, remove, sha256_file
from forgetfilter.progress import Progress
from forgetfilter.records import BoolArray
from forgetfilter.screen import open_workbench
from forgetfilter.stages import StageStore
from forgetfilter.store import RunFolder
from forgetfilter.strategies.base import Setting, fine_tune

_ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class FinetuneResult:
    """A finished fine-tune."""

    adapter: Path
    rows: int
    seconds: float


def finetune(
    run_path: str | Path,
    output_dir: str | Path,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
) -> FinetuneResult:
    """Fine-tune the run's base model on its kept rows, with the learn phase's settings.

    The adapter is trained once per decision; a repeated command copies it again.

    Raises:
        DataError: not a finished run, or no row was kept.
        RunExistsError: ``output_dir`` holds other files.
    """
    progress = progress or Progress()
    output = Path(output_dir)
    is_free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not is_free and not (output / _ADAPTER_FILE).is_file():
        raise RunExistsError(
            f"{output} holds other files. Expected a new folder, or one with an adapter that may "
            "be replaced. Choose another --output-dir."
        )
    with finished_run(run_path) as folder:
        config = resolve(ScreenConfig, folder.config())
        setting, is_kept = stored_setting(folder, config, progress)
        bench = setting.bench
        state = fine_tune(setting, is_kept, bench.base)
        record_stages(folder, bench.store)
        assert state.adapter is not None
        _hand_over(Path(state.adapter), output, overwrite=overwrite)
    return FinetuneResult(output, int(is_kept.sum()), sum(bench.store.seconds().values()))


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
    encoded, _ = bench.encoder.encode(read_rows(folder.path / INPUT_FILE).rows)
    decisions = frame["decision"].to_numpy()[[row.row for row in encoded]]
    is_kept: BoolArray = decisions == "kept"
    if not is_kept.any():
        raise DataError(
            f"The run in {folder.path} kept no row, so there is nothing to fine-tune on. Decide "
            "again with a higher threshold: `forgetfilter filter RUN --threshold RULE`."
        )
    return Setting(bench, encoded, (), config), is_kept


def _hand_over(adapter: Path, output: Path, *, overwrite: bool) -> None:
    """Copy an adapter to where the user wants it, whole or not at all."""
    weights = output / _ADAPTER_FILE
    if weights.exists():
        if sha256_file(weights) == sha256_file(adapter / _ADAPTER_FILE):
            return
        if not overwrite:
            raise RunExistsError(
                f"{output} holds another adapter. Expected a new folder, or the adapter of this "
                "very decision. Use --overwrite to replace it, or another --output-dir."
            )
    part = output.with_name(output.name + PART_SUFFIX)
    remove(part)
    shutil.copytree(adapter, part)
    fsync_tree(part)
    remove(output)
    os.replace(part, output)
