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
from forgetfilter.integrations.trl_callback import record_training
from forgetfilter.runs.recording import Recording
from launched import Ended
from shared_readings import compute
from test_trl import chat_rows, trained

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
    # Each sees a part of the rows, and so keeps no losses: they are read, as where one is alone.
    kept = ["--set", "learn.keep_losses=true"]
    ended = Ended(tmp_path / "said", 2, words(run, *kept), early)
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


@pytest.mark.parametrize("is_parted", [pytest.param(False, marks=pytest.mark.slow), True])
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
from forgetfilter.model.training import shared_step
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


@pytest.mark.slow
def test_process_0_says_what_another_one_lacks(words: Any, tmp_path: Path):
    early = """
from forgetfilter.model.loading import model_files
if rank:
    model_files.folder_fingerprint = lambda folder: "other"
"""
    ended = Ended(tmp_path / "said", 2, words(tmp_path / "run"), early)
    assert ended.statuses == [1, 0], ended.err
    assert "Process 1 of 2: The model" in ended.err[0]
    assert "is not the one that the command was given" in ended.err[0]
    assert ended.err[1] == ""


@pytest.mark.slow
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


ARGUMENTS = {"assistant_only_loss": True, "num_train_epochs": 2}


def record(model: Path, folder: Path, batch: int) -> None:
    """Train on 14 rows, of which two are alike, and record it."""
    from datasets import Dataset

    arguments = {**ARGUMENTS, "per_device_train_batch_size": batch}
    callback = record_training(folder / "recorded")
    rows = Dataset.from_list([{"messages": row["messages"]} for row in chat_rows(14)])
    trained(model, rows, folder, arguments=arguments, callbacks=[callback])


def losses(folder: Path, step: int) -> dict[str, list[float]]:
    """The losses that were recorded for a step, in order, by the tokens of their row."""
    rows = pd.read_parquet(folder / "rows.parquet")
    found = pd.read_parquet(folder / "row_losses.parquet").query(f"step == {step}")
    found["tokens"] = rows["tokens"].to_numpy()[found["at"]]
    return found.sort_values("loss_sum").groupby("tokens")["loss_sum"].apply(list).to_dict()


def test_two_processes_record_what_one_does(tiny_model: Callable[..., Path], tmp_path: Path):
    model = tiny_model("llama")
    record(model, tmp_path / "one", 4)
    early = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_processes import record
record(Path({str(model)!r}), Path({str(tmp_path)!r}, f"rank{{rank}}"), 2)
sys.stdout.flush()
os._exit(0)
"""
    ended = Ended(tmp_path / "said", 2, [], early)
    assert ended.statuses == [0, 0], ended.err
    one, two = tmp_path / "one" / "recorded", tmp_path / "rank0" / "recorded"
    assert not list((tmp_path / "rank1" / "recorded").glob("*"))
    known, found = Recording(one).record, Recording(two).record
    assert found.learn == known.learn  # a batch of two rows in each of two processes is one of four
    assert (found.rows, found.steps) == (known.rows, known.steps) == (12, 8)
    for step in (0, 1):  # later ones differ where the last batch of an epoch is filled up
        for tokens, values in losses(one, step).items():
            np.testing.assert_allclose(losses(two, step)[tokens], values, atol=1e-3)
    every = pd.read_parquet(two / "rows.parquet")["passes"].sum()
    assert every >= pd.read_parquet(one / "rows.parquet")["passes"].sum() == 2 * 14


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
    from forgetfilter.model.processes.joining import see_one_card

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
@pytest.mark.parametrize("signal", ["self_training", "contradiction"])
def test_four_processes_of_torchrun_decide_as_one(words: Any, tmp_path: Path, signal: str):
    from forgetfilter.cli import main

    runs = tmp_path / "one", tmp_path / "four"
    more = ["--set", f"signal={signal}", "--set", "coverage=quick"]  # torchrun reads --signal
    assert main(words(runs[0], *more)) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = launched([*torchrun, "--nproc-per-node=4", "-m", "forgetfilter", *words(runs[1], *more)])
    assert done.returncode == 0, done.stderr
    check_same(runs[1], runs[0])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_torchrun_ends_with_the_message_where_a_process_is_killed(words: Any, tmp_path: Path):
    import psutil

    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node=2", "-m", "forgetfilter", *words(run)]
    long = ["--set", "learn.num_train_epochs=10000"]
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen([*command, *long], stderr=said, stdout=said)
        try:
            while not list(run.glob("stages/learn-*")):
                assert launcher.poll() is None, (tmp_path / "said").read_text()
                time.sleep(0.5)
            time.sleep(5)
            (other,) = (
                child
                for child in psutil.Process(launcher.pid).children(recursive=True)
                if child.environ().get("RANK") == "1"
            )
            other.kill()
            assert launcher.wait(300) != 0
        finally:
            launcher.terminate()
            launcher.wait()
    told = (tmp_path / "said").read_text()
    assert "Another of the 2 processes has ended" in told or "a launcher ends all" in told


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
from forgetfilter.model.training import shared_step
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
