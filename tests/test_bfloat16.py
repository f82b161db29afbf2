"""A screen in bfloat16, what a GPU computes in by default, says nearly what float32 says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forgetfilter.config import ScreenConfig
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
# bfloat16 keeps 8 bits: numbers are off by up to 0.4%, here of losses of about 5 nats a token.
NATS = 0.1
# Scores are differences of such losses; 3 to 6% of the largest were measured.
SHARE = 0.1


def scores_in(
    dtype: str, config: Callable[..., ScreenConfig], folder: Path, **settings: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and readings of a screen of 16 rows by the tiny model, computed in ``dtype``."""
    learn = {"max_steps": 16, "batch_size": 8, "learning_rate": 1e-2}
    screen(config(folder / dtype, dtype=dtype, learn=learn, **settings), SILENT)
    scores = pd.read_parquet(folder / dtype / "scores.parquet")
    return scores, pd.read_parquet(folder / dtype / "readings.parquet")


@pytest.mark.parametrize("signal", ["restoration", "completion_loss", "rate"])
def test_a_screen_in_bfloat16_runs_and_scores_as_in_float32(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path, signal: str
):
    found = {
        dtype: scores_in(dtype, quick_config, tmp_path, signal=signal, threshold="fraction:0.3")
        for dtype in ("float32", "bfloat16")
    }
    (exact, exact_readings), (rounded, rounded_readings) = found.values()
    tokens = exact_readings["completion_tokens"]
    assert (exact_readings["loss_sum_base"] / tokens).mean() > 2  # it is not small next to NATS
    for state in ("base", "learned"):
        column = f"loss_sum_{state}"
        apart = (exact_readings[column] - rounded_readings[column]).abs() / tokens
        assert 0 < apart.max() < NATS, (state, apart.max())  # rounded, and no further off
    learned = exact_readings["loss_sum_base"] - exact_readings["loss_sum_learned"]
    assert (learned / tokens).mean() > 5 * NATS  # so that the comparison says something
    scores = exact["forgetting_score"], rounded["forgetting_score"]
    assert np.isfinite(scores[1]).all()
    assert (scores[0] - scores[1]).abs().max() < SHARE * scores[0].abs().max()
    assert np.corrcoef(*scores)[0, 1] > 0.95
