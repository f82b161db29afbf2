"""--fail-on: conditions are understood or refused before any work, and end with status 4."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.cli import main
from forgetfilter.cli.fail_on import STATUS, failed, parse_conditions
from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen

SUMMARY: dict[str, Any] = {
    "rows": 200,
    "kept": 180,
    "removed": 10,
    "rejected": 10,
    "undecided": 0,
    "judged": 150,
    "learned_share": 0.75,
    "verdict": {"level": "some"},
}


def test_a_dry_run_makes_no_decision_that_could_fail(capsys: pytest.CaptureFixture[str]):
    assert main(["filter", "run", "--dry-run", "--fail-on", "removed>0"]) == 1
    assert "Repeat without --fail-on, or without --dry-run." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("removed>0", True),
        ("removed > 9.5", True),
        ("removed>10", False),
        ("removed>=10", True),
        ("removed<10", False),
        ("removed<=10", True),
        ("removed=10", True),
        ("removed==10", True),
        ("removed!=10", False),
        ("removed_share>0.05", False),
        ("removed_share>=.05", True),
        ("judged_share<0.8", True),
        ("learned_share<0.8", True),
        ("rejected>0", True),
        ("undecided>0", False),
        ("verdict=some", True),
        ("verdict!=none", True),
        ("verdict=many", False),
    ],
)
def test_a_condition_compares_a_figure_of_the_decision(text: str, holds: bool):
    assert bool(failed(parse_conditions([text]), SUMMARY)) == holds


def test_a_figure_that_is_not_known_passes_no_check():
    assert failed(parse_conditions(["verdict=many", "judged<1"]), {"rows": 3, "removed": 0})


@pytest.mark.parametrize(
    ("text", "expected", "remedy"),
    [
        ("removed", "Expected a name, one of > >= <", "Write it in quotes"),
        ("", "Expected a name, one of > >= <", "Write it in quotes"),
        ("removed>0; rm -rf .", "Expected a name, one of > >= <", "Write it in quotes"),
        ("__import__('os')>0", "Expected a name", "--fail-on 'removed>0'"),
        ("remved>0", "Expected one of rows, kept, removed", "'removed>0'"),
        ("removed>many", "Expected a number after >", "'removed>0'"),
        ("removed>nan", "Expected a number after >", "'removed>0'"),
        ("removed_share>5", "Expected a share between 0 and 1", "'removed_share>0.05'"),
        ("verdict>some", "Expected verdict = or != one of none, some", "--fail-on verdict=some"),
        ("verdict=lots", "Expected verdict = or != one of none, some", "--fail-on verdict=some"),
    ],
)
def test_a_condition_that_is_none_is_refused_in_three_beats(text: str, expected: str, remedy: str):
    with pytest.raises(ConfigError) as caught:
        parse_conditions(["removed>0", text])
    said = str(caught.value)
    assert said.startswith("--fail-on was given ")
    assert text[:20] in said
    assert expected in said
    assert remedy in said


def test_what_a_terminal_would_obey_is_not_repeated_to_it():
    with pytest.raises(ConfigError) as caught:
        parse_conditions(["\x1b[2J\u202e"])
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


@pytest.fixture(scope="module")
def finished(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[ScreenConfig, Path]:
    config = quick_config(tmp_path_factory.mktemp("fail_on") / "run", threshold="fraction:0.25")
    screen(config, Progress(is_silent=True))
    return config, Path(config.output_dir)


def test_the_exit_status_of_screen_and_filter(
    finished: tuple[ScreenConfig, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _, made = finished
    run = tmp_path / "run"
    shutil.copytree(made, run)
    command = ["screen", "--config", str(made / "config.yaml"), "--output-dir", str(run), "--quiet"]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--fail-on", "rejected>0", "--fail-on", "removed>0"]) == STATUS == 4
    said = capsys.readouterr()
    assert "forgetfilter: --fail-on removed>0 holds." in said.err
    assert "rejected>0" not in said.err
    assert "4 removed" in said.out
    assert "could be judged" in said.out
    assert "Verdict: can't tell. The rule fraction:" in said.out
    again = ["filter", str(run), "--force", "--threshold"]
    assert main([*again, "phi:1e9", "--fail-on", "removed>0"]) == 0
    assert main([*again, "fraction:0.5", "--fail-on", "removed_share>0.4"]) == 4


def test_a_condition_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["screen", "nowhere.jsonl", "--model", "nowhere", "--output-dir", str(tmp_path / "run")]
    assert main([*words, "--fail-on", "removed"]) == 1
    said = capsys.readouterr().err
    assert "--fail-on was given 'removed'" in said
    assert "nowhere" not in said
    assert not (tmp_path / "run").exists()
    assert main(["filter", "nowhere", "--threshold", "auto", "--fail-on", "x"]) == 1
    assert "--fail-on was given 'x'" in capsys.readouterr().err
