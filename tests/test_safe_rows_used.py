"""A screen reads damage on all its safe rows and says how many it has restored on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import rows_of, write_rows
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.strata import DAMAGE_ROWS, damage_rows
from forgetfilter.model.stages.phases import early
from forgetfilter.model.state import ModelState
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Probe
from forgetfilter.screening.deciding.decide import READINGS_FILE, run_folder
from forgetfilter.screening.inputs.setup import encode_safe, open_workbench
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
LEARN = {"max_steps": 8, "batch_size": 8, "learning_rate": 3e-2}


@pytest.fixture
def config(tmp_path: Path, quick_config: Callable[..., ScreenConfig]) -> ScreenConfig:
    """A screen on 40 safe rows, 4 of them of a rare category; 2 steps of 4 rows a restoration."""
    made = rows_of(40, start=100)
    safe = [{**row, "category": "rare" if at % 10 == 3 else "many"} for at, row in enumerate(made)]
    path = str(write_rows(tmp_path / "safe.jsonl", safe))
    return quick_config(tmp_path / "run", safe_data=path, learn=LEARN, signal="restoration")


def test_damage_is_read_on_all_safe_rows_whatever_is_restored_on(config: ScreenConfig):
    result = screen(config, SILENT)
    readings = pd.read_parquet(result.output_dir / READINGS_FILE)
    bench = open_workbench(config, run_folder(config.output_dir), SILENT)
    noisy, _ = bench.encoder.encode(read_rows(config.noisy_data).rows)
    safe = encode_safe(config, bench, SILENT)
    learned = bench.train("learned", noisy, config.learn, bench.base, phase="learn")
    states: dict[Any, ModelState] = {"learned": learned, "early": early(learned)}
    for name in states:
        found = bench.measure([Probe("divergence", name)], states, safe)[f"divergence_{name}"]
        assert len(found) == 40
        assert found.mean() > 0
        np.testing.assert_allclose(readings[f"damage_{name}"], found.mean(), rtol=1e-6)


def test_the_summary_says_how_many_safe_rows_were_used(config: ScreenConfig):
    used = screen(config, SILENT).summary["safe_rows"]
    assert (used["used"], used["of"]) == (8, 40)
    kinds = used["by_category"]
    assert kinds == {"many": {"used": 7, "of": 36}, "rare": {"used": 1, "of": 4}}


def test_a_forgetting_run_says_so_too(config: ScreenConfig):
    changed = config.model_copy(update={"signal": "completion_loss", "threshold": "phi:1"})
    used = screen(changed, SILENT).summary["safe_rows"]
    assert used == {"used": 16, "of": 40, "by_category": {}}  # 2 steps of 8 rows


def test_of_many_safe_rows_a_few_hundred_hold_every_category(config: ScreenConfig):
    bench = open_workbench(config, run_folder(config.output_dir), SILENT)
    safe = encode_safe(config, bench, SILENT)
    many = [replace(safe[at % 40], row=at) for at in range(1000)]
    few = damage_rows(many, 0)
    assert len(few) == DAMAGE_ROWS
    assert abs(sum(row.category == "rare" for row in few) - DAMAGE_ROWS / 10) <= 1
