"""The leaderboard of row scorers: its numbers, its cells, and a killed run that goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import quick_settings, rows_of, write_rows
from forgetfilter.cli import main
from forgetfilter.config import resolve
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.lab.metrics.ranking import rank, ranking_values, resampled
from forgetfilter.lab.row_scorers import judged, lowest_first
from forgetfilter.lab.studies.compare import compare
from forgetfilter.lab.studies.datasets import LabelledRows, WorldRows
from forgetfilter.lab.studies.leaderboard import leaderboard
from forgetfilter.lab.studies.leaderboard_tables import Scored, mean_ranks
from forgetfilter.lab.studies.settings import CompareConfig, LeaderboardConfig
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.signals.restoration import Restoration

SCORERS = ["random", "base_loss", "representation_cosine:budget=5", "forgetting:signal=restoration"]
MakeConfig = Callable[..., LeaderboardConfig]


@pytest.fixture(scope="module")
def make_config(
    tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> MakeConfig:
    """``make_config(output_dir, **changes)``: four scorers on one labelled file."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = [{**row, "id": f"r{at}"} for at, row in enumerate(rows_of(12))]
    paths = {
        "noisy": write_rows(folder / "noisy.jsonl", rows),
        "safe": write_rows(folder / "safe.jsonl", rows_of(6, start=100)),
        "exemplars": write_rows(folder / "exemplars.jsonl", rows_of(8, start=200)),
        "truth": write_rows(
            folder / "truth.jsonl",
            [{"example_id": f"r{at}", "is_unsafe": at % 3 == 1} for at in range(12)],
        ),
    }
    dataset = {"kind": "labelled", "name": "mix", **{name: str(p) for name, p in paths.items()}}

    def make(output_dir: Path, **changes: Any) -> LeaderboardConfig:
        grid: dict[str, Any] = {
            "output_dir": str(output_dir),
            "model": str(tiny_model("llama")),
            "scorers": SCORERS,
            "datasets": [dataset],
            "seeds": [0],
            "settings": quick_settings(),
        }
        return resolve(LeaderboardConfig, grid, changes)

    return make


def test_the_three_numbers_of_a_ranking_by_hand():
    is_unsafe = np.array([True, False, True, False])
    found = rank(is_unsafe, np.array([4.0, 3.0, 2.0, 1.0]))
    assert found.average_precision[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found.auroc[0] == pytest.approx(3 / 4)  # of four pairs one is the wrong way round
    assert found.recall_at_1_percent[0] == 0.5  # no clean row may go, so the cut is below the first
    # Of 100 clean rows one may go.
    is_unsafe = np.array([False, True, False, True] + [False] * 98)
    scores = -np.arange(102.0)
    assert rank(is_unsafe, scores).recall_at_1_percent[0] == 0.5
    assert rank(is_unsafe, np.where(is_unsafe, 1.0, scores)).recall_at_1_percent[0] == 1.0


def test_rows_of_equal_score_are_on_one_side_of_every_cut():
    is_unsafe = np.array([True, False, True, False])
    found = rank(is_unsafe, np.zeros(4))
    assert found.average_precision[0] == 0.5
    assert found.auroc[0] == 0.5
    assert found.recall_at_1_percent[0] == 0.0


def test_the_numbers_are_those_of_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    is_unsafe = rng.random(200) < 0.2
    scores = np.round(rng.normal(size=200) + is_unsafe, 1)  # with equal ones
    weights = resampled(is_unsafe, seed=1, replicates=3)
    found = rank(is_unsafe, scores, weights)
    for at, own in enumerate(weights):
        expected = average_precision_score(is_unsafe, scores, sample_weight=own)
        assert found.average_precision[at] == pytest.approx(expected)
        assert found.auroc[at] == pytest.approx(roc_auc_score(is_unsafe, scores, sample_weight=own))
    assert (weights[:, is_unsafe].sum(axis=1) == is_unsafe.sum()).all()


def test_intervals_hold_the_value_and_only_possible_ones():
    is_unsafe = np.arange(30) % 10 == 0
    for scores in (is_unsafe.astype(float), -is_unsafe.astype(float), np.arange(30.0)):
        for value in ranking_values(is_unsafe, scores, seed=0):
            assert value.interval is not None
            assert 0 <= value.interval.low <= value.value <= value.interval.high <= 1
    assert all(np.isnan(one.value) for one in ranking_values(np.zeros(5, bool), np.zeros(5), 0))


def test_a_row_that_is_not_judged_counts_as_the_least_suspicious():
    scores = judged(np.array([2.0, np.nan, -3.0]), "test", np.array([True, False, True]))
    assert scores == [2.0, None, -3.0]
    assert lowest_first(scores).tolist() == [2.0, -4.0, -3.0]


def test_mean_ranks_by_hand():
    is_unsafe = np.array([True, True, False, False])
    best, worst, middle = [4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 3, 2]
    one = Scored(is_unsafe, np.array([best, worst, middle, middle], dtype=float))
    other = Scored(is_unsafe, np.array([worst, best, middle, middle], dtype=float))
    found = mean_ranks([one, other])
    # Two equal scorers share the second and third place.
    assert [estimate.value for estimate in found] == [2.5, 2.5, 2.5, 2.5]
    assert [estimate.value for estimate in mean_ranks([one])] == [1, 4, 2.5, 2.5]
    for estimate in mean_ranks([one, other] * 4):
        assert 1 <= estimate.low <= estimate.value <= estimate.high <= 4


def test_a_leaderboard_end_to_end(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = make_config(tmp_path / "run")
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()))
    assert main(["leaderboard", str(path), "--quiet"]) == 0
    results = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(results["strategy"]) == set(SCORERS)
    values = results.set_index(["strategy", "metric"])["value"]
    for scorer in SCORERS:
        assert 0 <= values[scorer, "average_precision"] <= 1
        assert values[scorer, "seconds"] > 0
        assert values[scorer, "failed"] == 0
    assert values["random", "forward_passes"] == 0
    assert values["base_loss", "forward_passes"] == 1
    assert values["representation_cosine:budget=5", "forward_passes"] == pytest.approx(17 / 12)
    # Two training steps of 8 rows, and restorations, go back through the model.
    assert values["forgetting:signal=restoration", "backward_passes"] > 16 / 12
    table = (tmp_path / "run" / "table.md").read_text()
    assert "all data sets" in table
    assert "12 rows, 4 of them unsafe" in table
    page = (tmp_path / "run" / "leaderboard.html").read_text()
    assert all(scorer.partition(":")[0] in page for scorer in SCORERS)
    assert "5 exemplars" in page
    cells = list((tmp_path / "run" / "cells").rglob("result.json"))
    result = json.loads(cells[0].read_bytes())
    assert len(result["scores"]) == len(result["is_unsafe"]) == 12
    # Nothing is done again, and the same comes out.
    before = {cell: cell.stat().st_mtime_ns for cell in cells}
    again = leaderboard(config)
    assert {cell: cell.stat().st_mtime_ns for cell in cells} == before
    assert again.table == table
    # But what a signal's formula was when it was scored is no result of another formula.
    monkeypatch.setattr(Restoration, "version", 7, raising=False)
    leaderboard(config)
    new = set((tmp_path / "run" / "cells").rglob("result.json")) - set(cells)
    assert [own.parent.name.rpartition("-")[0] for own in new] == ["forgetting-signal-restoration"]


def test_a_scorer_that_fails_costs_the_others_nothing(make_config: MakeConfig, tmp_path: Path):
    scorers = ["base_loss", "larf:budget=20"]
    found = leaderboard(make_config(tmp_path, scorers=scorers))
    assert [cell.strategy for cell in found.failed] == ["larf:budget=20"]
    assert "20 exemplars are asked for" in str(found.failed[0].error())
    assert "failed 1 of 1" in found.table


def test_only_a_leaderboard_takes_rows_without_prompts(make_config: MakeConfig, tmp_path: Path):
    given = make_config(tmp_path / "run").model_dump()
    del given["scorers"]
    config = resolve(CompareConfig, given, {"strategies": ["none"]})
    with pytest.raises(ConfigError, match="has no prompts to judge a model by"):
        compare(config)


class TestLabelledRows:
    def data(self, make_config: MakeConfig, root: Path, seed: int = 0, **changes: Any) -> Any:
        given = make_config(root / "run").datasets[0]
        return resolve(LabelledRows, given, changes).load(seed, StageStore(root / "stages"))

    def test_draws_a_stated_number_of_unsafe_rows_beside_all_clean_ones(
        self, make_config: MakeConfig, tmp_path: Path
    ):
        def unsafe(count: int, seed: int = 0) -> set[str]:
            data = self.data(make_config, tmp_path, seed, unsafe_count=count)
            assert len(data.noisy.rows) == 8 + count
            return {row.example_id for row in data.noisy.rows if data.is_unsafe[row.example_id]}

        assert unsafe(1) < unsafe(3)
        assert any(unsafe(1, seed) != unsafe(1) for seed in range(1, 9))
        prints = {self.data(make_config, tmp_path, unsafe_count=n).fingerprint for n in (1, 2)}
        assert len(prints) == 2

    def test_says_when_there_are_not_so_many(self, make_config: MakeConfig, tmp_path: Path):
        with pytest.raises(DataError, match="has 4 unsafe rows"):
            self.data(make_config, tmp_path, unsafe_count=5)


def test_a_worlds_exemplars_are_unsafe_rows_of_another_seed(tmp_path: Path):
    world = WorldRows(rows=40, unsafe_fraction=0.5, safe_rows=4)
    data = world.load(0, StageStore(tmp_path))
    pool = world.exemplars_of(0, 20)
    assert len(pool) == 20
    larger = world.exemplars_of(0, 100)  # 5, 20 and 100 are one draw, as far as each goes
    assert [row.messages for row in larger[:20]] == [row.messages for row in pool]
    assert len({row.messages for row in larger}) > 90
    noisy = {row.messages for row in data.noisy.rows}
    assert sum(row.messages in noisy for row in pool) < 5
    assert world.exemplars_of(1, 20)[0].messages != pool[0].messages


@pytest.mark.slow
def test_a_killed_leaderboard_goes_on_after_its_last_finished_cell(
    make_config: MakeConfig, tmp_path: Path
):
    cheap = {"scorers": ["random", "base_loss", "gradient_norm"], "seeds": [0, 1, 2]}
    config = make_config(tmp_path / "run", **cheap)
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()))
    words: Sequence[str] = [
        sys.executable,
        "-m",
        "forgetfilter",
        "leaderboard",
        str(path),
        "--quiet",
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while len(done := list((tmp_path / "run").glob("cells/**/result.json"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {cell: cell.read_bytes() for cell in done}
    found = leaderboard(config)
    assert not found.failed
    assert {cell: cell.read_bytes() for cell in done} == kept
    whole = leaderboard(make_config(tmp_path / "other", **cheap))
    columns = ["strategy", "seed", "metric", "value"]
    one, other = (
        board.results[board.results["metric"] != "seconds"][columns] for board in (found, whole)
    )
    pd.testing.assert_frame_equal(one, other)
