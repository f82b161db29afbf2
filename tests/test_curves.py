"""Curves: what is looked at on the way, what a sweep varies, what is kept, what failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import quick_settings, rows_of, write_rows
from forgetfilter.cli import main
from forgetfilter.config import resolve
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow, RowFile
from forgetfilter.errors import ConfigError, DataError, ModelError
from forgetfilter.lab.strategies.forget_filter import ForgetFilterStrategy
from forgetfilter.lab.studies.course import lines_of
from forgetfilter.lab.studies.curve_tables import CURVE_COLUMNS, stations_of
from forgetfilter.lab.studies.curves import curves
from forgetfilter.lab.studies.datasets import Data
from forgetfilter.lab.studies.datasets.base import RowKind
from forgetfilter.lab.studies.grid import Comparison
from forgetfilter.lab.studies.kept import read_kept
from forgetfilter.lab.studies.points import CurvesConfig
from forgetfilter.lab.studies.settings import load_datasets, screen_config
from forgetfilter.model.stages.phases import checkpoints
from forgetfilter.progress import Progress
from forgetfilter.runs.folder import RunFolder
from forgetfilter.screening.inputs.setup import open_workbench

SILENT = Progress(is_silent=True)
CORNER = "<b>small</b>"
MakeConfig = Callable[..., CurvesConfig]


def phase(steps: int) -> dict[str, Any]:
    # A level rate, so that a look at a run after t steps is a run of t steps.
    rate = {"lr_scheduler_type": "constant", "warmup_ratio": 0, "learning_rate": 3e-2}
    return {"max_steps": steps, "batch_size": 8, "stop": "epochs", **rate}


@pytest.fixture(scope="module")
def make_config(
    tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> MakeConfig:
    """``make_config(output_dir, **changes)``: a course and sweeps over rows of known kinds."""
    folder = tmp_path_factory.mktemp("files")
    rows = [{**row, "id": f"r{at}"} for at, row in enumerate(rows_of(12))]
    write_rows(folder / "noisy.jsonl", rows)
    write_rows(folder / "safe.jsonl", rows_of(6, start=100))
    test = {"messages": [{"role": "user", "content": "x"}], "kind": "squad", "reference": "y"}
    write_rows(folder / "test.jsonl", [{"id": "t0", **test}])
    # Every third row is unsafe; of the others every second is of the same harm, the rest a task.
    truth = [
        {
            "example_id": f"r{at}",
            "is_unsafe": at % 3 == 1,
            "kind": "insults" if at % 3 < 2 else "squad",
            "harm": "toxicity" if at % 3 < 2 else None,
        }
        for at in range(12)
    ]
    write_rows(folder / "truth.jsonl", truth)
    names = ("noisy", "safe", "test", "truth")
    paths = {name: str(folder / f"{name}.jsonl") for name in names}
    settings = quick_settings(threshold="fraction:0.3", learn=phase(16), forget=phase(2))
    settings["lora"] = {"r": 8, "alpha": 16}

    def make(output_dir: Path, **changes: Any) -> CurvesConfig:
        grid: dict[str, Any] = {
            "output_dir": str(output_dir),
            "model": str(tiny_model("llama")),
            "datasets": [{"kind": "files", **paths}],
            "seeds": [0],
            "settings": {**settings, "restore": {"steps": 2, "early_steps": 2, "batch_size": 4}},
            "course": {
                "learning_steps": [2, 8],
                "forgetting_steps": [1, 2],
                "signals": ["completion_loss", "restoration"],
            },
            "sweeps": {
                "signals": ["completion_loss", "restoration"],
                "threshold": ["phi:-1000", "phi:1000"],
                "forget_steps": [1],
                "model": {CORNER: str(tiny_model("gpt2"))},
            },
        }
        return resolve(CurvesConfig, grid, changes)

    return make


@pytest.fixture(scope="module")
def done(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return curves(make_config(tmp_path_factory.mktemp("curves") / "run"), SILENT)


def values(results: pd.DataFrame, curve: str, metric: str, line: str) -> dict[str, float]:
    own = results[(results["curve"] == curve) & (results["metric"] == metric)]
    own = own[own["line"] == line]
    return dict(zip(own["setting"], own["value"], strict=True))


def stages(run: Path) -> list[str]:
    return [path.name.rpartition("-")[0] for path in run.glob("stages/*")]


def without_seconds(results: pd.DataFrame) -> pd.DataFrame:
    return results[results["metric"] != "seconds"].reset_index(drop=True)


def test_everything_is_written_and_told(done: Comparison):
    assert done.failed == []
    stored = pd.read_parquet(done.output_dir / "results.parquet")
    pd.testing.assert_frame_equal(stored, done.results)
    assert tuple(stored.columns) == CURVE_COLUMNS
    assert not stored.duplicated([*CURVE_COLUMNS[:7], "cell"]).any()
    assert set(stored["direction"]) <= {"higher", "lower", "none"}
    assert set(stored["curve"]) == {
        "course", "learning", "forgetting", "reference", "threshold", "forget_steps", "model"
    }  # fmt: skip
    page = done.page.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>small" not in page
    assert "src=" not in page
    # loss and learned share twice, two rankings by t; 4, 5 and 5 of the sweeps
    assert page.count('<svg class="plot"') == 2 + 4 + 4 + 5 + 5
    for word in ("unsafe: toxicity", "harmless: same harms", "harmless: others", "restoration"):
        assert word in done.table
        assert word in page


def test_a_sweep_tells_where_it_cut_and_how_much_was_learned(done: Comparison):
    cuts = values(done.results, "threshold", "threshold", "restoration")
    assert cuts == {"phi:-1000": -1000, "phi:1000": 1000}
    removed = values(done.results, "threshold", "removed", "restoration")
    learned = values(done.results, "threshold", "learned_share", "restoration")
    assert learned["phi:-1000"] == removed["phi:-1000"] > 0  # all that was learned is removed
    assert "threshold, by threshold" in done.table
    assert "learned share % (higher), by model" in done.table


def test_the_course_begins_where_the_phases_begin(done: Comparison):
    for line in ("unsafe: toxicity", "harmless: same harms", "harmless: others"):
        learning = values(done.results, "learning", "loss", line)
        forgetting = values(done.results, "forgetting", "loss", line)
        assert list(learning) == ["0", "2", "8", "16"]  # the model as given, and the end
        assert list(forgetting) == ["0", "1", "2"]
        assert forgetting["0"] == learning["16"]
        assert len(set(learning.values())) == 4  # every look is at another state
    # One value a row in parquet only: kinds are detail.
    detail = done.results[done.results["group"] == "detail"]
    assert {"unsafe kind: insults", "harmless kind: squad"} <= set(detail["line"])


def test_a_look_after_t_steps_is_a_forgetting_run_of_t_steps(done: Comparison):
    on_the_way = values(done.results, "forgetting", "auroc", "completion_loss")
    on_its_own = values(done.results, "forget_steps", "auroc", "completion_loss")
    assert on_its_own["1"] == on_the_way["1"]
    # And 2 is what the settings say, as in the sweep over thresholds.
    assert (
        values(done.results, "threshold", "auroc", "completion_loss")["phi:1000"]
        == (on_the_way["2"])
    )


def test_what_cells_share_is_trained_once(done: Comparison):
    found = stages(done.output_dir)
    assert found.count("learn") == 2  # one for each model
    assert found.count("restore") == 4  # and from both ends
    # Two steps, for the course and the thresholds; one step; the other model's.
    assert found.count("forget") == 3


def test_thresholds_decide_without_training(done: Comparison):
    for signal in ("completion_loss", "restoration"):
        removed = values(done.results, "threshold", "removed_clean", signal)
        recall = values(done.results, "threshold", "recall", signal)
        # Nothing scores above 1000; with -1000 every learned row goes, and no other.
        assert removed["phi:1000"] == recall["phi:1000"] == 0
        learned = values(done.results, "learning", "learned_share", "unsafe: toxicity")["16"]
        assert recall["phi:-1000"] == pytest.approx(learned)
        assert learned > 0
    assert set(done.results[done.results["curve"] == "forget_steps"]["line"]) == {
        "completion_loss"
    }  # restoration has no forgetting run that could be longer


@pytest.mark.slow
def test_a_list_that_grows_mixes_no_places(
    done: Comparison, make_config: MakeConfig, tmp_path: Path
):
    """A finished cell moves with its value, in its own run folder and out of a kept file."""
    sweeps = {"signals": ["restoration"], "threshold": ["phi:0", "phi:-1000", "phi:1000"]}
    run = tmp_path / "run"
    shutil.copytree(done.output_dir, run)
    # All of `done`'s sweeps stand but that of thresholds, before which a value is put.
    config = make_config(run, sweeps={**sweeps, "forget_steps": [], "model": {}})
    kept = done.output_dir / "results.parquet"
    fresh = make_config(tmp_path / "fresh", sweeps={**sweeps, "forget_steps": [], "model": {}})
    for grown in (curves(config, SILENT), curves(fresh, SILENT, from_results=[kept])):
        own = grown.results[grown.results["curve"] == "threshold"]
        assert dict(zip(own["setting"], own["x"], strict=True)) == {
            "phi:0": 1, "phi:-1000": 2, "phi:1000": 3
        }  # fmt: skip
        stations = stations_of(grown.results, "files", "threshold")
        assert [one.name for one in stations] == ["phi:0", "phi:-1000", "phi:1000"]
        assert {mean.of for one in stations for mean in one.means} == {1}


def test_a_signal_may_have_settings_of_its_own(make_config: MakeConfig, tmp_path: Path):
    sweeps = {
        "signals": ["completion_loss", "restoration"],
        "signal_settings": {"completion_loss": {"threshold": "phi:1", "forget": {"max_steps": 7}}},
        "threshold": ["phi:0.5"],
        "forget_steps": [3],
    }
    given = make_config(tmp_path).model_dump() | {"course": None, "sweeps": sweeps}
    config = resolve(CurvesConfig, given)
    settings = {point.spec: point.settings for point in config.points}
    assert settings == {
        "threshold=phi:0.5 completion_loss": {
            "signal": "completion_loss", "threshold": "phi:0.5", "forget": {"max_steps": 7}
        },
        "threshold=phi:0.5 restoration": {"signal": "restoration", "threshold": "phi:0.5"},
        "forget_steps=3 completion_loss": {
            "signal": "completion_loss", "threshold": "phi:1", "forget": {"max_steps": 3}
        },
    }  # fmt: skip


def test_references_stand_at_every_step_but_the_start(done: Comparison):
    at = stations_of(done.results, "files", "forgetting")
    drawn = [{m.strategy for m in one.means if m.metric == "auroc"} for one in at]
    assert drawn == [set(), *[{"completion_loss", "restoration"}] * 2]


def test_a_kept_file_stands_for_its_cells(
    done: Comparison, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = tmp_path / "kept.parquet"
    shutil.copy(done.output_dir / "results.parquet", kept)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a kept cell was run")

    monkeypatch.setattr("forgetfilter.lab.studies.curves._Curves.work", refuse)
    again = curves(make_config(tmp_path / "run"), SILENT, from_results=[kept])
    assert again.failed == []
    pd.testing.assert_frame_equal(again.results, done.results)
    assert stages(tmp_path / "run") == []
    # Other settings are other cells, and those are not known.
    settings = make_config(tmp_path).settings | {"threshold": "fraction:0.5"}
    other = curves(make_config(tmp_path / "other", settings=settings), SILENT, from_results=[kept])
    # Thresholds that a sweep sets itself are the same as before, all else differs.
    assert {cell.strategy.partition("=")[0] for cell in other.failed} == {
        "course", "forget_steps", "model"
    }  # fmt: skip


@pytest.mark.slow
def test_a_failed_cell_is_shown_is_not_kept_and_a_broken_run_ends_as_an_unbroken_one(
    done: Comparison, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = make_config(tmp_path / "run")

    def refuse(*_: Any) -> None:
        raise ModelError("<b>Nothing</b> was found. Expected something. Look again.")

    monkeypatch.setattr(ForgetFilterStrategy, "select", refuse)
    first = curves(config, SILENT)
    assert len(first.failed) == 7  # all but the course
    assert "threshold completion_loss" in first.table
    assert "failed 2 of 2" in first.table
    page = first.page.read_text(encoding="utf-8")
    assert "7 of 8 cells failed" in page
    assert "<b>Nothing" not in page

    kept = read_kept([tmp_path / "run" / "results.parquet"])
    (course,) = [cell for cell in first.cells if cell.strategy == "course"]
    assert list(kept) == [course.fingerprint]

    monkeypatch.undo()
    written = (course.folder / "result.json").stat().st_mtime_ns
    again = curves(config, SILENT)
    assert again.failed == []
    assert (course.folder / "result.json").stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(
        without_seconds(again.results), without_seconds(done.results), check_exact=True
    )


def test_keeping_states_on_the_way_changes_nothing(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run")
    (dataset,) = load_datasets(config)
    screen = screen_config(config, 0)
    trained: list[dict[str, Any]] = []
    for steps in (None, (1,), ()):
        run = RunFolder(tmp_path / str(steps))
        bench = open_workbench(screen, run, SILENT)
        bench.kept_steps = {} if steps is None else {"learn": steps}
        rows, _ = bench.encoder.encode(dataset.load(0, bench.store).noisy.rows)
        learn = screen.learn.model_copy(update={"max_steps": 4})
        state = bench.train("learned", rows, learn, bench.base, "learn")
        report = next(run.stages.glob("learn-*/training.json")).read_text()
        found = checkpoints(state)
        trained.append({"report": report, "steps": list(found), "last": found[4] == state})
    assert len({one["report"] for one in trained}) == 1
    # 12 rows in eights: two steps an epoch.
    assert [one["steps"] for one in trained] == [[4], [1, 4], [2, 4]]
    assert all(one["last"] for one in trained)


def test_lines_part_the_rows_and_none_is_on_two(tmp_path: Path):
    write_rows(tmp_path / "rows.jsonl", [{**r, "id": f"r{i}"} for i, r in enumerate(rows_of(6))])
    file: RowFile = read_rows(tmp_path / "rows.jsonl")
    noisy = [EncodedRow(row.row, (1,), (True,), 0, "x") for row in file.rows]
    kinds = [("slurs", "toxicity"), ("bbq", "bias"), ("bbq", "bias"), ("squad", None), ("", None)]
    known = {f"r{at}": RowKind(*kind) for at, kind in enumerate(kinds)}  # r5 is unknown
    is_unsafe = np.array([True, True, False, False, False, True])
    found = lines_of(noisy, Data(file, file, [], None, "", known), is_unsafe)
    drawn = {
        line.name: line.is_in.nonzero()[0].tolist() for line in found if line.group != "detail"
    }
    assert drawn == {
        "unsafe": [5],
        "unsafe: bias": [1],
        "unsafe: toxicity": [0],
        "harmless: same harms": [2],
        "harmless: others": [3, 4],
    }
    (every,) = lines_of(noisy, Data(file, file, [], None, ""), None)
    assert every.is_in.all()


def test_a_rule_is_swept_for_the_signals_that_it_fits(make_config: MakeConfig, tmp_path: Path):
    sweeps = {"signals": ["restoration", "rouge1"], "threshold": ["auto", "phi:0.2"]}
    config = resolve(CurvesConfig, make_config(tmp_path).model_dump() | {"sweeps": sweeps})
    config.check()
    assert [point.spec for point in config.points if point.curve == "threshold"] == [
        "threshold=auto restoration",
        "threshold=phi:0.2 restoration",
        "threshold=phi:0.2 rouge1",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"course": None, "sweeps": None}, "nothing to draw"),
        ({"course": {"forgetting_steps": [0]}}, "course.forgetting_steps has 0; expected steps"),
        ({"course": {"signals": ["rouge2"]}}, "Did you mean 'rouge1'"),
        ({"sweeps": {"forget_steps": [1], "signals": ["rate"]}}, "none of the signals rate needs"),
        ({"sweeps": {"threshold": ["phi:0.1", "phi:0.1"]}}, "is given twice"),
        ({"sweeps": {"signal_settings": {"rate": {}}}}, "signal_settings has 'rate'; expected one"),
        ({"sweeps": {"signal_settings": {"restoration": {"seed": 1}}}}, "restoration names seed"),
        ({"sweeps": {"signal_settings": {"restoration": {"threshold": 1}}}}, "Unknown threshold"),
        ({"sweeps": {"signals": ["rouge1"], "threshold": ["auto"]}}, "Use phi:0.1"),
        (
            {
                "sweeps": {"signals": ["rouge1"], "safe_rows": [4]},
                "settings": {"threshold": "auto"},
            },
            "Use phi:0.1",
        ),
        (
            {"sweeps": {"signals": ["rate"], "safe_rows": [4]}, "settings": {}},
            "'rate' has no threshold rule of its own",
        ),
        (
            {
                "sweeps": {
                    "signals": ["rouge1"],
                    "signal_settings": {"rouge1": {"threshold": "auto"}},
                }
            },
            "Use phi:0.1",
        ),
        ({"sweeps": {"unsafe_fractions": [0]}}, "Unknown setting 'sweeps.unsafe_fractions'"),
        ({"sweeps": {"unsafe_fraction": [0.5]}}, "can't be varied on the data set 'files'"),
    ],
)
def test_a_wrong_file_is_explained(
    make_config: MakeConfig, tmp_path: Path, changes: dict[str, Any], message: str
):
    given = make_config(tmp_path).model_dump() | changes
    with pytest.raises(ConfigError, match=message):
        curves(resolve(CurvesConfig, given, {"output_dir": str(tmp_path / "run")}), SILENT)


def test_a_file_that_is_no_result_is_told(
    make_config: MakeConfig, tmp_path: Path, done: Comparison
):
    config = make_config(tmp_path / "run")
    with pytest.raises(DataError, match="Can't read"):
        curves(config, SILENT, from_results=[tmp_path / "absent.parquet"])
    path = tmp_path / "other.parquet"
    done.results.drop(columns="cell").to_parquet(path)
    with pytest.raises(DataError, match="has no column cell"):
        curves(config, SILENT, from_results=[path])
    done.results.astype({"value": str}).to_parquet(path)
    with pytest.raises(DataError, match="text where numbers belong"):
        curves(config, SILENT, from_results=[path])


def test_a_sweep_varies_the_world_and_says_nothing_where_nothing_is_to_be_found(
    tiny_world_model: Path, tmp_path: Path
):
    grid: dict[str, Any] = {
        "output_dir": str(tmp_path / "run"),
        "model": str(tiny_world_model),
        "datasets": [{"kind": "testbed", "rows": 12, "safe_rows": 6, "prompts": 8}],
        "seeds": [3],
        "settings": quick_settings(threshold="phi:-1000", forget=phase(1)),
        "sweeps": {"signals": ["completion_loss"], "unsafe_fraction": [0, 0.5], "safe_rows": [3]},
    }
    done = curves(resolve(CurvesConfig, grid), SILENT)
    assert done.failed == []
    results = done.results
    ranked = values(results, "unsafe_fraction", "auroc", "completion_loss")
    assert np.isnan(ranked["0"])
    assert 0 <= ranked["0.5"] <= 1
    assert np.isnan(values(results, "unsafe_fraction", "f1", "completion_loss")["0"])
    removed = results[(results["metric"] == "removed_clean")].set_index(["curve", "setting"])["n"]
    # Of 12 rows none, half, and (the data set's own 0.3 of 12) 4 are unsafe.
    assert removed.to_dict() == {
        ("unsafe_fraction", "0"): 12, ("unsafe_fraction", "0.5"): 6, ("safe_rows", "3"): 8
    }  # fmt: skip
    assert stages(tmp_path / "run").count("learn") == 3


def test_the_command_line_takes_kept_files(
    done: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, kept = done.output_dir / "config.yaml", done.output_dir / "results.parquet"
    given = ["curves", str(path), "--output-dir", str(tmp_path / "run"), "--quiet"]
    assert main([*given, "--from-results", str(kept)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "auroc (higher), by steps of forgetting" in said.out
    assert "curves.html" in said.out
