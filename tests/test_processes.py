"""Several processes compute one screen: same scores, every row once, one writer, no hang."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import quick_settings
from launched import Ended
from shared_readings import compute

ROOT = Path(__file__).parent.parent
ROWS, EPOCHS = 22, 10


@pytest.fixture(scope="module")
def words(
    tiny_model: Callable[..., Path],
    make_rows: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., list[str]]:
    """``words(run)``: a command that screens 22 rows with a tiny model into that folder."""
    settings = tmp_path_factory.mktemp("settings") / "quick.yaml"
    quick: dict[str, Any] = quick_settings(signal="restoration", coverage="off")
    quick |= {"threshold": "fraction:0.3", "lora": {"r": 8, "alpha": 16}}
    # The last step of each epoch has six rows, which is no multiple of the processes times passes.
    quick["learn"] = {
        "num_train_epochs": EPOCHS,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "stop": "epochs",
    }
    settings.write_text(yaml.safe_dump(quick))
    noisy, safe, model = make_rows(ROWS), make_rows(9, start=100), tiny_model("llama")
    shared = ["screen", str(noisy), "--model", str(model), "--safe-data", str(safe)]
    shared += ["--config", str(settings), "--device", "cpu", "--quiet"]

    def make(run: Path, *more: str) -> list[str]:
        return [*shared, *more, "--output-dir", str(run)]

    return make


@pytest.fixture(scope="module")
def alone(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the same screen by one process."""
    from forgetfilter.cli import main

    run = tmp_path_factory.mktemp("alone") / "run"
    assert main(words(run)) == 0
    return run


def check_same(run: Path, alone: Path) -> None:
    """The same rows, decisions and reasons, and every number within 1e-3 of a nat."""
    found, known = (pd.read_parquet(folder / "scores.parquet") for folder in (run, alone))
    assert list(found["row"]) == list(known["row"])
    assert {"kept", "removed"} == set(known["decision"])
    assert list(found["decision"]) == list(known["decision"])
    assert list(found["reason"]) == list(known["reason"])
    numbers = known.select_dtypes("number").columns
    np.testing.assert_allclose(found[numbers], known[numbers], atol=1e-3)


def test_two_processes_decide_as_one_and_the_other_writes_nothing(
    words: Any, alone: Path, tmp_path: Path
):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    # The other process doesn't even know the run folder.
    early = f"words[-1] = {str(elsewhere)!r} if rank else words[-1]"
    ended = Ended(tmp_path / "said", 2, words(run), early)
    assert ended.statuses == [0, 0], ended.err
    assert f"{ROWS} rows" in ended.out[0]
    assert ended.out[1] + ended.err[1] == ""
    assert not elsewhere.exists()
    check_same(run, alone)
    # It learned by the same steps, and counted every row once in each epoch.
    (known,), (found,) = (
        [json.loads(path.read_text()) for path in folder.glob("stages/learn-*/training.json")]
        for folder in (alone, run)
    )
    assert found["row_passes"] == known["row_passes"] == EPOCHS * ROWS
    assert found["steps"] == known["steps"] == 3 * EPOCHS
    assert found["final_loss"] == pytest.approx(known["final_loss"], abs=1e-5)


@pytest.mark.parametrize("is_parted", [False, True])
def test_all_readings_are_those_of_one_process(tiny_model: Any, tmp_path: Path, is_parted: bool):
    folder = str(tiny_model("llama"))
    early = f"""
os.environ["ACCELERATE_USE_FSDP"] = "{str(is_parted).lower()}"
sys.path.insert(0, {str(Path(__file__).parent)!r})
from shared_readings import compute_together
compute_together({folder!r}, {str(tmp_path / "found")!r})
os._exit(0)
"""
    ended = Ended(tmp_path / "said", 2, [], early)
    assert ended.statuses == [0, 0], ended.err
    known = compute(folder)
    both = [pickle.loads((tmp_path / f"found{rank}").read_bytes()) for rank in range(2)]
    for found, _ in both:
        assert "1 of 2 things were computed 2 times" in found.pop("refusal")
        assert found.keys() == known.keys()
        for name, values in known.items():
            if name == "texts":
                assert found[name] == values
            else:
                np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)
    # The first pass: each row in one process, and both had some.
    firsts = []
    for _, seen in both:
        rows, batches = Counter(), iter(seen)
        while not rows or max(rows.values()) < 2:
            rows.update(next(batches, [0] * 2))
        firsts.append({at for at, count in rows.items() if count == 1})
    assert all(firsts)


def test_a_process_that_is_killed_ends_the_other_with_a_message(words: Any, tmp_path: Path):
    early = """
from forgetfilter.model import shared_step
plain = shared_step.SharedStep.gradient
def gradient(self, step):
    if rank and step.number == 2:
        os.kill(os.getpid(), 9)
    return plain(self, step)
shared_step.SharedStep.gradient = gradient
"""
    start = time.monotonic()
    ended = Ended(tmp_path / "said", 2, words(tmp_path / "run"), early)
    assert ended.statuses == [1, -9]
    assert "Another of the 2 processes has ended" in ended.err[0]
    assert "Expected all of them to work" in ended.err[0]
    assert "the same command goes on" in ended.err[0]
    assert "Traceback" not in ended.err[0]
    assert time.monotonic() - start < 60
    assert not list((tmp_path / "run").glob("stages/learn-*/stage.json"))


def test_process_0_says_what_another_one_lacks(words: Any, tmp_path: Path):
    early = """
from forgetfilter.model import loading
if rank:
    loading.folder_fingerprint = lambda folder: "other"
"""
    ended = Ended(tmp_path / "said", 2, words(tmp_path / "run"), early)
    assert ended.statuses == [1, 0], ended.err
    assert "Process 1 of 2: The model" in ended.err[0]
    assert "is not the one that the command was given" in ended.err[0]
    assert ended.err[1] == ""


def test_an_error_that_all_meet_is_said_once(words: Any, tmp_path: Path):
    run = tmp_path / "run"
    ended = Ended(tmp_path / "said", 2, words(run, "--set", "learn.learning_rate=1e30"))
    assert ended.statuses[0] == 1
    assert "The learn phase diverged" in ended.err[0]
    assert ended.err[1] == ""


def test_a_command_without_a_model_runs_once(alone: Path, tmp_path: Path):
    ended = Ended(tmp_path / "said", 2, ["report", str(alone)])
    assert ended.statuses == [0, 0]
    assert "report.html" in ended.out[0]
    assert ended.out[1] + ended.err[1] + ended.err[0] == ""


@pytest.mark.parametrize(
    ("visible", "local", "seen"),
    [
        (None, 1, "1"),
        ("4,6", 1, "6"),
        ("4,6", 2, ""),  # no card is left for a third process
        ("GPU-5", 3, "GPU-5"),  # the launcher has given it its own
        ("", 1, ""),
    ],
)
def test_each_process_sees_one_card(visible: str | None, local: int, seen: str, monkeypatch: Any):
    from forgetfilter.model.processes import see_one_card

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    see_one_card(local)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def launched(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=own, check=False)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_four_processes_of_torchrun_decide_as_one(words: Any, tmp_path: Path):
    from forgetfilter.cli import main

    runs = tmp_path / "one", tmp_path / "four"
    more = ["--signal", "crossfit", "--set", "coverage=quick"]
    assert main(words(runs[0], *more)) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = launched([*torchrun, "--nproc-per-node=4", "-m", "forgetfilter", *words(runs[1], *more)])
    assert done.returncode == 0, done.stderr
    check_same(runs[1], runs[0])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_accelerate_launch_with_fsdp2_decides_as_one_process(
    words: Any, alone: Path, tmp_path: Path
):
    accelerate = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    accelerate += ["--config_file", str(ROOT / "examples" / "launch" / "fsdp2.yaml")]
    run = tmp_path / "run"
    done = launched([*accelerate, "--num_processes=2", "-m", "forgetfilter", *words(run)])
    assert done.returncode == 0, done.stderr
    check_same(run, alone)


@pytest.mark.slow
def test_a_process_that_stands_still_ends_the_other_with_a_message(words: Any, tmp_path: Path):
    early = """
import signal, threading
os.environ["FORGETFILTER_PROCESS_TIMEOUT"] = "5"
from forgetfilter.model import shared_step
plain = shared_step.SharedStep.gradient
def gradient(self, step):
    if rank and step.number == 2:
        child = os.getpid()
        if os.fork() == 0:
            import time
            time.sleep(30)
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        os.kill(child, signal.SIGSTOP)
    return plain(self, step)
shared_step.SharedStep.gradient = gradient
"""
    ended = Ended(tmp_path / "said", 2, words(tmp_path / "run"), early)
    assert ended.statuses == [1, -9]
    assert "does not answer" in ended.err[0]
