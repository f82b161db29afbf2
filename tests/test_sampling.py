"""Learning a sample of the rows (`learn.max_rows`): which ones, and that all rows are judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import rows_of, write_rows
from forgetfilter.config import LearnSettings, ScreenConfig, load_yaml, resolve
from forgetfilter.errors import ConfigError, RunExistsError
from forgetfilter.lab.studies.points import CurvesConfig
from forgetfilter.model.stages.phases import level_epochs
from forgetfilter.progress import Progress
from forgetfilter.runs.schema import Summary
from forgetfilter.scoring.records import SAMPLED, Cut, Readings
from forgetfilter.screening.checks.fitness import check_by_heart, check_drawn, check_learned
from forgetfilter.screening.deciding.file_verdict import judge_file
from forgetfilter.screening.deciding.tables import read_readings
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.method import Setting, fine_tune, score_rows
from forgetfilter.screening.planning.planning import plan_screen
from forgetfilter.screening.sampling import rows_to_learn
from forgetfilter.screening.screen import screen
from made_setting import setting_maker, spy_on_training

SILENT = Progress(is_silent=True)
LEARN = {"batch_size": 8, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def make_setting(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Any, quick_config: Any
) -> Callable[..., Setting]:
    """Settings of 24 noisy rows, whose learn phase ends on evidence."""
    root = tmp_path_factory.mktemp("setting")
    make = setting_maker(root, tiny_model, quick_config)
    write_rows(root / "noisy.jsonl", rows_of(24))  # in place of its ten
    return make


def test_the_seed_draws_rows_by_their_places():
    rows: Any = list(range(1000))
    drawn = rows_to_learn(rows, 100, 0)
    assert len(set(drawn)) == 100
    assert list(drawn) == sorted(drawn)
    assert set(rows_to_learn(rows, 40, 0)) < set(drawn)  # a smaller sample is part of a larger one
    assert rows_to_learn(rows, 100, 1) != drawn
    assert rows_to_learn([-row for row in rows], 100, 0) == [-row for row in drawn]
    for most in (None, 1000, 2000):
        assert rows_to_learn(rows, most, 0) is rows
    counts = np.zeros(1000)
    for seed in range(300):
        counts[rows_to_learn(rows, 100, seed)] += 1
    assert counts.min() > 5  # 30 are expected of each, with a deviation of 5.2
    assert counts.max() < 60


def test_halves_part_the_sample_and_every_row_is_scored(
    make_setting: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
):
    trained = spy_on_training(monkeypatch)
    setting = make_setting(learn={**LEARN, "max_steps": 2, "max_rows": 16}, signal="crossfit")
    scored = score_rows(setting)
    given = {name: {row.row for row in rows} for name, rows in trained}
    assert len(given["learned"]) == 16
    assert given["half_a"] | given["half_b"] == given["learned"]
    assert not given["half_a"] & given["half_b"]
    assert len(scored.scores.forgetting_score) == 24
    assert np.isfinite(scored.scores.forgetting_score).all()
    readings = scored.readings
    assert set(readings.row[readings[SAMPLED]]) == given["learned"]


def test_without_a_bound_stages_are_those_of_before(make_setting: Callable[..., Setting]):
    assert "max_rows" not in LearnSettings().model_dump()
    assert LearnSettings(max_rows=20).model_dump()["max_rows"] == 20
    learn = {**LEARN, "max_steps": 2}
    states = [
        score_rows(make_setting(learn={**learn, **more}, signal="completion_loss"))
        for more in ({}, {"max_rows": 24}, {"max_rows": 16})
    ]
    plain, roomy, few = (found.states["learned"].fingerprint for found in states)
    assert plain == roomy != few
    assert SAMPLED not in states[1].readings
    assert states[1].judges_learned
    assert not states[2].judges_learned


def test_retraining_takes_all_kept_rows_for_as_many_epochs(
    make_setting: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
):
    setting = make_setting(learn={**LEARN, "num_train_epochs": 4, "max_rows": 16})
    trained = spy_on_training(monkeypatch)
    kept = np.arange(24) != 3
    fine_tune(setting, kept, setting.bench.base)
    assert [(name, len(rows)) for name, rows in trained] == [("learned", 16), ("retrained", 23)]
    trained.clear()
    whole = fine_tune(setting, None, setting.bench.base)
    assert [len(rows) for _, rows in trained] == [24]
    assert level_epochs(whole) is not None


@pytest.fixture(scope="module")
def sampled(
    quick_config: Callable[..., ScreenConfig],
    make_rows: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished run of 40 rows of which 20 were learned, by a signal that needs learned rows."""
    run = tmp_path_factory.mktemp("sampled") / "run"
    learn = {**LEARN, "max_steps": 2, "max_rows": 20}
    config = quick_config(run, signal="restoration", threshold="phi:0", learn=learn)
    screen(resolve(ScreenConfig, config.model_dump(), {"noisy_data": str(make_rows(40))}), SILENT)
    return run


def test_no_row_goes_unjudged_because_it_was_not_drawn(sampled: Path):
    summary = Summary.model_validate(json.loads((sampled / "summary.json").read_text()))
    readings = read_readings(sampled)
    assert not readings.learned.all()
    assert int(readings.was_given.sum()) == summary.learned_rows == 20
    assert summary.judged == summary.kept + summary.removed == 40
    assert summary.removed > 0
    assert not summary.needs_learned
    assert summary.learned_share == readings.learned[readings.was_given].mean()
    assert "few_rows_drawn" in {finding.name for finding in summary.findings}
    page = (sampled / "report.html").read_text(encoding="utf-8")
    assert "What they learn is a sample of 20 rows" in page


def test_a_finished_run_is_not_mixed_with_one_of_another_sample(sampled: Path):
    config = resolve(ScreenConfig, load_yaml(sampled / "config.yaml"))
    assert config.learn.max_rows == 20
    more = resolve(ScreenConfig, config.model_dump(), {"learn": {"max_rows": None}})
    with pytest.raises(RunExistsError, match=r"learn\.max_rows: 20 -> None"):
        screen(more, SILENT)


def test_an_adapter_is_trained_on_all_kept_rows(sampled: Path, tmp_path: Path):
    summary = json.loads((sampled / "summary.json").read_text())
    assert finetune(sampled, tmp_path / "adapter", SILENT).rows == summary["kept"] > 0


def readings_of(drawn: list[bool], **columns: list[float]) -> Readings:
    known = {name: np.array(values) for name, values in columns.items()}
    own = {SAMPLED: np.array(drawn), "completion_tokens": np.ones(len(drawn))}
    own["greedy_match_learned"] = np.zeros(len(drawn), dtype=np.bool_)
    return Readings(np.arange(len(drawn)), {**known, **own})


def test_rows_that_no_model_has_seen_do_not_hide_what_was_learned_by_heart():
    drawn = [True, True, *[False] * 8]
    found = check_by_heart(
        readings_of(
            drawn,
            loss_sum_base=[3.0] * 10,
            loss_sum_half_a=[1.0, 2.9, *[2.0] * 8],
            loss_sum_half_b=[2.9, 1.0, *[2.0] * 8],
        )
    )
    assert [finding.name for finding in found] == ["learned_by_heart"]


def test_the_learned_share_is_that_of_the_rows_drawn():
    told = {"loss_sum_base": [4.0] * 10, "loss_sum_learned": [0.1] * 4 + [3.9] * 6}
    assert check_learned(readings_of([True] * 4 + [False] * 6, **told)) == []
    (found,) = check_learned(readings_of([False] * 4 + [True] * 6, **told))
    assert found.severity == "severe"
    assert "of the rows drawn for the learn phase were learned" in found.message


@pytest.mark.parametrize(("drawn", "names"), [(199, ["few_rows_drawn"]), (200, [])])
def test_a_small_sample_is_told(drawn: int, names: list[str]):
    readings = readings_of([True] * drawn + [False] * 300)
    assert [finding.name for finding in check_drawn(readings)] == names
    assert check_drawn(Readings(readings.row, {})) == []  # a small file is no sample


def test_a_verdict_on_a_sample_claims_no_figures_of_clean_files_and_doubts_a_small_one():
    told: dict[str, Any] = {"signal": "crossfit", "rows": 9, "kept": 9, "removed": 0, "rejected": 0}
    told |= {"threshold": {"rule": "valley", "value": 1.0}, "judged": 9, "learned_share": 1.0}
    verdicts = [
        judge_file(Summary.model_validate({**told, **more}), Cut(1.0))
        for more in ({}, {"learned_rows": 5})
    ]
    assert [verdict.clean_rows for verdict in verdicts] == [15_000, None]
    found = check_drawn(readings_of([True] * 5 + [False] * 4))[0].model_dump()
    told |= {"learned_rows": 5, "findings": [found]}
    silent = judge_file(Summary.model_validate(told), Cut(1.0))
    assert (silent.level, silent.reason) == ("cannot_tell", "doubtful_scores")


def test_a_plan_counts_the_sample(quick_config: Callable[..., ScreenConfig], tmp_path: Path):
    noisy = {"noisy_data": str(write_rows(tmp_path / "noisy.jsonl", rows_of(160)))}

    def tokens(most_rows: int = 2000, **learn: Any) -> dict[str, float]:
        settings = {**LEARN, "num_train_epochs": 2, "stop": "epochs", **learn}
        config = quick_config(tmp_path / "run", learn=settings)
        config = resolve(ScreenConfig, config.model_dump(), noisy)
        found = plan_screen(config, flops=1e12, most_rows=most_rows)["phases"]
        return {name: phase["tokens"] for name, phase in found.items()}

    whole, sample = tokens(), tokens(max_rows=40)
    for phase in ("learn", "learn_halves"):
        assert sample[phase] == pytest.approx(whole[phase] / 4, rel=0.15)
    for phase in ("score", "retrain"):
        assert sample[phase] == whole[phase]
    thinned = tokens(most_rows=20, max_rows=40)  # lengths of fewer rows than are learned
    assert thinned["learn"] == pytest.approx(sample["learn"], rel=0.25)


def test_a_course_of_learning_is_not_followed_on_a_sample():
    told: dict[str, Any] = {"output_dir": "x", "model": "m", "course": {}, "seeds": [0]}
    told["datasets"] = [{"kind": "testbed"}]
    with pytest.raises(ConfigError, match=r"learn\.max_rows.*leave it out"):
        resolve(CurvesConfig, told, {"settings": {"learn": {"max_rows": 20}}}).check()


@pytest.mark.parametrize("most", [0, 3, 15])
def test_fewer_rows_than_a_batch_are_refused(most: int):
    told = {"noisy_data": "n", "model": "m", "output_dir": "x", "learn": {"max_rows": most}}
    with pytest.raises(ConfigError, match=r"learn\.max_rows.*greater than or equal to 16"):
        resolve(ScreenConfig, told)
