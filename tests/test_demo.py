"""The demonstration on a tiny model: what it writes, when it goes on, and what it refuses first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import quick_settings
from forgetfilter.cli import main
from forgetfilter.errors import ConfigError, ForgetFilterError, ModelError, RunExistsError
from forgetfilter.lab.demo import SCREENED, UNSCREENED, DemoSettings, describe, run_demo
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def model(tiny_world_model: Path) -> str:
    return str(tiny_world_model)


def demo(folder: Path, model: str, *, overwrite: bool = False, **changes: Any) -> dict[str, Any]:
    learn = {"max_steps": 70, "batch_size": 8, "learning_rate": 4e-2}  # so that rows are learned
    settled = {"threshold": "fraction:0.3", "learn": learn}
    layer = quick_settings(**(settled | changes.pop("layer", {})))
    sizes = {"rows": 40, "safe_rows": 20, "probes": 12, "model": model, **changes}
    settings = DemoSettings(folder, **sizes)
    return run_demo(settings, (layer,), SILENT, overwrite=overwrite)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: str) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, demo(folder, model)


def test_a_demonstration_screens_fine_tunes_and_compares(finished: tuple[Path, dict[str, Any]]):
    folder, evaluation = finished
    data, run = folder / "data", folder / "run"
    rows = {path.stem: path.read_text().splitlines() for path in data.iterdir()}
    assert {name: len(lines) for name, lines in rows.items()} == {
        "noisy": 40,
        "truth": 40,
        "safe": 20,
    }
    truth = [json.loads(line)["is_unsafe"] for line in rows["truth"]]
    assert sum(truth) == 12
    assert json.loads((run / "evaluation.json").read_text()) == evaluation
    names = [each["name"] for each in evaluation["models"]]
    assert names == ["base", UNSCREENED, SCREENED]
    assert evaluation["prompts"] == 12
    # The table says what the files say: precision and recall by hand from the truth.
    removed = [json.loads(line)["id"] for line in (run / "removed.jsonl").read_text().splitlines()]
    unsafe = {
        json.loads(line)["example_id"] for line in rows["truth"] if json.loads(line)["is_unsafe"]
    }
    hits = len(unsafe & set(removed))
    found = evaluation["detection"]
    assert 0 < len(removed) < 40
    assert found["precision"] == pytest.approx(hits / len(removed))
    assert found["recall"] == pytest.approx(hits / 12)
    said = describe(run, evaluation)
    assert f"removed {len(removed)}" in said
    assert "on 12 held-out prompts" in said
    assert all(name in said for name in names)
    report = (run / "report.html").read_text()
    assert SCREENED in report


def test_a_repeated_demonstration_changes_nothing(
    finished: tuple[Path, dict[str, Any]], model: str
):
    folder, evaluation = finished
    before = files_of(folder)
    assert demo(folder, model) == evaluation
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("changes", "error", "overwrite"),
    [
        ({"rows": 50}, RunExistsError, False),
        ({"seed": 1}, RunExistsError, False),
        ({"layer": {"lora": {"r": 3}}}, RunExistsError, False),
        ({"layer": {"signal": "rouge2"}}, ForgetFilterError, True),
        ({"layer": {"threshold": "pih"}}, ForgetFilterError, True),
        ({"rows": 50, "model": "nowhere"}, ModelError, True),
        ({"rows": 50, "layer": {"learn": {"batch_size": 0}}}, ConfigError, True),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_written(
    finished: tuple[Path, dict[str, Any]],
    model: str,
    changes: dict[str, Any],
    error: type[Exception],
    overwrite: bool,
):
    folder, _ = finished
    before = files_of(folder)
    with pytest.raises(error):
        demo(folder, **{"model": model, **changes}, overwrite=overwrite)
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("notes.txt", "holds other files"),
        ("data/notes.txt", "holds other files"),
        ("run/notes.txt", "has files in it but no config"),
    ],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_with_files_of_others_is_left_alone(
    tmp_path: Path, model: str, name: str, found: str, overwrite: bool
):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(RunExistsError, match=found):
        demo(tmp_path, model, overwrite=overwrite)
    assert files_of(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize(
    ("tries", "changes"), [(2, {"rows": 4000}), (20, {"rows": 10, "safe_rows": 5, "probes": 4000})]
)
def test_more_rows_or_prompts_than_there_are_is_told_before_a_model_is_loaded(
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    tries: int,
    changes: dict[str, Any],
):
    monkeypatch.setattr("forgetfilter.lab.testbed.draws._MAX_TRIES", tries)
    with pytest.raises(ConfigError, match="4,000 different prompts were asked for"):
        demo(tmp_path / "out", model, **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_overwrite_replaces_a_demonstration_on_other_rows(tmp_path: Path, model: str):
    quick = {"layer": {"learn": {"max_steps": 1, "learning_rate": 1e-2}}}
    demo(tmp_path, model, rows=30, **quick)
    demo(tmp_path, model, rows=34, overwrite=True, **quick)
    assert len((tmp_path / "data" / "noisy.jsonl").read_text().splitlines()) == 34
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rows"] == 34


def test_the_command_prints_the_table_and_the_report(
    finished: tuple[Path, dict[str, Any]],
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    folder, evaluation = finished
    shown: Callable[..., dict[str, Any]] = lambda *_, **__: evaluation  # noqa: E731
    monkeypatch.setattr("forgetfilter.lab.demo.run_demo", shown)
    assert main(["demo", "--output-dir", str(folder), "--model", model]) == 0
    said = capsys.readouterr().out
    assert describe(folder / "run", evaluation) in said
    assert f"Report: {folder / 'run' / 'report.html'}" in said
