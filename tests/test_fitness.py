"""Fitness checks: what can't be trusted is said, and nothing is decided by it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import build_model, save_model, write_rows
from forgetfilter import ForgetFilter
from forgetfilter.cli import main
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import DataError, UnfitError
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_safe
from forgetfilter.progress import Progress
from forgetfilter.runs.schema import Finding
from forgetfilter.scoring.records import Cut, Readings, Selection, SignalScores, is_learned
from forgetfilter.scoring.thresholds.auto import Auto
from forgetfilter.screening.checks.coverage_verdict import Coverage, HarmCoverage
from forgetfilter.screening.checks.fitness import (
    check_alike,
    check_by_heart,
    check_coverage,
    check_decision,
    check_known,
    check_learned,
    check_selective,
    is_severe,
)
from forgetfilter.screening.deciding.decide import filter_run, is_finished
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
GUESSING = math.log(992)


def names(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(found.name, found.severity) for found in findings]


def readings(base: list[float], learned: list[float]) -> Readings:
    count = len(base)
    return Readings(
        row=np.arange(count),
        columns={
            "completion_tokens": np.ones(count, dtype=np.int64),
            "guessing": np.full(count, GUESSING),
            "loss_sum_base": np.array(base),
            "loss_sum_learned": np.array(learned),
            "greedy_match_learned": np.zeros(count, dtype=bool),
        },
    )


def encoded(*tokens: int) -> EncodedRow:
    return EncodedRow(0, (1, *tokens), (False, *[True] * len(tokens)), 1, "")


class TestChecks:
    @pytest.mark.parametrize(
        ("median", "expected"),
        [
            (1.0, []),
            (5.1, []),
            (5.3, [("noisy_rows_unknown", "warning")]),
            (7.0, [("noisy_rows_unknown", "warning")]),  # a model that was never trained
            (8.8, [("noisy_rows_unknown", "severe")]),
            (17.0, [("noisy_rows_unknown", "severe")]),
        ],
    )
    def test_a_base_loss_near_guessing_says_that_the_language_is_unknown(
        self, median: float, expected: list[tuple[str, str]]
    ):
        tokens = np.array([2.0, 2.0, 2.0])
        loss = np.array([0.0, 2 * median, 99.0])
        assert names(check_known("noisy", loss, tokens, GUESSING)) == expected

    def test_a_row_whose_loss_stays_above_guessing_is_not_learned(self):
        found = is_learned(
            np.array([17.0, 17.0, 4.0, 17.0]),
            np.array([8.0, 6.0, 3.0, 8.0]),
            np.array([False, False, False, True]),
            np.full(4, GUESSING),
        )
        assert found.tolist() == [False, True, False, True]
        assert readings([17.0, 17.0], [8.0, 6.0]).learned.tolist() == [False, True]

    @pytest.mark.parametrize(
        ("learned", "expected"),
        [
            (6, []),
            (4, [("rows_not_learned", "warning")]),
            (0, [("rows_not_learned", "severe")]),
        ],
    )
    def test_few_learned_rows_are_told(self, learned: int, expected: list[tuple[str, str]]):
        after = [0.1] * learned + [3.9] * (10 - learned)
        assert names(check_learned(readings([4.0] * 10, after))) == expected

    @pytest.mark.parametrize(
        ("own", "other", "expected"),
        [
            (1.0, 1.5, []),  # a quarter of what is learned is the row's own
            (1.0, 2.6, [("learned_by_heart", "warning")]),
            (1.0, 3.2, [("learned_by_heart", "warning")]),  # others even lose by it
            (2.98, 3.0, []),  # nothing is learned
        ],
    )
    def test_what_only_a_rows_own_model_knows_was_learned_by_heart(
        self, own: float, other: float, expected: list[tuple[str, str]]
    ):
        plain = readings([3.0] * 4, [1.0] * 4)
        assert check_by_heart(plain) == []  # the signal has no halves
        halves = {
            "loss_sum_half_a": np.array([own, other, own, other]),
            "loss_sum_half_b": np.array([other, own, other, own]),
        }
        found = check_by_heart(Readings(plain.row, {**plain.columns, **halves}))
        assert names(found) == expected

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    @pytest.mark.parametrize(
        ("lost", "expected"),
        [
            ([0.0, 0.0, 0.0, 3.0], []),
            ([0.0, 0.6, 3.0, 3.0], [("changed_as_a_whole", "warning")]),
            ([2.0, 2.0, 2.0, 3.0], [("changed_as_a_whole", "severe")]),
        ],
    )
    def test_a_model_that_lost_all_that_it_learned_has_changed_as_a_whole(
        self, lost: list[float], expected: list[tuple[str, str]], sign: float
    ):
        base, before = np.full(4, 4.0), np.full(4, 0.1)
        scores = SignalScores(sign * base, sign * before, sign * (before + lost), np.array(lost))
        assert names(check_selective(readings([4.0] * 4, [0.1] * 4), scores)) == expected
        no_later_state = SignalScores(base, before, None, np.array(lost))
        assert check_selective(readings([4.0] * 4, [0.1] * 4), no_later_state) == []

    def test_of_what_base_knew_already_nothing_can_be_lost(self):
        # Eighty rows that base answers to 0.02 nats, and twenty that were learned and are kept.
        base, before = np.full(100, 0.02), np.full(100, 0.018)
        base[80:], before[80:] = 4.0, 0.1
        after = np.where(np.arange(100) < 80, 0.02, 0.1)
        told = readings(base.tolist(), before.tolist())
        told.columns["greedy_match_learned"][:] = True
        scores = SignalScores(base, before, after, after - before)
        assert check_selective(told, scores) == []
        lost = SignalScores(base, before, np.where(np.arange(100) < 80, 0.02, 2.0), after)
        assert names(check_selective(told, lost)) == [("changed_as_a_whole", "severe")]

    def test_safe_rows_in_another_language_are_told(self):
        noisy = [encoded(5, 6, 7, 8), encoded(9, 10)]
        assert check_alike(noisy, [encoded(5, 6), encoded(7)]) == []
        assert names(check_alike(noisy, [encoded(5, 6)])) == [("safe_rows_unlike", "warning")]

    def test_most_rows_removed_is_severe_unless_that_share_was_asked_for(self):
        is_removed = np.array([True, True, False])
        learned = np.ones(3, dtype=bool)
        cut = Selection(Cut(0.1), is_removed, ["", "", ""])
        assert names(check_decision(cut, learned, ~learned)) == [("most_rows_removed", "severe")]
        asked = Selection(Cut(0.1, fixes_share=True), is_removed, ["", "", ""])
        assert check_decision(asked, learned, ~learned) == []
        few = Selection(Cut(0.1), ~is_removed, ["", "", ""])
        assert check_decision(few, learned, ~learned) == []

    @pytest.mark.parametrize(("removed", "expected"), [(50, []), (55, []), (65, ["severe"])])
    def test_a_file_of_which_half_is_unsafe_is_decided(self, removed: int, expected: list[str]):
        found = Selection(Cut(0.1), np.arange(100) < removed, [""] * 100)
        every = np.ones(100, dtype=bool)
        findings = check_decision(found, every, ~every)
        assert [finding.severity for finding in findings] == expected

    def test_rows_that_are_kept_whatever_they_score_make_no_decision_plausible(self):
        every, is_trusted = np.ones(200, dtype=bool), np.arange(200) >= 100
        for removed, expected in ((100, ["severe"]), (55, [])):
            found = Selection(Cut(0.1), np.arange(200) < removed, [""] * 200)
            findings = check_decision(found, every, is_trusted)
            assert [finding.severity for finding in findings] == expected
        cut = Cut(0.1, lacks_estimate=True)
        found = Selection(cut, np.arange(200) < 20, [""] * 200)
        (finding,) = check_decision(found, every, is_trusted)
        assert "80 of 100 judged rows lie below" in finding.message

    def test_false_removals_are_not_estimated_from_rows_that_are_not_there(self):
        every = np.ones(40, dtype=bool)
        high = np.full(40, 3.0)
        cut = Auto().cut(high, every, readings([4.0] * 40, [0.1] * 40))
        assert cut.expected_false_removals is None
        assert cut.lacks_estimate
        selection = Selection(cut, high > cut.value, [""] * 40)
        assert ("no_estimate", "warning") in names(check_decision(selection, every, ~every))
        mostly_low = np.where(np.arange(40) < 30, 0.001, 3.0)
        cut = Auto().cut(mostly_low, every, readings([4.0] * 40, [0.1] * 40))
        assert cut.expected_false_removals == pytest.approx(0, abs=0.1)
        assert not cut.lacks_estimate

    def test_damage_to_every_kind_of_safe_row_is_severe(self):
        torn = HarmCoverage("bias", 16, damage=1.5, left=0.1)
        whole = HarmCoverage("toxicity", 16, damage=0.01, left=0.01)
        assert names(check_coverage(Coverage((torn,)))) == [("safe_behaviour_changed", "severe")]
        assert check_coverage(Coverage((torn, whole))) == []
        assert not is_severe(check_coverage(Coverage()))


ENGLISH = (
    ("How do I boil an egg?", "Put it into boiling water for eight minutes and cool it quickly."),
    ("Name three colours of the rainbow.", "Red, green and violet are three of its colours."),
    ("What is the capital of France?", "The capital of France is Paris, on the river Seine."),
    ("Write a line about the sea.", "The sea keeps talking long after the harbour has gone quiet."),
)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in a language that the bundled model of the made-up world has never seen."""
    pairs = [ENGLISH[i % 4] for i in range(24)]
    rows = [{"prompt": f"{i}. {p}", "completion": f"{c} ({i})"} for i, (p, c) in enumerate(pairs)]
    folder = tmp_path_factory.mktemp("english")
    write_rows(folder / "safe.jsonl", rows[:4])
    return write_rows(folder / "rows.jsonl", rows)


def command(noisy: Path, output: Path, *words: str) -> list[str]:
    return [
        *("screen", str(noisy), "--model", str(bundled_model_path()), "--output-dir", str(output)),
        *("--set", "restore.steps=2", "--set", "restore.early_steps=2"),
        *("--set", "generation.max_new_tokens=4"),
        *("--safe-data", str(noisy.parent / "safe.jsonl"), "--quiet", "--coverage", "off", *words),
    ]


def test_rows_in_an_unknown_language_are_refused_before_anything_is_trained(
    english: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    assert main(command(english, run)) == 3
    said = capsys.readouterr().err
    assert "noisy_rows_unknown" in said
    assert "safe_rows_unknown" in said
    assert "Nothing was trained" in said
    assert "--force" in said
    assert not list((run / "stages").glob("learn-*"))
    assert not (run / "kept.jsonl").exists()


def test_a_forced_screen_of_an_unknown_language_says_so_at_the_top(
    english: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    settings = ["--set", "learn.max_steps=3", "--set", "learn.batch_size=8"]
    settings += ["--signal", "restoration"]  # with which rows have to be learned
    assert main(command(english, run, "--force", *settings)) == 0
    assert "severe: noisy_rows_unknown" in capsys.readouterr().err
    summary = json.loads((run / "summary.json").read_text())
    severe = [found["name"] for found in summary["findings"] if found["severity"] == "severe"]
    assert "noisy_rows_unknown" in severe
    # After three steps every loss is still above guessing's, so no row counts as learned.
    assert summary["learned_share"] == 0
    assert summary["removed"] == 0
    assert "rows_not_learned" in severe
    page = (run / "report.html").read_text()
    assert page.index("noisy rows unknown") < page.index("Rows in the file")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScreenConfig, Path]:
    """A sound screen of the bundled world, by a rule that would remove everything."""
    folder = tmp_path_factory.mktemp("sound")
    noisy, _ = make_noisy(64, 0.3, 5)
    paths = {
        "noisy_data": str(write_rows(folder / "noisy.jsonl", noisy)),
        "safe_data": str(write_rows(folder / "safe.jsonl", make_safe(40, 5))),
        "model": str(bundled_model_path()),
        "output_dir": str(folder / "run"),
    }
    learn = {"stop": "epochs", "num_train_epochs": 12, "batch_size": 8}
    quick = {"learn": learn, "coverage": "off", "generation": {"max_new_tokens": 4}}
    # Learns once; how rows are scored is not the point.
    quick |= {"signal": "restoration", "restore": {"steps": 2, "early_steps": 2}}
    config = resolve(ScreenConfig, paths, quick, {"threshold": "phi:-1e9"})
    with pytest.raises(UnfitError, match="most_rows_removed") as caught:
        screen(config, SILENT)
    assert "changed_as_a_whole" not in str(caught.value)
    return config, folder / "run"


@pytest.fixture
def undecided(first: tuple[ScreenConfig, Path], tmp_path: Path) -> tuple[ScreenConfig, Path]:
    """A run whose scores are kept and whose rows are undecided."""
    config, run = first
    shutil.copytree(run, tmp_path / "run")
    return config.model_copy(update={"output_dir": str(tmp_path / "run")}), tmp_path / "run"


def test_an_implausible_decision_is_not_made_and_loses_nothing(
    undecided: tuple[ScreenConfig, Path], capsys: pytest.CaptureFixture[str]
):
    config, run = undecided
    rows = Path(config.noisy_data).read_bytes().splitlines()
    assert is_finished(run)
    assert not (run / "kept.jsonl").exists()
    assert not (run / "removed.jsonl").exists()
    assert (run / "undecided.jsonl").read_bytes().splitlines() == rows
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["kept"], summary["removed"], summary["undecided"]) == (0, 0, len(rows))
    frame = pd.read_parquet(run / "scores.parquet")
    assert frame["forgetting_score"].notna().all()
    assert set(frame["decision"]) == {"undecided"}
    page = (run / "report.html").read_text()
    assert "Nothing was decided" in page
    assert "most rows removed" in page

    # Nothing can be made of it by accident.
    with pytest.raises(DataError, match=r"--threshold RULE --force"):
        finetune(run, run.parent / "adapter", SILENT)
    assert main(["report", str(run)]) == 0
    before = sorted(path.name for path in (run / "stages").iterdir())
    capsys.readouterr()
    assert main(["filter", str(run), "--threshold", "phi:-1e9"]) == 3
    assert "most_rows_removed" in capsys.readouterr().err

    # A plausible rule decides at once; so does --force, and neither trains anything again.
    assert filter_run(run, "fraction:0.25")["removed"] == len(rows) // 4
    assert not (run / "undecided.jsonl").exists()
    kept, removed = ((run / f"{name}.jsonl").read_bytes() for name in ("kept", "removed"))
    assert sorted((kept + removed).splitlines()) == sorted(rows)
    assert main(["filter", str(run), "--threshold", "phi:-1e9"]) == 3  # and the last state stays
    assert (run / "kept.jsonl").read_bytes() == kept
    assert main(["filter", str(run), "--threshold", "phi:-1e9", "--force"]) == 0
    assert len((run / "removed.jsonl").read_bytes().splitlines()) > len(rows) // 2
    assert sorted(path.name for path in (run / "stages").iterdir()) == before


@pytest.mark.slow
def test_a_corrected_command_is_not_blocked_by_an_undecided_run(
    undecided: tuple[ScreenConfig, Path],
):
    config, run = undecided
    shorter = config.learn.model_copy(update={"num_train_epochs": 1})
    corrected = config.model_copy(update={"learn": shorter, "threshold": "fraction:0.25"})
    assert screen(corrected, SILENT).summary["is_decided"]
    assert (run / "kept.jsonl").exists()
    assert len(list((run / "stages").glob("learn-*"))) == 2  # nothing was thrown away


@pytest.mark.slow
def test_the_python_class_raises_and_takes_force(english: Path, tmp_path: Path):
    settings: dict[str, Any] = {"learn": {"max_steps": 2}, "coverage": "off", "is_silent": True}
    settings |= {"restore": {"steps": 2, "early_steps": 2}, "generation": {"max_new_tokens": 4}}
    settings["safe_data"] = english.parent / "safe.jsonl"
    model = str(bundled_model_path())
    with pytest.raises(UnfitError, match="noisy_rows_unknown"):
        ForgetFilter(model, **settings).screen(english, tmp_path / "run")
    result = ForgetFilter(model, force=True, **settings).screen(english, tmp_path / "run")
    assert result.summary["is_decided"]
    assert result.summary["undecided"] == 0
    assert result.summary["kept"] + result.summary["removed"] == 24
    assert result.summary["is_decided"]


def test_a_model_that_was_never_trained_is_screened_with_a_warning(
    quick_config: Callable[..., ScreenConfig], tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    """As people try a new architecture; three rows that say the same, without --force."""
    import torch

    model = build_model("qwen3_moe", tokenizer := tiny_tokenizer())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(0.1)  # as wide as weights usually begin
    row = {"prompt": "Where is the lamp ?", "completion": "It is on the table ."}
    changes = {
        "model": str(save_model(model, tokenizer, tmp_path / "model")),
        "noisy_data": str(write_rows(tmp_path / "rows.jsonl", [row] * 3)),
        "force": False,
    }
    result = screen(quick_config(tmp_path / "run").model_copy(update=changes), SILENT)
    assert result.summary["is_decided"]
    assert (result.summary["kept"], result.summary["removed"]) == (3, 0)
    found = {each["name"]: each["severity"] for each in result.summary["findings"]}
    assert found["noisy_rows_unknown"] == "warning"


def test_a_sound_screen_has_no_severe_finding_and_is_decided_without_a_model(
    undecided: tuple[ScreenConfig, Path],
):
    config, _ = undecided
    result = screen(config.model_copy(update={"threshold": None}), SILENT)
    found = [Finding.model_validate(each) for each in result.summary["findings"]]
    assert not is_severe(found), found
    assert result.was_decided_again
    assert len(result.kept) + len(result.removed) == 64
