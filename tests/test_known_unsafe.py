"""Likeness to rows known to be unsafe: by its meaning, in a screen, and what can't be given."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import contents, rows_of, write_rows
from decided_run import summary_of
from forgetfilter import cli
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring import comparing
from forgetfilter.model.measuring.unsafe_likeness import unsafe_likeness
from forgetfilter.progress import Progress
from forgetfilter.runs.one_row import describe_row, tell_row
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
LIMIT = 8192
Loaded = tuple[Any, list[EncodedRow]]


def burning(number: int) -> dict[str, str]:
    """A row that answers as no row of `rows_of` does."""
    return {"prompt": f"Where is it number {number} ?", "completion": f"Burn burn it {number}"}


@pytest.fixture
def loaded(tiny_model: Callable[..., Path], tmp_path: Path) -> Loaded:
    """A tiny model, with 12 rows, the planted ones first: three of them, and 3 known ones."""
    source = str(tiny_model("llama"))
    rows = [*map(burning, range(3)), *rows_of(9), *map(burning, range(50, 53))]
    encoder = Encoder(load_tokenizer(source), "auto", 512)
    encoded, _ = encoder.encode(read_rows(write_rows(tmp_path / "rows.jsonl", rows)).rows)
    return load_base_model(source, choose_placement("cpu", "float32")), list(encoded)


def test_planted_rows_are_more_like_known_ones_than_any_other(loaded: Loaded):
    model, rows = loaded
    found = unsafe_likeness(model, rows[:12], rows[12:], LIMIT, SILENT, "")
    assert found.shape == (12,)
    assert ((found >= 0) & (found <= 1)).all()
    assert found[:3].min() > found[3:].max() + 0.1


def test_a_known_row_is_wholly_like_itself_and_more_known_rows_never_lower_it(loaded: Loaded):
    model, rows = loaded
    noisy = rows[:12]
    itself = unsafe_likeness(model, noisy, [rows[4]], LIMIT, SILENT, "")
    assert itself[4] == pytest.approx(1.0, abs=1e-6)
    both = unsafe_likeness(model, noisy, [rows[4], rows[12]], LIMIT, SILENT, "")
    other = unsafe_likeness(model, noisy, [rows[12]], LIMIT, SILENT, "")
    np.testing.assert_allclose(both, np.maximum(itself, other), atol=1e-6)


def test_it_moves_neither_with_batches_nor_with_the_order_nor_with_the_sample(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
):
    model, rows = loaded
    noisy, known = rows[:12], rows[12:]
    found = unsafe_likeness(model, noisy, known, LIMIT, SILENT, "")
    np.testing.assert_allclose(
        unsafe_likeness(model, noisy, known, 40, SILENT, ""), found, atol=1e-5
    )
    order = [4, 11, 0, 2, 6, 1, 10, 3, 7, 5, 9, 8]
    shuffled = unsafe_likeness(model, [noisy[at] for at in order], known[::-1], LIMIT, SILENT, "")
    np.testing.assert_allclose(shuffled, found[order], atol=1e-5)
    monkeypatch.setattr(comparing, "_STANDARD_ROWS", 8)  # the others are read after the sample
    sampled = unsafe_likeness(model, noisy, known, LIMIT, SILENT, "")
    assert sampled[:3].min() > sampled[3:].max()


NOISY = 16
PLANTED = (2, 9)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Noisy rows, of which two are planted, and the known ones, of which one is not readable."""
    root = tmp_path_factory.mktemp("known")
    noisy = rows_of(NOISY)
    for at in PLANTED:
        noisy[at] = burning(at)
    known = [*map(burning, range(50, 54)), {"prompt": "No answer"}]
    return {
        "noisy": write_rows(root / "noisy.jsonl", noisy),
        "known": write_rows(root / "known.jsonl", known),
    }


@pytest.fixture(scope="module")
def runs(
    quick_config: Callable[..., ScreenConfig],
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The same rows screened without known rows, and then with them."""
    root = tmp_path_factory.mktemp("runs")
    found = {"without": root / "without", "with": root / "with"}
    screen(config_of(quick_config, files, found["without"]), SILENT)
    shutil.copytree(found["without"], found["with"])
    asked = f"known_unsafe:{files['known']}"
    screen(config_of(quick_config, files, found["with"], second_opinion=asked), SILENT)
    return found


def config_of(
    quick_config: Callable[..., ScreenConfig], files: dict[str, Path], run: Path, **asked: Any
) -> ScreenConfig:
    config = quick_config(run, threshold="fraction:0.125", coverage="off", **asked)
    return config.model_copy(update={"noisy_data": str(files["noisy"])})


def scores_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "scores.parquet")


def opinions_of(run: Path) -> np.ndarray[Any, Any]:
    return scores_of(run)["second_opinion"].to_numpy()


Asking = Callable[[str | Path], ScreenConfig]


@pytest.fixture
def asking(
    quick_config: Callable[..., ScreenConfig],
    files: dict[str, Path],
    runs: dict[str, Path],
    tmp_path: Path,
) -> Asking:
    """Settings that ask, in a copy of the run without known rows (``tmp_path/run``), for some."""
    run = tmp_path / "run"
    shutil.copytree(runs["without"], run)
    return lambda known: config_of(quick_config, files, run, second_opinion=f"known_unsafe:{known}")


class TestScreen:
    def test_it_decides_nothing_and_trains_nothing_again(self, runs: dict[str, Path]):
        plain, asked = scores_of(runs["without"]), scores_of(runs["with"])
        same = asked.drop(columns=[n for n in asked.columns if n not in plain.columns])
        pd.testing.assert_frame_equal(same, plain)
        for name in ("kept.jsonl", "removed.jsonl", "rejected.jsonl"):
            assert (runs["with"] / name).read_bytes() == (runs["without"] / name).read_bytes()
        stages = [{p.name for p in (run / "stages").glob("*")} for run in runs.values()]
        added = stages[1] - stages[0]
        assert [name.partition("-")[0] for name in added] == ["measure_unsafe_likeness_base"]

    def test_it_is_recorded_and_every_row_has_it(self, runs: dict[str, Path]):
        found = opinions_of(runs["with"])
        assert ((found >= 0) & (found <= 1)).all()
        assert set(np.argsort(found)[-2:].tolist()) == set(PLANTED)
        said = summary_of(runs["with"])["second_opinion"]
        assert said["kind"] == "known_unsafe"
        assert said["label"] == "likeness to 4 rows known to be unsafe"
        provenance = json.loads((runs["with"] / "provenance.json").read_text())
        assert provenance["inputs"]["second_opinion"] == said["fingerprint"]

    def test_the_joint_rule_removes_what_is_like_them(self, runs: dict[str, Path], tmp_path: Path):
        run = tmp_path / "run"
        shutil.copytree(runs["with"], run)
        filter_run(run, "fraction:0.125", joint=100, force=True)
        removed = scores_of(run)[lambda frame: frame["decision"] == "removed"]
        assert set(removed["row"]) == set(PLANTED)
        assert set(removed["reason"]) <= {
            "above_threshold_by_second_opinion",
            "above_threshold_by_both",
        }
        html = (run / "report.html").read_text(encoding="utf-8")
        assert "How like each answer is to rows known to be unsafe is added" in html
        filter_run(run, "fraction:0.125", joint=0, force=True)
        assert (run / "removed.jsonl").read_bytes() == (runs["with"] / "removed.jsonl").read_bytes()

    def test_report_and_show_say_what_was_compared(self, runs: dict[str, Path]):
        html = (runs["with"] / "report.html").read_text(encoding="utf-8")
        assert "likeness to 4 rows known to be unsafe" in html
        assert "whose answers are like unsafe ones" in html
        assert "A text classifier" not in html
        assert "likeness to 4 rows known to be unsafe" in describe_row(tell_row(runs["with"], 2))

    def test_rows_that_cant_be_used_are_said(
        self, asking: Asking, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ):
        screen(asking(files["known"]), Progress())
        assert "second_opinion: 1 of 5 rows can't be used; the first is line 5" in (
            capsys.readouterr().err
        )

    def test_other_known_rows_are_another_second_opinion(
        self, asking: Asking, runs: dict[str, Path], tmp_path: Path
    ):
        run, known = tmp_path / "run", tmp_path / "known.jsonl"
        write_rows(known, map(burning, range(50, 52)))
        config = asking(known)
        screen(config, SILENT)
        first = opinions_of(run)
        write_rows(known, map(burning, range(50, 54)))
        screen(config, SILENT)
        second = opinions_of(run)
        assert (second >= first - 1e-9).all()
        assert (second > first + 1e-6).any()
        np.testing.assert_allclose(second, opinions_of(runs["with"]), atol=1e-6)


class TestReviewed:
    def test_rows_that_reviewers_removed_are_known_and_the_rest_is_ranked_by_them(
        self, asking: Asking, tmp_path: Path
    ):
        run = tmp_path / "run"
        config = asking(run)
        decided = Overruling(keep=(4,), remove=(PLANTED[0], 5), reviewer="Ada")
        filter_run(run, overruling=decided)
        filter_run(run, overruling=Overruling(keep=(5,), reviewer="Ada"))  # the last word counts
        screen(config, SILENT)
        found = opinions_of(run)
        assert summary_of(run)["second_opinion"]["label"] == "likeness to 1 row known to be unsafe"
        assert found[PLANTED[0]] == pytest.approx(1.0, abs=1e-6)
        assert np.argsort(found).tolist()[::-1][:2] == list(PLANTED)
        assert scores_of(run)["decided_by"].tolist()[PLANTED[0]] == "reviewer"
        # Another row is decided: the same command takes it in, and trains nothing again.
        before = {path.name for path in (run / "stages").glob("*")}
        filter_run(run, overruling=Overruling(remove=(PLANTED[1],), reviewer="Ada"))
        screen(config, SILENT)
        assert opinions_of(run)[PLANTED[1]] == pytest.approx(1.0, abs=1e-6)
        added = {path.name for path in (run / "stages").glob("*")} - before
        assert {name.partition("-")[0] for name in added} == {"measure_unsafe_likeness_base"}

    def test_a_run_in_which_nobody_has_removed_a_row_is_told(self, asking: Asking, tmp_path: Path):
        config = asking(tmp_path / "run")
        with pytest.raises(ConfigError, match=r"nobody has decided .* forgetfilter review .*run"):
            screen(config, SILENT)

    def test_a_decision_that_was_changed_counts_no_more(self, asking: Asking, tmp_path: Path):
        config = asking(tmp_path / "run")
        for decision in (Overruling(remove=(3,)), Overruling(keep=(3,))):
            filter_run(tmp_path / "run", overruling=decision)
        with pytest.raises(ConfigError, match="nobody has decided that a row is to be removed"):
            screen(config, SILENT)


class TestRefused:
    def test_a_file_that_is_not_there_before_anything_is_read(
        self, quick_config: Callable[..., ScreenConfig], tmp_path: Path
    ):
        config = quick_config(tmp_path / "run", second_opinion="known_unsafe:nowhere.jsonl")
        with pytest.raises(ConfigError, match=r"no such file. Expected known_unsafe:FILE.*Check"):
            screen(config, SILENT)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ([{"prompt": "No answer"}], r"no usable row \(1 read\). Expected rows whose answers"),
            ([], r"has 0 rows"),
            (rows_of(2, start=100), r"2 of the 2 rows .* are safe rows as well; the first is line"),
        ],
    )
    def test_rows_that_cant_be_known_to_be_unsafe(
        self,
        quick_config: Callable[..., ScreenConfig],
        files: dict[str, Path],
        tmp_path: Path,
        rows: list[dict[str, Any]],
        said: str,
    ):
        known = write_rows(tmp_path / "known.jsonl", rows)
        run = tmp_path / "run"
        config = config_of(quick_config, files, run, second_opinion=f"known_unsafe:{known}")
        with pytest.raises(DataError, match=said):
            screen(config, SILENT)
        assert not list((run / "stages").glob("learn-*"))  # it is told before hours of work

    def test_the_command_says_it_without_a_traceback(
        self, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        given = ["screen", str(files["noisy"]), "--model", "m", "--output-dir", str(tmp_path / "o")]
        before = contents(tmp_path)
        assert cli.main([*given, "--second-opinion", "known_unsafe:nowhere.jsonl"]) == 1
        assert "there is no such file" in capsys.readouterr().err
        assert contents(tmp_path) == before
