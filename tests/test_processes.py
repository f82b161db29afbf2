"""Several processes compute one screen: same scores, every row once, one writer, no hang."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import quick_settings
from warm import run_warm

# Starts one command in several processes, as a launcher would, and tells how each has ended and what
# it said. What it is given runs in each process before the command, which it may change.
LAUNCH = """
    import json, os, socket, sys, time

    size, words, early, folder = json.loads(sys.argv[1])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            for number, name in ((1, "stdout"), (2, "stderr")):
                file = os.open(f"{folder}/{name}{rank}", os.O_WRONLY | os.O_CREAT)
                os.dup2(file, number)
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            status = 99
            try:
                exec(early)
                from forgetfilter.cli import main
                status = main(words)
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]))
"""


class Ended:
    """How the processes of a command have ended: status and both streams of each."""

    def __init__(self, folder: Path, size: int, words: list[str], early: str = "") -> None:
        folder.mkdir(exist_ok=True)
        done = run_warm(LAUNCH, json.dumps([size, words, early, str(folder)]))
        assert done.returncode == 0, done.stderr
        self.statuses: list[int] = json.loads(done.stdout)
        self.out = [(folder / f"stdout{rank}").read_text() for rank in range(size)]
        self.err = [(folder / f"stderr{rank}").read_text() for rank in range(size)]


@pytest.fixture(scope="module")
def words(
    tiny_model: Callable[..., Path],
    make_rows: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., list[str]]:
    """``words(run)``: a command that screens 22 rows with a tiny model into that folder."""
    settings = tmp_path_factory.mktemp("settings") / "quick.yaml"
    quick: dict[str, Any] = quick_settings(coverage="off")
    quick["learn"] = {"num_train_epochs": 2, "batch_size": 8, "learning_rate": 1e-2}
    settings.write_text(yaml.safe_dump(quick))
    noisy, safe, model = make_rows(22), make_rows(9, start=100), tiny_model("llama")
    shared = ["screen", str(noisy), "--model", str(model), "--safe-data", str(safe)]
    shared += ["--config", str(settings), "--device", "cpu", "--quiet"]

    def make(run: Path, *more: str) -> list[str]:
        return [*shared, "--output-dir", str(run), *more]

    return make


@pytest.fixture(scope="module")
def alone(words: Any, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The scores of the same screen by one process."""
    from forgetfilter.cli import main

    run = tmp_path_factory.mktemp("alone") / "run"
    assert main(words(run)) == 0
    return pd.read_parquet(run / "scores.parquet")


def check_same(found: pd.DataFrame, alone: pd.DataFrame) -> None:
    """The same rows, decisions and reasons, and every number within 1e-4 of a nat."""
    assert list(found["row"]) == list(alone["row"]) == list(range(len(alone)))
    assert list(found["decision"]) == list(alone["decision"])
    numbers = alone.select_dtypes("number").columns
    np.testing.assert_allclose(found[numbers], alone[numbers], atol=1e-4)


# Tells where each process opens files to write, and how many rows it passes through the model.
WATCHED = """
import atexit, builtins, os, sys
written = set()
def note(event, given):
    if event == "open" and isinstance(given[0], str) and isinstance(given[1], str):
        if set(given[1]) & set("wax+"):
            written.add(given[0])
    if event in ("os.mkdir", "os.rename", "os.remove"):
        written.add(str(given[0]))
sys.addaudithook(note)
import forgetfilter.model.forward as forward
import forgetfilter.cli as cli
passes, plain, run = [0], forward.completion_losses, cli.main
def counted(model, input, output):
    passes[0] += len(input[0]) if input else 0
def main(words):
    status = run(words)
    print("WROTE", *sorted(written), sep="\\n", file=sys.stderr)
    return status
cli.main = main
"""


def test_two_processes_decide_as_one_and_process_0_alone_writes(
    words: Any, alone: pd.DataFrame, tmp_path: Path
):
    run = tmp_path / "run"
    ended = Ended(tmp_path / "said", 2, words(run), WATCHED)
    assert ended.statuses == [0, 0], ended.err
    check_same(pd.read_parquet(run / "scores.parquet"), alone)
    assert "22 rows" in ended.out[0]
    assert ended.out[1] == ""
    assert str(run) in ended.err[0]
    assert str(run) not in ended.err[1]
