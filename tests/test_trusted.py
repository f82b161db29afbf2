"""Rows that are known to be harmless: the rate that they promise, and that they are always kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import quick_settings, rows_of, write_rows
from forgetfilter import cli
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.errors import ConfigError
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Readings
from forgetfilter.scoring.thresholds import THRESHOLDS, choose_rule, decide
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)


def readings_of(trusted: list[bool], learned: list[bool] | None = None) -> Readings:
    count = len(trusted)
    after = np.where([True] * count if learned is None else learned, 0.0, 1.0)
    columns = {
        "is_trusted": np.array(trusted),
        "greedy_match_learned": np.zeros(count, dtype=bool),
        "loss_sum_base": np.ones(count),
        "loss_sum_learned": after,
    }
    return Readings(np.arange(count), columns)


def test_the_cut_by_hand():
    # 9 trusted rows at a rate of 0.2: (1 + 1) / 10 is small enough, so one of them may be above.
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.85, 0.79, 0.95, 0.8])
    readings = readings_of([True] * 9 + [False] * 4)
    found = decide(THRESHOLDS.build("conformal:rate=0.2"), scores, readings, needs_learned=False)
    assert found.cut.value == 0.8
    assert found.is_removed.tolist() == [False] * 9 + [True, False, True, False]
    assert found.reasons[8] == "trusted"
    assert found.reasons[9:] == ["above_threshold", "below_threshold"] * 2
    # 2 of the 4 others stay and are taken for harmless: 2 in 10 of those would have gone.
    assert found.cut.expected_false_removals == pytest.approx(2 * 0.2 / 0.8)


def test_a_trusted_row_that_was_not_learned_measures_nothing():
    scores = np.array([*np.linspace(0.1, 0.9, 9), 5.0, 0.95])
    rule = THRESHOLDS.build("conformal:rate=0.1")
    learned = [True] * 9 + [False, True]
    found = decide(rule, scores, readings_of([True] * 10 + [False], learned))
    assert found.cut.value == 0.9
    assert found.is_removed.tolist() == [False] * 10 + [True]


def test_with_too_few_trusted_rows_nothing_goes():
    scores = np.array([0.1] * 8 + [7.0, 9.0])
    rule = THRESHOLDS.build("conformal:rate=0.1")
    found = decide(rule, scores, readings_of([True] * 8 + [False] * 2), needs_learned=False)
    assert not found.is_removed.any()
    assert found.cut.lacks_estimate
    assert found.cut.notes["rows_needed"] == 9


@pytest.mark.parametrize("rule", ["auto", "valley", "valley:noise=kept,spread=10"])
def test_of_trusted_rows_above_the_cut_no_rule_says_that_they_went(rule: str):
    # A hundred trusted rows score as high as the five that go; a harmless tail reaches the cut.
    draw = np.random.default_rng(0)
    scores = np.concatenate([np.abs(draw.normal(0, 0.02, 895)), np.full(105, 0.6)])
    trusted = [False] * 900 + [True] * 100
    told = readings_of(trusted)
    alone = np.where(trusted, 0.9, scores)
    readings = Readings(told.row, {**told.columns, "alone": alone})
    found = decide(THRESHOLDS.build(rule), scores, readings, needs_learned=False)
    assert int(found.is_removed.sum()) == 5
    assert found.cut.expected_false_removals is not None
    assert found.cut.expected_false_removals <= found.cut.notes["harmless_at_most"] <= 5
    assert "kept_as_unlike" not in found.cut.notes


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_harmless_rows_go_at_most_at_the_rate(rate: float):
    # Of 2,000 files; the mean share removed has a standard error below a fortieth of the rate.
    draw, shares = np.random.default_rng(0), []
    rule, trusted = THRESHOLDS.build(f"conformal:rate={rate}"), [True] * 150 + [False] * 200
    readings = readings_of(trusted)
    for _ in range(2000):
        scores = draw.standard_t(2, 350)
        found = decide(rule, scores, readings, needs_learned=False)
        shares.append(found.is_removed[150:].mean())
    assert rate / 2 < np.mean(shares) <= rate * 1.025


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=60),
    st.lists(st.floats(-5, 5), min_size=1, max_size=60),
    st.floats(0.01, 0.5),
)
@settings(max_examples=200, deadline=None)
def test_who_goes_has_a_small_p_value(known: list[float], others: list[float], rate: float):
    scores = np.array([*known, *others])
    readings = readings_of([True] * len(known) + [False] * len(others))
    found = decide(THRESHOLDS.build(f"conformal:rate={rate!r}"), scores, readings)
    p = [(1 + sum(one >= own for one in known)) / (len(known) + 1) for own in others]
    gone = found.is_removed[len(known) :]
    assert gone.tolist() == [value <= rate + 1e-9 / (len(known) + 1) for value in p]
    assert not found.is_removed[: len(known)].any()


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.1, 9), (0.02, 49), (0.5, 1)])
def test_how_many_are_needed(rate: float, needed: int):
    rule: Any = THRESHOLDS.build(f"conformal:rate={rate}")
    assert rule.rows_needed == needed


def test_which_rule_decides():
    assert choose_rule("crossfit", None, has_trusted=True) == "conformal"
    assert choose_rule("crossfit", "auto", has_trusted=True) == "valley"
    assert choose_rule("crossfit", None) == "valley"


def test_a_screen_with_trusted_rows(tmp_path: Path, tiny_model: Callable[[str], Path]):
    rows = rows_of(40)
    noisy = write_rows(tmp_path / "noisy.jsonl", rows[:16])
    trusted = write_rows(tmp_path / "ours.jsonl", rows[16:40])
    told = {"noisy_data": str(noisy), "trusted_data": str(trusted)}
    options = quick_settings(
        **told, model=str(tiny_model("llama")), output_dir=str(tmp_path / "run")
    )
    few = resolve(ScreenConfig, options)
    with pytest.raises(ConfigError, match=r"24 rows .* fewer than 99.*conformal:rate=0\.05"):
        screen(few, SILENT)
    options["threshold"] = "conformal:rate=0.05"
    result = screen(resolve(ScreenConfig, options), SILENT)
    scores = result.scores
    assert result.summary["rows"] == len(scores) == 40
    assert set(scores["reason"][16:]) == {"trusted"}
    assert set(scores["decision"][16:]) == {"kept"}
    highest = scores["forgetting_score"][16:].max()
    gone = (scores["decision"][:16] == "removed").tolist()
    assert gone == (scores["forgetting_score"][:16] > highest).tolist()
    written = [
        line
        for name in ("kept.jsonl", "removed.jsonl")
        for line in (tmp_path / "run" / name).read_bytes().splitlines()
    ]
    given_lines = [*noisy.read_bytes().splitlines(), *trusted.read_bytes().splitlines()]
    assert sorted(written) == sorted(given_lines)
    # Another rate, from the stored scores; and a rule that knows no trusted rows keeps them too.
    # These weights are random: at a rate of 0.5 so many rows may go that nothing is decided.
    fifth = filter_run(tmp_path / "run", "conformal:rate=0.2")
    known = np.sort(scores["forgetting_score"][16:])
    assert fifth["removed"] == (scores["forgetting_score"][:16] > known[-5]).sum()
    assert fifth["removed"] >= result.summary["removed"]
    filter_run(tmp_path / "run", "fraction:0.9", force=True)
    again = pd.read_parquet(tmp_path / "run" / "scores.parquet")
    assert set(again["decision"][16:]) == {"kept"}
    assert "removed" in set(again["decision"][:16])


def test_the_rule_asks_for_trusted_rows(
    tmp_path: Path, tiny_model: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
):
    noisy = write_rows(tmp_path / "noisy.jsonl", rows_of(12))
    words = ["screen", str(noisy), "--model", str(tiny_model("llama")), "--threshold", "conformal"]
    assert cli.main([*words, "--output-dir", str(tmp_path / "run"), "--quiet"]) == 1
    told = capsys.readouterr().err
    assert "none were given" in told
    assert "--trusted-data" in told


def test_a_missing_file_is_named_by_its_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noisy = write_rows(tmp_path / "noisy.jsonl", rows_of(4))
    words = ["screen", str(noisy), "--model", "any", "--trusted-data", str(tmp_path / "no.jsonl")]
    assert cli.main([*words, "--output-dir", str(tmp_path / "run")]) == 1
    assert "Can't read trusted_data" in capsys.readouterr().err
    assert json.loads(noisy.read_bytes().splitlines()[0])
