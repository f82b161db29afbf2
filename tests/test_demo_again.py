"""The demonstration: it evaluates the present decision, and leaves other people's files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import quick_settings
from forgetfilter.lab.demo import DemoSettings, run_demo
from forgetfilter.progress import Progress
from forgetfilter.screening.deciding.decide import filter_run, finished_run

SILENT = Progress(is_silent=True)


@pytest.fixture
def demo(tiny_world_model: Path, tmp_path: Path) -> DemoSettings:
    model = str(tiny_world_model)
    return DemoSettings(tmp_path / "demo", rows=30, safe_rows=12, probes=9, model=model)


def layer(**changes: Any) -> tuple[dict[str, Any]]:
    # Enough steps that some rows are learned, so that some can be removed.
    learn = {"max_steps": 60, "batch_size": 8, "learning_rate": 3e-2}
    lora = {"r": 8, "alpha": 16}
    settled = {"threshold": "fraction:0.25", "signal": "restoration", **changes}
    return (quick_settings(learn=learn, lora=lora, **settled),)


def test_a_report_says_nothing_of_a_decision_before_the_last(demo: DemoSettings):
    run = demo.output_dir / "run"
    first = run_demo(demo, layer(), SILENT)
    report = run / "report.html"
    assert json.loads((run / "summary.json").read_text())["removed"] > 0
    recall = f"<dd>{first['detection']['recall']:.3f}</dd>"
    assert recall in report.read_text()
    assert "fine-tuned, screened" in report.read_text()

    summary = filter_run(run, "phi:1e9", force=True)  # every row is kept
    assert summary["removed"] == 0
    assert "fine-tuned, screened" not in report.read_text()
    assert recall not in report.read_text()
    assert "is of an earlier decision and is left out" in report.read_text()

    again = run_demo(demo, ({**layer()[0], "threshold": "phi:1e9"},), SILENT)
    assert again["made_from"]["decision"] != first["made_from"]["decision"]
    assert again["detection"]["recall"] == 0
    by_name = {model.pop("name"): model for model in again["models"]}
    assert by_name["fine-tuned, screened"] == by_name["fine-tuned, unscreened"]
    assert "fine-tuned, screened" in report.read_text()

    filter_run(run, "fraction:0.25", force=True)  # the first decision again, by another command
    assert json.loads((run / "evaluation.json").read_text()) == {
        **again,
        "models": [{"name": name, **values} for name, values in by_name.items()],
    }
    assert "is of an earlier decision" in report.read_text()


@pytest.mark.slow
def test_the_same_demonstration_is_evaluated_once(demo: DemoSettings):
    first = run_demo(demo, layer(), SILENT)
    written = (demo.output_dir / "run" / "evaluation.json").stat().st_mtime_ns
    assert run_demo(demo, layer(), SILENT) == first
    assert (demo.output_dir / "run" / "evaluation.json").stat().st_mtime_ns == written
    with finished_run(demo.output_dir / "run") as folder:
        trained = folder.provenance()["trained"]
    assert trained["decision"] == first["made_from"]["decision"]
    assert any(name.startswith("retrain-") for name in trained["stages"])
