"""The grid itself: finished cells are skipped, failures stay visible, a killed run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pandas as pd
import psutil
import pytest
import yaml

from conftest import quick_settings, rows_of, write_rows
from forgetfilter.cli import main
from forgetfilter.config import load_yaml, resolve
from forgetfilter.errors import ModelError, RunExistsError
from forgetfilter.lab.strategies.baselines import SafetyFT
from forgetfilter.lab.studies import workers
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.compare import Comparison, compare
from forgetfilter.lab.studies.datasets import WorldRows
from forgetfilter.lab.studies.grid import Job, Study
from forgetfilter.lab.studies.settings import CompareConfig
from forgetfilter.progress import Progress
from forgetfilter.runs.folder import RunFolder
from test_compare_data import TEST_LINES

ROOT = Path(__file__).parent.parent
STRATEGIES = ["none", "safety_ft:steps=1", "forget_filter+self_correction", "oracle_removal"]
MakeConfig = Callable[..., CompareConfig]


@pytest.fixture(scope="module")
def make_config(
    tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> MakeConfig:
    """``make_config(output_dir, **changes)``: a grid of four strategies and two seeds."""
    folder = tmp_path_factory.mktemp("files")
    rows = [{**row, "id": f"r{at}"} for at, row in enumerate(rows_of(12))]
    write_rows(folder / "noisy.jsonl", rows)
    write_rows(folder / "safe.jsonl", rows_of(6, start=100))
    write_rows(folder / "test.jsonl", TEST_LINES)
    truth = [{"example_id": f"r{at}", "is_unsafe": at % 3 == 1} for at in range(12)]
    write_rows(folder / "truth.jsonl", truth)
    names = ("noisy", "safe", "test", "truth")
    paths = {name: str(folder / f"{name}.jsonl") for name in names}
    settings = quick_settings(signal="completion_loss", threshold="fraction:0.3")

    def make(output_dir: Path, **changes: Any) -> CompareConfig:
        grid: dict[str, Any] = {
            "output_dir": str(output_dir),
            "model": str(tiny_model("llama")),
            "strategies": STRATEGIES,
            "datasets": [{"kind": "files", "max_new_tokens": 4, **paths}],
            "seeds": [0, 1],
            "settings": settings,
        }
        return resolve(CompareConfig, grid, changes)

    return make


@pytest.fixture(scope="module")
def unbroken(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(make_config(tmp_path_factory.mktemp("whole") / "run"), silently())


def silently() -> Progress:
    return Progress(is_silent=True)


def without_seconds(results: pd.DataFrame) -> pd.DataFrame:
    kept = results[~results["metric"].str.startswith("seconds")]
    return kept.reset_index(drop=True)


def result_files(run: Path) -> dict[str, int]:
    found = sorted(run.glob("cells/*/*/*/result.json"))
    return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in found}


def test_every_cell_is_finished_and_everything_is_written(unbroken: Comparison):
    assert unbroken.failed == []
    assert len(result_files(unbroken.output_dir)) == len(STRATEGIES) * 2
    stored = pd.read_parquet(unbroken.output_dir / "results.parquet")
    pd.testing.assert_frame_equal(stored, unbroken.results)
    found = set(stored["metric"])
    assert {"task_score", "toxicity_mean", "refusal_rate_opening", "precision", "recall"} <= found
    assert {"seconds", "seconds_beyond_none", "task_score_minus_none"} <= found
    table = (unbroken.output_dir / "table.md").read_text(encoding="utf-8")
    page = (unbroken.output_dir / "compare.html").read_text(encoding="utf-8")
    for spec in STRATEGIES:
        assert spec in table
        assert spec in page
    oracle = stored[stored["strategy"] == "oracle_removal"].set_index("metric")["value"]
    assert set(oracle["recall"]) == set(oracle["precision"]) == {1.0}
    plain = stored[stored["strategy"] == "none"]
    assert "precision" not in set(
        plain["metric"]
    )  # it selects nothing, so there is nothing to grade


def test_what_two_strategies_need_is_trained_once(unbroken: Comparison):
    stages = [path.name.rpartition("-")[0] for path in unbroken.output_dir.glob("stages/[!.]*")]
    assert stages.count("learn") == 2  # one a seed, for all four strategies
    assert stages.count("measure_loss_base") == 1  # base is the same for both seeds


def test_finished_cells_are_skipped_and_a_grid_may_grow(
    unbroken: Comparison, make_config: MakeConfig
):
    run = unbroken.output_dir
    before = result_files(run)
    again = compare(make_config(run), silently())
    assert result_files(run) == before
    pd.testing.assert_frame_equal(again.results, unbroken.results)
    grown = compare(make_config(run, strategies=[*STRATEGIES, "random_removal"]), silently())
    assert before.items() < result_files(run).items()
    assert set(grown.results["strategy"]) == {*STRATEGIES, "random_removal"}
    assert "random_removal" in load_yaml(run / "config.yaml")["strategies"]
    compare(make_config(run), silently())  # as it was, for other tests


def test_other_settings_are_refused(unbroken: Comparison, make_config: MakeConfig):
    settings = quick_settings(signal="rate")
    with pytest.raises(RunExistsError, match=r"settings\.signal"):
        compare(make_config(unbroken.output_dir, settings=settings), silently())


def test_a_failed_cell_costs_no_other_is_shown_and_tried_again(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = make_config(tmp_path / "run", seeds=[0], strategies=STRATEGIES[:2])

    def refuse(*_: Any) -> None:
        raise ModelError("Found nothing. Expected something. Look again.")

    monkeypatch.setattr(SafetyFT, "repair", refuse)
    first = compare(config, silently())
    (failed,) = first.failed
    assert failed.error() == "Found nothing. Expected something. Look again.\n"
    assert "failed 1 of 1" in (tmp_path / "run" / "table.md").read_text(encoding="utf-8")
    assert "Expected something" in (tmp_path / "run" / "compare.html").read_text(encoding="utf-8")

    def break_down(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(SafetyFT, "repair", break_down)
    (failed,) = compare(config, silently()).failed
    message = failed.error()
    assert message is not None
    assert "stopped with ValueError: a bug. Expected a result." in message
    assert "Traceback" in message
    before = result_files(tmp_path / "run")

    monkeypatch.undo()
    again = compare(config, silently())
    assert again.failed == []
    assert failed.error() is None
    assert before.items() < result_files(tmp_path / "run").items()


def test_a_killed_run_goes_on_and_ends_with_the_results_of_an_unbroken_one(
    unbroken: Comparison, make_config: MakeConfig, tmp_path: Path
):
    run = tmp_path / "run"
    config = make_config(run)
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
    command = [sys.executable, "-m", "forgetfilter", "compare", str(path), "--quiet"]
    killed_with = kill_after_first_cell(command, run)
    assert 1 <= len(killed_with) < len(STRATEGIES) * 2
    done = compare(config, silently())
    assert done.failed == []
    assert killed_with.items() <= result_files(run).items()  # what was finished was left alone
    pd.testing.assert_frame_equal(
        without_seconds(done.results), without_seconds(unbroken.results), check_exact=True
    )


def kill_after_first_cell(command: Sequence[str], run: Path) -> dict[str, int]:
    """Start a grid, kill it by SIGKILL once a cell is finished, and say which ones are."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not result_files(run):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return result_files(run)


@pytest.mark.slow
def test_several_processes_end_with_the_results_of_one(
    unbroken: Comparison, make_config: MakeConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    done = compare(make_config(tmp_path / "run", num_proc=2))
    assert done.failed == []
    pd.testing.assert_frame_equal(
        without_seconds(done.results), without_seconds(unbroken.results), check_exact=True
    )
    stages = [path.name.rpartition("-")[0] for path in (tmp_path / "run").glob("stages/[!.]*")]
    assert stages.count("measure_loss_base") == 1  # both processes need it, one made it
    said = capfd.readouterr().err
    assert "[files, seed 0] none on files, seed 0" in said
    assert "[files, seed 1] retrain: " in said
    # It may go on with another number of processes.
    assert compare(make_config(tmp_path / "run"), silently()).failed == []


@pytest.mark.slow
def test_no_process_outlives_a_killed_run_and_the_loss_of_one_is_told(
    make_config: MakeConfig, tmp_path: Path
):
    run = tmp_path / "run"
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(make_config(run).model_dump()), encoding="utf-8")
    command = [sys.executable, "-m", "forgetfilter", "compare", str(path), "--num-proc", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    at_work = workers_of(process)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(at_work, timeout=20)
    assert alive == []

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    at_work = workers_of(process)
    at_work[0].kill()
    said, _ = process.communicate()
    _, alive = psutil.wait_procs(at_work, timeout=20)
    assert alive == []
    assert process.returncode == 1
    assert "A process of this study was ended from outside" in said
    assert "Traceback" not in said
    assert compare(make_config(run), silently()).failed == []


def end_abruptly(_: Study, job: Job) -> None:
    """Fails the cell of seed 0, and once that is done takes the process of seed 1 away."""
    if job.cell.seed == 0:
        job.cell.fail("Its own reason.")
        return
    while not (job.cell.folder.parents[1] / "seed-0" / "none" / "error.txt").exists():
        time.sleep(0.02)
    os._exit(9)


def test_the_loss_of_a_process_hides_no_failure(tmp_path: Path):
    """A cell that failed for a reason of its own keeps it; those that were not reached say so."""
    cells = [Cell("none", "world", seed, tmp_path / f"seed-{seed}" / "none", "") for seed in (0, 1)]
    run, silent = RunFolder(tmp_path, frozenset()), silently()
    jobs = [Job(cell, [], WorldRows(), [], run, silent) for cell in cells]
    workers.attempt_all(cast(Study, None), jobs, 2, end_abruptly)
    assert [str(cell.error())[:32] for cell in cells] == [
        "Its own reason.\n",
        "A process of this study was ende",
    ]


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The two processes that work for ``process``, once they are there."""
    while process.poll() is None:
        with suppress(psutil.Error):  # one that has just begun or ended
            found = psutil.Process(process.pid).children(recursive=True)
            workers = [own for own in found if "spawn_main" in " ".join(own.cmdline())]
            if len(workers) == 2:
                return workers
        time.sleep(0.02)
    raise AssertionError(f"The run ended before it had two workers: {process.communicate()[0]}")


def test_the_tiny_example_runs_from_the_command_line(
    tiny_world_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    example = ROOT / "examples" / "tiny_compare.yaml"
    run = tmp_path / "run"
    smaller = ["--set", f"model={tiny_world_model}", "--quiet"]
    assert main(["compare", str(example), "--output-dir", str(run), *smaller]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for word in ("unsafe rate % (lower)", "task accuracy minus none points", "auroc", "seconds"):
        assert word in said.out
    harms = {f"unsafe_rate_{harm}" for harm in ("bias", "harmfulness", "toxicity")}
    results = pd.read_parquet(run / "results.parquet")
    assert harms <= set(results["metric"])
    rates = results[results["metric"].isin(["unsafe_rate", "safe_rate", "neither_rate"])]
    assert rates.groupby(["strategy", "seed"])["value"].sum().round(9).eq(1).all()


def test_a_grid_with_a_failed_cell_ends_with_status_1(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    strategies = ["none", "random_removal:like=none"]
    config = make_config(tmp_path / "run", seeds=[0], strategies=strategies)
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
    assert main(["compare", str(path), "--quiet"]) == 1
    said = capsys.readouterr()
    assert "failed: random_removal:like=none on files, seed 0" in said.err
    assert "'none' selects no rows" in said.err
    assert "failed 1 of 1" in said.out
