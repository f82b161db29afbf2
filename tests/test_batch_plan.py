"""Below float32 readings move with how rows share passes, so no run mixes two ways of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forgetfilter.config import LoraSettings, PhaseSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import Probe
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
SMALL = 60
"""Tokens of a pass that hold one of the tests' rows, or two."""


def resumed(folder: Path, config: ScreenConfig, lost: str) -> pd.DataFrame:
    """Readings of a run that lost its end and the stages called so, and was resumed."""
    for stage in (folder / "stages").glob(lost):
        shutil.rmtree(stage)
    (folder / "summary.json").unlink()
    screen(config.model_copy(update={"output_dir": str(folder)}), SILENT)
    return pd.read_parquet(folder / "readings.parquet")


@pytest.mark.parametrize("signal", ["completion_loss", "restoration"])
def test_a_run_resumed_with_other_batches_holds_readings_of_one_plan(
    tmp_path: Path, quick_config: Callable[..., ScreenConfig], signal: str
):
    config = quick_config(tmp_path / "run", signal=signal, dtype="bfloat16")
    screen(config, SILENT)
    stages = tmp_path / "run" / "stages"
    first = set(stages.glob("*-*"))
    shutil.copytree(tmp_path / "run", tmp_path / "all")
    other = config.model_copy(update={"max_batch_tokens": SMALL})
    some = resumed(tmp_path / "run", other, "measure_loss_learned-*")
    everything = resumed(tmp_path / "all", other, "[mr]e[as][st]*")  # measure, restore
    pd.testing.assert_frame_equal(some, everything, check_exact=True)
    # The tiny model may read the same under both plans, so what was read under which is looked up.
    measured = {stage.name.partition("-")[0] for stage in first if stage.name.startswith("measure")}
    again = [stage for stage in stages.glob("measure*") if stage not in first]
    assert {stage.name.partition("-")[0] for stage in again} == measured
    for stage in again:
        key = json.loads((stage / "stage.json").read_text())["key"]
        assert key["batches"] == {"max_batch_tokens": SMALL, "device": "cpu"}
    learned = len(list(stages.glob("learn-*")))
    assert learned == 1  # what the plan can't mix is not trained again
    recorded = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert recorded["max_batch_tokens"] == SMALL


@pytest.mark.parametrize(
    ("dtype", "stages", "tolerance"), [("float32", 1, 1e-5), ("bfloat16", 2, 0.05)]
)
def test_the_plan_names_readings_where_it_moves_them(
    tiny_model: Callable[..., Path],
    make_rows: Callable[..., Path],
    tmp_path: Path,
    dtype: str,
    stages: int,
    tolerance: float,
):
    readings: list[pd.DataFrame] = []
    states: list[ModelState] = []
    for limit in (8192, SMALL):
        bench = Workbench(
            str(tiny_model("llama")),
            StageStore(tmp_path),
            lora=LoraSettings(r=2, alpha=4),
            seed=0,
            progress=SILENT,
            max_batch_tokens=limit,
            max_new_tokens=2,
            dtype=dtype,
        )
        rows, _ = bench.encoder.encode(read_rows(make_rows(16)).rows)
        settings = PhaseSettings(learning_rate=1e-2, max_steps=1, batch_size=4)
        learned = bench.train("learned", rows, settings, bench.base, "learn")
        states.append(learned)
        probes = [
            Probe("loss", "learned"),
            Probe("divergence", "learned"),
            Probe("generation", "learned"),
            Probe("rate", "learned", "kl_to_base", 2),
        ]
        found = bench.measure(probes, {"base": bench.base, "learned": learned}, rows, rows)
        readings.append(pd.DataFrame(dict(found.columns)))
    assert states[0] == states[1]
    for kind in ("measure_loss", "measure_divergence", "measure_generation", "measure_rate"):
        assert len(list(tmp_path.glob(f"{kind}*"))) == stages
    first, second = (table["loss_sum_learned"] / table["completion_tokens"] for table in readings)
    np.testing.assert_allclose(first, second, atol=tolerance, rtol=0)
