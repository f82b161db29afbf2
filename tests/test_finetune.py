"""Where an adapter may be written is found out before training, and only our own files go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import quick_settings
from forgetfilter.config import ScreenConfig, load_yaml, resolve
from forgetfilter.errors import RunExistsError
from forgetfilter.files import sha256_file
from forgetfilter.lab.demo import DemoSettings, run_demo
from forgetfilter.lab.testbed.build import build_testbed
from forgetfilter.places import require_empty_folder, require_writable_folder
from forgetfilter.progress import Progress
from forgetfilter.runs.adapter_folder import ORIGIN_FILE
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.screen import screen
from killing import EVERY_STEP, Killed, Killing

SILENT = Progress(is_silent=True)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def finished(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run; a test that changes it works on a copy."""
    run = tmp_path_factory.mktemp("finished") / "run"
    layer = {"threshold": "fraction:0.25", "signal": "restoration"}
    layer |= {"learn": {"max_steps": 30, "learning_rate": 2e-2}}
    summary = screen(quick_config(run, **layer), SILENT).summary
    assert summary["removed"] > 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def trained(run: Path) -> list[str]:
    """The fine-tunes that were made in a run."""
    return sorted(path.name for path in (run / "stages").glob("retrain-*"))


def test_a_killed_fine_tune_goes_on_from_its_checkpoint(run: Path, tmp_path: Path):
    with pytest.raises(Killed):
        finetune(run, tmp_path / "adapter", Killing(9), checkpoint_minutes=EVERY_STEP)
    progress = Killing()
    finetune(run, tmp_path / "adapter", progress)
    assert "retrain: goes on from step 8 of 30" in progress.lines
    other = shutil.copytree(run, tmp_path / "other")
    shutil.rmtree(next((other / "stages").glob("retrain-*")))
    finetune(other, tmp_path / "whole", SILENT)
    killed, whole = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("adapter", "whole"))
    assert killed == whole


def test_the_adapter_says_what_it_was_made_from(run: Path, tmp_path: Path):
    output = tmp_path / "adapter"
    result = finetune(run, output, SILENT)
    origin = json.loads((output / ORIGIN_FILE).read_text())
    summary = json.loads((run / "summary.json").read_text())
    provenance = json.loads((run / "provenance.json").read_text())
    assert origin["decision"] == summary["decision"]
    assert origin["rows"] == summary["kept"] == result.rows
    assert origin["noisy_data"] == provenance["inputs"]["noisy_data"]
    assert origin["model"] == provenance["inputs"]["model"]
    assert origin["files"] == {
        path.name: sha256_file(path) for path in output.iterdir() if path.name != ORIGIN_FILE
    }
    assert origin["is_complete"]


def test_the_same_decision_is_found_without_training(run: Path, tmp_path: Path):
    first = finetune(run, tmp_path / "adapter", SILENT)
    before = files_of(tmp_path / "adapter")
    shutil.rmtree(run / "stages")
    again = finetune(run, tmp_path / "adapter", SILENT)
    assert again == first
    assert files_of(tmp_path / "adapter") == before
    assert not (run / "stages").exists()


def test_another_decision_is_refused_before_training_and_replaces_only_our_files(
    run: Path, tmp_path: Path
):
    output = tmp_path / "adapter"
    finetune(run, output, SILENT)
    (output / "notes.txt").write_text("mine")
    (output / "README.md").write_text("my model card")
    (output / "sub").mkdir()
    (output / "sub" / "eval.json").write_text("{}")
    filter_run(run, "fraction:0.5", force=True)
    before, stages = files_of(output), trained(run)
    with pytest.raises(RunExistsError, match=r"another decision.*--overwrite"):
        finetune(run, output, SILENT)
    assert files_of(output) == before
    assert trained(run) == stages

    finetune(run, output, SILENT, overwrite=True)
    after = files_of(output)
    for name in ("notes.txt", "README.md", "sub/eval.json"):
        assert after[name] == before[name]
    assert after[WEIGHTS][1] != before[WEIGHTS][1]
    (new,) = set(trained(run)) - set(stages)
    assert after[WEIGHTS][1] == (run / "stages" / new / "adapter" / WEIGHTS).read_bytes()
    assert "README.md" not in json.loads((output / ORIGIN_FILE).read_text())["files"]


def test_an_adapter_that_was_changed_since_or_is_not_ours_is_not_replaced_unasked(
    run: Path, tmp_path: Path
):
    output = tmp_path / "adapter"
    finetune(run, output, SILENT)
    good = files_of(output)
    (output / WEIGHTS).write_bytes(b"trained further")
    with pytest.raises(RunExistsError, match=f"changed since: {WEIGHTS}"):
        finetune(run, output, SILENT)
    finetune(run, output, SILENT, overwrite=True)
    assert (output / WEIGHTS).read_bytes() == good[WEIGHTS][1]
    (output / ORIGIN_FILE).unlink()
    before = files_of(output)
    with pytest.raises(RunExistsError, match="nothing says what it was made from"):
        finetune(run, output, SILENT)
    assert files_of(output) == before


@pytest.mark.parametrize("written", [ORIGIN_FILE, "adapter_config.json", WEIGHTS])
def test_an_adapter_that_was_left_half_written_is_completed_by_the_same_command(
    run: Path, tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "adapter"
    finetune(run, output, SILENT)
    good = {name: content for name, (_, content) in files_of(output).items()}
    shutil.rmtree(output)
    real = os.replace

    def dies(source: Any, target: Any) -> None:
        path = Path(target)
        is_last = path.name != ORIGIN_FILE or path.exists()
        if path.parent == output and path.name == written and is_last:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            finetune(run, output, SILENT)
    finetune(run, output, SILENT)
    assert {name: content for name, (_, content) in files_of(output).items()} == good


@pytest.mark.parametrize(
    "place",
    ["file", "folder", "run", "in the run", "around the run", "below a file", "here", "/proc/x"],
)
def test_a_place_where_nothing_may_be_written_is_refused_before_training(
    run: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    (tmp_path / "a.file").write_text("precious")
    monkeypatch.chdir(tmp_path / "mine")
    output = {
        "file": tmp_path / "a.file",
        "folder": tmp_path / "mine",
        "run": run,
        "in the run": run / "adapter",
        "around the run": tmp_path,
        "below a file": tmp_path / "a.file" / "adapter",
        "here": Path(),
        "/proc/x": Path("/proc/x"),
    }[place]
    before = files_of(tmp_path)
    with pytest.raises(RunExistsError, match="Choose another --output-dir"):
        finetune(run, output, SILENT, overwrite=True)
    assert files_of(tmp_path) == before
    assert not (run / "adapter").exists()


def test_an_empty_folder_that_one_stands_in_will_do(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "adapter.part").write_text("a neighbour's")
    (tmp_path / "adapter").mkdir()
    monkeypatch.chdir(tmp_path / "adapter")
    finetune(run, ".", SILENT)
    assert (tmp_path / "adapter" / WEIGHTS).is_file()
    assert (tmp_path / "adapter.part").read_text() == "a neighbour's"


def test_trying_out_a_place_leaves_nothing_behind(tmp_path: Path):
    require_writable_folder(tmp_path / "a" / "b")
    require_empty_folder(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_a_testbed_model_is_not_built_over_other_files(tmp_path: Path):
    (tmp_path / "config.json").write_text("a neighbour's model")
    with pytest.raises(RunExistsError, match="holds other files"):
        build_testbed(tmp_path, "small", 0, SILENT)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_demonstration_refuses_before_it_writes(tiny_world_model: Path, tmp_path: Path):
    model, output = str(tiny_world_model), tmp_path / "demo"
    layers = (quick_settings(signal="restoration"),)
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    first = DemoSettings(output, rows=20, safe_rows=12, probes=6, model=model)
    with pytest.raises(RunExistsError, match="holds other files"):
        run_demo(first, layers, SILENT)
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    (output / "notes.txt").unlink()

    run_demo(first, layers, SILENT)
    before = files_of(output)
    other = DemoSettings(output, rows=22, safe_rows=12, probes=6, model=model)
    with pytest.raises(RunExistsError, match=r"on other rows \(noisy.jsonl\).*--overwrite"):
        run_demo(other, layers, SILENT)
    assert files_of(output) == before
    run_demo(other, layers, SILENT, overwrite=True)
    assert resolve(ScreenConfig, load_yaml(output / "run" / "config.yaml")).model == model
    assert json.loads((output / "run" / "summary.json").read_text())["rows"] == 22
