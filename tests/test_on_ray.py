"""Rows are read by workers of a local Ray cluster, one of which is killed on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import quick_settings
from forgetfilter.cli import main
from forgetfilter.config import LoraSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.model.team import on_ray
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore


@pytest.mark.parametrize("engine", ["rai", "ray:", "ray:0", "ray:two"])
def test_another_engine_is_refused(engine: str, quick_config: Any, tmp_path: Path, capsys: Any):
    config = quick_config(tmp_path / "run")
    words = ["screen", str(config.noisy_data), "--model", config.model, "--engine", engine]
    words += ["--safe-data", config.safe_data, "--output-dir", str(tmp_path / "run")]
    assert main(words) == 1
    assert f"--engine is '{engine}'; expected ray, or ray:N" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def losses_of_one_that_dies(model: Any, rows: Any, limit: int, progress: Any, label: str) -> Any:
    """`completion_losses`, but the first worker that is asked kills itself half way."""
    found = completion_losses(model, rows[: len(rows) // 2], limit, progress, label)
    try:
        Path(label).touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        found = completion_losses(model, rows, limit, progress, label)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_that_is_killed_loses_nothing(
    tiny_model: Callable[..., Path], tmp_path: Path, silent: Progress, monkeypatch: Any
):
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    store = StageStore(tmp_path / "stages")
    lora = LoraSettings(r=2)
    bench = Workbench(
        str(tiny_model("llama")), store, lora=lora, seed=0, progress=silent, device="cpu"
    )
    draws = np.random.default_rng(0)
    rows = [
        EncodedRow(at, draws.integers(10, 200, 20), np.arange(20) >= 10, 10, "") for at in range(50)
    ]
    known = completion_losses(bench.model.to_read(bench.base), rows, 64, silent, "alone")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setitem(on_ray._ROWS_AT, losses_of_one_that_dies, (0,))
    monkeypatch.setattr(bench, "max_batch_tokens", 64)
    label = str(tmp_path / "died")
    with on_ray.reading_on_ray(2):
        cluster = on_ray.cluster()
        assert cluster is not None
        arguments = (rows, 64, silent, label)
        found = cluster.read(bench, "to_read", bench.base, losses_of_one_that_dies, arguments)
    assert Path(label).exists()
    np.testing.assert_allclose(found.loss_sum, known.loss_sum, atol=1e-5)
    np.testing.assert_array_equal(found.greedy_match, known.greedy_match)
    assert on_ray.cluster() is None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_screen_on_ray_decides_as_one_process(
    tiny_model: Callable[..., Path], make_rows: Callable[..., Path], tmp_path: Path
):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    settings = tmp_path / "quick.yaml"
    settings.write_text(yaml.safe_dump(quick_settings(signal="restoration", coverage="off")))
    words = ["screen", str(make_rows(22)), "--model", str(tiny_model("llama")), "--quiet"]
    words += ["--safe-data", str(make_rows(9, start=100)), "--config", str(settings)]
    words += ["--device", "cpu"]
    assert main([*words, "--output-dir", str(tmp_path / "one")]) == 0
    assert main([*words, "--output-dir", str(tmp_path / "ray"), "--engine", "ray:2"]) == 0
    known, found = (pd.read_parquet(tmp_path / n / "scores.parquet") for n in ("one", "ray"))
    assert list(found["decision"]) == list(known["decision"])
    numbers = known.select_dtypes("number").columns
    np.testing.assert_allclose(found[numbers], known[numbers], atol=1e-4)
