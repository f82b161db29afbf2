"""The Python interface does what the command line does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import forgetfilter
from conftest import quick_settings
from forgetfilter import ForgetFilter, Overruling
from forgetfilter.config import load_yaml
from forgetfilter.errors import ConfigError, UnfitError


def test_a_run_is_screened_decided_again_reported_and_freed_from_python(
    tiny_model: Callable[..., Path], make_rows: Callable[..., Path], tmp_path: Path
):
    settings = tmp_path / "settings.yaml"
    safe = str(make_rows(2, start=50))
    content = quick_settings(model=str(tiny_model("llama")), safe_data=safe, coverage="full")
    settings.write_text(yaml.safe_dump(content))
    screener = ForgetFilter(config=settings, is_silent=True)
    run = tmp_path / "run"
    result = screener.screen(make_rows(4), run, coverage="off", threshold="phi:0.3")
    config = load_yaml(run / "config.yaml")
    assert (config["safe_data"], config["coverage"]) == (safe, "off")
    assert result.summary["threshold"]["rule"] == "phi:0.3"

    with pytest.raises(UnfitError, match="--force"):  # it would remove every row
        ForgetFilter.filter(run, "phi:-99")
    again = ForgetFilter.filter(run, "phi:-99", force=True)
    assert again.summary["threshold"]["rule"] == "phi:-99"
    assert again.was_decided_again
    assert len(again.scores) == 4

    again = ForgetFilter.filter(run, "phi:0.3")
    kept = again.scores["decision"].tolist().index("kept")
    asked = Overruling(remove=(kept,), reviewer="Ada")
    by_name = forgetfilter.filter(run, overruling=asked, action="flag")
    assert by_name.scores["decision"][kept] == "removed"
    assert (run / by_name.summary["action_file"]).name == "flagged.jsonl"

    (run / "report.html").unlink()
    # The page is made again from what the run holds.
    stages = {stage.name for stage in (run / "stages").iterdir() if stage.is_dir()}
    assert ForgetFilter.report(run) == run / "report.html"
    assert (run / "report.html").is_file()

    (run / "stages" / "learn-unused").mkdir()
    freed = ForgetFilter.gc(run, is_dry_run=True)
    assert freed.names == ("learn-unused",)
    assert ForgetFilter.gc(run).names == ("learn-unused",)
    assert {stage.name for stage in (run / "stages").iterdir() if stage.is_dir()} == stages


def test_arguments_win_over_the_file_and_a_preset_in_it_counts(tmp_path: Path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"model": "m", "preset": "paper"}))
    ForgetFilter(config=settings)
    with pytest.raises(ConfigError, match="preset is 'papper'"):
        ForgetFilter(config=settings, preset="papper")
    with pytest.raises(ConfigError, match="is made for scores in nats per token"):
        ForgetFilter(config=settings, threshold="auto")  # the paper's signal is in another unit
    ForgetFilter(config=settings, preset="default", threshold="auto")


def test_a_missing_model_and_a_wrong_setting_of_one_screen_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="'model' is missing"):
        ForgetFilter()
    with pytest.raises(ConfigError, match="Setting 'coverage' is 'half'"):
        ForgetFilter("m").screen("noisy.jsonl", tmp_path / "run", coverage="half")
    assert not (tmp_path / "run").exists()
