"""Rounds of training: what continues what, what is fresh, what is resumed, what is shown."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import quick_settings
from forgetfilter.cli import main
from forgetfilter.config import resolve
from forgetfilter.errors import ConfigError, ModelError, RunExistsError
from forgetfilter.lab.strategies.baselines import SafetyFT
from forgetfilter.lab.studies.boundaries import BOUNDARY_COLUMNS, collect, plots_of, tables_of
from forgetfilter.lab.studies.cells import Cell, cell_of
from forgetfilter.lab.studies.compare import compare
from forgetfilter.lab.studies.datasets import WorldRows
from forgetfilter.lab.studies.grid import Comparison
from forgetfilter.lab.studies.interleave import interleave
from forgetfilter.lab.studies.page import write_page
from forgetfilter.lab.studies.plots import lines
from forgetfilter.lab.studies.results import summarise
from forgetfilter.lab.studies.settings import (
    CompareConfig,
    InterleaveConfig,
    check_rounds,
    round_seeds,
)
from forgetfilter.lab.studies.tables import Station
from forgetfilter.progress import Progress
from test_compare_results import HOSTILE, metric

ROOT = Path(__file__).parent.parent
SILENT = Progress(is_silent=True)
STRATEGIES = ["none", "safety_ft:steps=1", "forget_filter", "self_correction:cue=testbed"]
GRID: dict[str, Any] = {
    "strategies": STRATEGIES,
    "datasets": [{"kind": "testbed", "rows": 12, "safe_rows": 6, "prompts": 8}],
    "seeds": [3],
    "rounds": 2,
    "settings": quick_settings(
        signal="completion_loss",
        threshold="fraction:0.3",
        # So that some rows are learned, and can be removed.
        learn={"max_steps": 60, "batch_size": 8, "learning_rate": 3e-2},
        lora={"r": 8, "alpha": 16},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _model(tiny_world_model: Path):
    GRID["model"] = str(tiny_world_model)


def config_of(run: Path, **changes: Any) -> InterleaveConfig:
    return resolve(InterleaveConfig, GRID, {"output_dir": str(run)}, changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return interleave(config_of(tmp_path_factory.mktemp("rounds") / "run"), SILENT)


def boundaries(comparison: Comparison, strategy: str) -> list[dict[str, Any]]:
    (cell,) = [one for one in comparison.cells if one.strategy == strategy]
    result = cell.result()
    assert result is not None
    return result["boundaries"]


def key_of(run: Path, fingerprint: str) -> dict[str, Any]:
    return json.loads((run / "stages" / fingerprint / "stage.json").read_text())["key"]


def test_every_strategy_is_judged_at_every_boundary_that_it_has(done: Comparison):
    assert done.failed == []
    plain = ["start", "noisy", "noisy"]
    for strategy in STRATEGIES:
        wanted = plain if strategy != STRATEGIES[1] else ["start", *["noisy", "safe"] * 2]
        found = boundaries(done, strategy)
        assert [one["phase"] for one in found] == wanted
        for one in found:
            names = {value["name"] for value in one["metrics"]}
            assert {"unsafe_rate", "task_accuracy"} <= names
    # The model as given is the same one for all; a cue in the prompt is another question.
    starts = {boundaries(done, strategy)[0]["state"] for strategy in STRATEGIES}
    assert len(starts) == 1


def test_each_phase_starts_from_the_state_that_the_last_one_saved(done: Comparison):
    run = done.output_dir
    first, noisy, safe, again, _ = boundaries(done, "safety_ft:steps=1")
    assert key_of(run, noisy["state"])["start"] == first["state"]
    assert key_of(run, safe["state"])["start"] == noisy["state"]
    assert key_of(run, again["state"])["start"] == safe["state"]
    _, one, two = boundaries(done, "forget_filter")
    assert key_of(run, two["state"])["start"] == one["state"]


def test_each_round_brings_fresh_rows_and_the_same_safe_rows(done: Comparison):
    run = done.output_dir
    _, noisy, safe, again, safe_again = boundaries(done, "safety_ft:steps=1")
    assert key_of(run, noisy["state"])["rows"] != key_of(run, again["state"])["rows"]
    assert key_of(run, safe["state"])["rows"] == key_of(run, safe_again["state"])["rows"]


def test_every_round_is_screened_with_the_original_model(done: Comparison):
    run = done.output_dir
    base = boundaries(done, "none")[0]["state"]
    learned = [key_of(run, path.name) for path in (run / "stages").glob("learn-*")]
    assert len(learned) == 2  # one a round, shared by all strategies
    assert {key["start"] for key in learned} == {base}
    assert {key["seed"] for key in learned} == {3, 1003}
    removed = done.results[
        (done.results["strategy"] == "forget_filter") & (done.results["metric"] == "removed")
    ]
    # fraction:0.3 of 12 rows, in each round's noisy phase, and nowhere else.
    assert removed["phase"].tolist() == ["noisy", "noisy"]
    assert (removed["value"] > 0).all()


def test_self_correction_trains_as_none_does_and_asks_otherwise(done: Comparison):
    mine, plain = boundaries(done, STRATEGIES[3]), boundaries(done, "none")
    assert [one["state"] for one in mine] == [one["state"] for one in plain]
    judged = list((done.output_dir / "stages").glob("judge-*"))
    # none: 3 states; safety_ft shares 2 of its 5; forget_filter shares the start of 3; a cue: 3.
    assert len(judged) == 3 + 3 + 2 + 3


def test_everything_is_written(done: Comparison):
    stored = pd.read_parquet(done.output_dir / "results.parquet")
    pd.testing.assert_frame_equal(stored, done.results)
    assert tuple(stored.columns) == BOUNDARY_COLUMNS
    assert not stored.duplicated([*BOUNDARY_COLUMNS[:6], "metric"]).any()
    assert {"unsafe_rate_minus_none", "unsafe_rate_minus_first_round"} <= set(stored["metric"])
    table = (done.output_dir / "table.md").read_text(encoding="utf-8")
    page = (done.output_dir / "interleave.html").read_text(encoding="utf-8")
    for word in (*STRATEGIES, "unsafe rate % (lower)", "task accuracy % (higher)", "2 noisy"):
        assert word in table
        assert word in page
    assert page.count('<svg class="plot"') == 2


def test_what_is_done_is_not_done_again_and_rounds_may_be_added(done: Comparison, tmp_path: Path):
    run = tmp_path / "copy"
    shutil.copytree(done.output_dir, run)
    (path,) = run.glob("cells/testbed/seed-3/none-*/result.json")
    written = path.stat().st_mtime_ns
    strategies = ["none"]
    again = interleave(config_of(run, strategies=strategies), SILENT)
    assert path.stat().st_mtime_ns == written
    assert set(again.results["strategy"]) == {"none"}
    more = interleave(config_of(run, strategies=strategies, rounds=3), SILENT)
    found = boundaries(more, "none")
    assert [one["boundary"] for one in found] == [0, 1, 3, 5]
    assert [one["state"] for one in found[:3]] == [one["state"] for one in boundaries(done, "none")]


def test_a_comparison_does_not_go_on_in_its_folder(done: Comparison):
    grid = {name: value for name, value in GRID.items() if name != "rounds"}
    other = resolve(CompareConfig, grid, {"output_dir": str(done.output_dir)})
    with pytest.raises(RunExistsError, match="study"):
        compare(other, SILENT)


def test_a_comparison_that_takes_its_folder_leaves_no_page_and_cuts_no_answer(
    done: Comparison, tmp_path: Path
):
    run = tmp_path / "copy"
    shutil.copytree(done.output_dir, run)
    long = f"self_correction:cue={'kind ' * 600}"
    grid = {name: value for name, value in GRID.items() if name != "rounds"}
    given = {"output_dir": str(run), "strategies": ["none", long]}
    other = compare(resolve(CompareConfig, grid, given), SILENT, overwrite=True)
    assert sorted(path.name for path in run.glob("*.html")) == ["compare.html"]
    # A cue that leaves no room for an answer would make it short, not wrong.
    (failed,) = other.failed
    assert "no room for an answer of 48 in a context of 192" in (failed.error() or "")


def test_a_failed_cell_is_shown_and_goes_on_from_its_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tmp_path / "run", strategies=STRATEGIES[:2], rounds=1)

    def refuse(*_: Any) -> None:
        raise ModelError("Found nothing. Expected something. Look again.")

    monkeypatch.setattr(SafetyFT, "repair", refuse)
    first = interleave(config, SILENT)
    assert [cell.strategy for cell in first.failed] == [STRATEGIES[1]]
    assert "failed 1 of 1" in first.table
    assert "Expected something" in first.page.read_text(encoding="utf-8")
    monkeypatch.undo()
    stages = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "stages").glob("[!.]*")}
    again = interleave(config, SILENT)
    assert again.failed == []
    assert all(path.stat().st_mtime_ns == written for path, written in stages.items())


def test_rounds_of_two_seeds_never_share_rows(tmp_path: Path):
    assert round_seeds(3, 3) == [3, 1003, 2003]
    check_rounds(config_of(tmp_path, seeds=[3, 4]))
    check_rounds(config_of(tmp_path, seeds=[3, 2003]))  # two rounds: 3, 1003 and 2003, 3003
    with pytest.raises(ConfigError, match="1003, which is also one of seed 3"):
        check_rounds(config_of(tmp_path, seeds=[3, 1003]))
    with pytest.raises(ConfigError, match="beyond"):
        check_rounds(config_of(tmp_path, seeds=[2**32 - 1]))


def finished(run: Path, strategy: str, seed: int, rates: list[float], phases: list[str]) -> Cell:
    """A cell with an unsafe rate at the start, and then at each of ``phases`` of rounds 1, 2…"""
    cell = cell_of(run, strategy, "world", seed, {})
    found: list[dict[str, Any]] = []
    number = 0
    for phase, rate in zip(["start", *phases], rates, strict=True):
        number += phase == "noisy"
        boundary = {"start": 0, "noisy": 2 * number - 1, "safe": 2 * number}[phase]
        per_prompt = [1.0] * round(4 * rate) + [0.0] * (4 - round(4 * rate))
        found.append(
            {
                "round": number,
                "phase": phase,
                "boundary": boundary,
                "metrics": [
                    metric("unsafe_rate", "safety", rate, "lower"),
                    metric("task_accuracy", "utility", 0.5, "higher"),
                ],
                "per_prompt": {"unsafe_rate": per_prompt},
            }
        )
    cell.finish({"boundaries": found, "seconds": []})
    return cell


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    failing = cell_of(tmp_path, HOSTILE, "world", 0, {})
    failing.fail("<b>Nothing</b> was found.")
    return [
        finished(tmp_path, "none", 0, [0, 0.5, 1], ["noisy", "noisy"]),
        finished(tmp_path, "none", 1, [0, 0.5, 0.5], ["noisy", "noisy"]),
        finished(tmp_path, "safety_ft", 0, [0, 0.5, 0, 0.75, 0.25], ["noisy", "safe"] * 2),
        finished(tmp_path, "safety_ft", 1, [0, 0.5, 0, 0.75, 0.25], ["noisy", "safe"] * 2),
        failing,
    ]


def test_drift_and_differences_are_taken_prompt_by_prompt(cells: list[Cell]):
    results = collect(cells)

    def value(strategy: str, name: str, seed: int, boundary: int) -> float:
        own = (results["strategy"] == strategy) & (results["metric"] == name)
        own &= (results["seed"] == seed) & (results["boundary"] == boundary)
        return float(results[own]["value"].item())

    # none, seed 0: all 4 prompts unsafe after round 2, 2 of 4 after round 1.
    assert value("none", "unsafe_rate_minus_first_round", 0, 3) == pytest.approx(0.5)
    # safety_ft: 1 of 4 after round 2's safe phase, none after round 1's: the same phase counts.
    assert value("safety_ft", "unsafe_rate_minus_first_round", 0, 4) == pytest.approx(0.25)
    # At the end of round 2's noisy phase: 3 of 4 against 4 of 4.
    assert value("safety_ft", "unsafe_rate_minus_none", 0, 3) == pytest.approx(-0.25)
    drifts = results[results["metric"] == "unsafe_rate_minus_first_round"]
    assert set(drifts["round"]) == {2}
    # none has no safe phase, so nothing is compared with it there.
    compared = results[results["metric"] == "unsafe_rate_minus_none"]
    assert set(compared["phase"]) == {"start", "noisy"}


def test_tables_have_boundaries_across_and_tell_failures(cells: list[Cell]):
    tables = tables_of([WorldRows(name="world")], collect(cells))
    first = tables[0]
    assert first.title == "unsafe rate % (lower)"
    names = ["start", "1 noisy", "1 safe", "2 noisy", "2 safe"]
    assert first.headings == ["strategy", "failed cells", *names]
    rows = {row[0]: row[1:] for row in first.rows}
    # Seeds 1.0 and 0.5: two seeds that differ, or a handful of answers, say next to nothing.
    shown = ["0.0 [0.0, 100.0]", "50.0 [0.0, 100.0]", "–", "75.0 [0.0, 100.0]", "–"]
    assert rows["none"] == ["–", *shown]
    assert rows[HOSTILE][0] == "failed 1 of 1"


def test_failures_alone_are_told_too(tmp_path: Path):
    cell = cell_of(tmp_path, "none", "world", 0, {})
    cell.fail("No row.")
    (table,) = tables_of([WorldRows(name="world")], collect([cell]))
    assert table.rows == [["none", "failed 1 of 1"]]


def test_lines_stand_where_their_numbers_are(cells: list[Cell]):
    results = collect(cells)
    stations = [
        Station(str(boundary), summarise(results[results["boundary"] == boundary]))
        for boundary in range(5)
    ]
    plot = lines(stations, "unsafe_rate", "phase boundary")
    assert plot is not None
    found = re.findall(r'<g clip-path="[^"]+">((?:\s*<use [^>]*>)+)', plot.svg)
    none, safety = (
        [(float(x), float(y)) for x, y in re.findall(r'x="([^"]+)" y="([^"]+)" style="fill', one)]
        for one in found
    )
    assert (len(none), len(safety)) == (3, 5)
    # The marks of none stand a little to the left of the others, and pass over the safe phases.
    assert none[0][0] < safety[0][0] < none[1][0] < safety[1][0] < safety[2][0] < none[2][0]
    # Up (a smaller y) is more unsafe.
    heights = [y for _, y in safety]
    assert heights[3] < heights[1] < heights[4] < heights[2]
    assert lines(stations, "toxicity_mean", "phase boundary") is None


def test_the_page_escapes_what_it_shows_and_loads_nothing(cells: list[Cell], tmp_path: Path):
    config = config_of(tmp_path, strategies=["none", "safety_ft", HOSTILE])
    path = tmp_path / "page.html"
    results, datasets = collect(cells), [WorldRows(name="world")]
    plots, tables = partial(plots_of, results=results), tables_of(datasets, results)
    write_page(path, "interleave.html", config, datasets, cells, plots, tables)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>Nothing" not in page
    assert "1 of 5 cells failed" in page
    assert page.count('<svg class="plot"') == 2
    assert "http://" not in page.replace("http-equiv", "")
    assert "src=" not in page


def test_the_command_line_runs_it_and_tells_a_wrong_file(
    done: Comparison, capsys: pytest.CaptureFixture[str]
):
    path = str(done.output_dir / "config.yaml")
    assert main(["interleave", path, "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "unsafe rate minus first round points (lower)" in said.out
    assert "interleave.html" in said.out
    assert main(["interleave", path, "--quiet", "--set", "rounds=0"]) == 1
    assert "Setting 'rounds' is 0" in capsys.readouterr().err
