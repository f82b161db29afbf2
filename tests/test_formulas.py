"""A finished run is decided again where the formula of its signal or of its rule has changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forgetfilter.config import ScreenConfig
from forgetfilter.progress import Progress
from forgetfilter.scoring.formulas import (
    changed_formulas,
    formulas_named,
    rule_version,
    signal_version,
)
from forgetfilter.scoring.records import Readings, SignalScores
from forgetfilter.scoring.signals.restoration import Restoration
from forgetfilter.scoring.thresholds.fraction import Fraction
from forgetfilter.screening.screen import screen


class Told(Progress):
    """Remembers what is said."""

    def __init__(self) -> None:
        super().__init__(is_silent=True)
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def finished(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ScreenConfig]:
    run = tmp_path_factory.mktemp("formulas") / "run"
    learn = {"max_steps": 30, "batch_size": 8, "learning_rate": 2e-2}
    settings = {"learn": learn, "signal": "restoration", "coverage": "off"}
    config = quick_config(run, threshold="fraction:0.25", **settings)
    screen(config, Told())
    return run, config


@pytest.fixture
def run(finished: tuple[Path, ScreenConfig], tmp_path: Path) -> tuple[Path, ScreenConfig]:
    """A finished run of one's own."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run", finished[1].model_copy(update={"output_dir": str(tmp_path / "run")})


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))


def made(run: Path) -> dict[str, int]:
    """When each stage was made."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("stages/*/stage.json")}


def test_a_run_records_its_formulas(run: tuple[Path, ScreenConfig]):
    folder, config = run
    assert summary_of(folder)["formulas"] == {"signal": 1, "rule": 1}
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["formulas"] == {"signal": 1, "rule": 1}
    assert screen(config, told := Told()).was_finished
    assert not any("formula" in line for line in told.lines)


def test_another_formula_of_the_signal_scores_again_from_the_readings(
    run: tuple[Path, ScreenConfig], monkeypatch: pytest.MonkeyPatch
):
    folder, config = run
    scores = pd.read_parquet(folder / "scores.parquet")["forgetting_score"].to_numpy()
    readings, stages = (folder / "readings.parquet").read_bytes(), made(folder)
    own = Restoration.combine

    def doubled(self: Restoration, readings: Readings) -> SignalScores:
        found = own(self, readings)
        return SignalScores(found.base, found.before, found.after, 2 * found.forgetting_score)

    monkeypatch.setattr(Restoration, "combine", doubled)
    assert screen(config, Told()).was_finished  # nobody has said that it is another
    monkeypatch.setattr(Restoration, "version", 7, raising=False)
    result = screen(config, told := Told())
    assert not result.was_finished
    assert any("formula of restoration: version 1 -> 7" in line for line in told.lines)
    assert np.allclose(pd.read_parquet(folder / "scores.parquet")["forgetting_score"], 2 * scores)
    assert (folder / "readings.parquet").read_bytes() == readings
    assert {name: at for name, at in made(folder).items() if name in stages} == stages
    assert not [name for name in set(made(folder)) - set(stages) if "learn" in name]
    assert summary_of(folder)["formulas"]["signal"] == 7
    assert screen(config, Told()).was_finished


def test_another_formula_of_the_rule_decides_again_without_a_model(
    run: tuple[Path, ScreenConfig], monkeypatch: pytest.MonkeyPatch
):
    folder, config = run
    before = summary_of(folder)
    own = Fraction.cut

    def lower(self: Fraction, *given: Any) -> Any:
        self.value = 0.5
        return own(self, *given)

    monkeypatch.setattr(Fraction, "cut", lower)
    monkeypatch.setattr(Fraction, "version", 2, raising=False)
    monkeypatch.setattr("forgetfilter.screening.screen.open_workbench", None)  # no model is there
    result = screen(config, told := Told())
    assert result.was_decided_again
    assert any("formula of fraction:0.25: version 1 -> 2" in line for line in told.lines)
    assert result.summary["removed"] > before["removed"]
    assert summary_of(folder)["formulas"] == {"signal": 1, "rule": 2}


def test_runs_that_recorded_none_are_of_the_first_formulas():
    crossfit, valley = signal_version("crossfit"), rule_version("valley")
    assert crossfit > 1
    old = {"signal": "crossfit", "threshold": {"rule": "valley"}}
    assert set(changed_formulas(old, "crossfit", "valley")) == {"signal", "rule"}
    assert set(changed_formulas(old, "restoration", "phi:0.1")) == set()  # that is another setting
    now = {**old, "formulas": {"signal": crossfit, "rule": valley}}
    assert changed_formulas(now, "crossfit", "valley") == {}
    old = {"signal": "restoration", "threshold": {"rule": "auto"}}
    assert changed_formulas(old, "restoration", "auto") == {}


def test_formulas_that_have_changed_are_found_by_name():
    assert formulas_named("forget_filter:signal=restoration,threshold=phi:0.1") == {}
    specs = "token_mask:signal=self_training", 'row_scorer:scorer="forgetting:signal=crossfit"'
    found = formulas_named(*specs, "valley:least=0.04")
    assert found == {
        "crossfit": signal_version("crossfit"),
        "self_training": signal_version("self_training"),
        "valley": rule_version("valley"),
    }
    assert all(version > 1 for version in found.values())
