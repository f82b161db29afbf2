"""The benchmarks: each can be run, and a document says with which command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
HELP = """
import contextlib, pathlib, runpy, sys
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_path(path, run_name="__main__")
"""
# With the arguments, and once more without any.
TWICE = """
import runpy, sys
path = sys.argv.pop(1)
sys.path.insert(0, str(__import__("pathlib").Path(path).parent))
sys.argv[0] = path
runpy.run_path(path, run_name="__main__")
sys.argv = [path]
runpy.run_path(path, run_name="__main__")
"""


def test_every_benchmark_explains_itself():
    command = [sys.executable, "-c", HELP, *map(str, BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == len(BENCHMARKS) > 0


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_on_a_cpu_and_ends_cleanly_without_one(tmp_path: Path):
    script = ROOT / "benchmarks" / "gpu.py"
    words = ["--sizes", "tiny", "--device", "cpu", "--rounds", "1", "--tokens", "24"]
    command = [sys.executable, "-c", TWICE, str(script), *words, "--json", str(tmp_path / "x.json")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "No GPU here: nothing was measured." in done.stdout
    told = json.loads((tmp_path / "x.json").read_text())
    tiny = told["sizes"]["tiny"]
    assert tiny["scoring, tokens/s"]["median"] > 0 < tiny["learning, share of peak"]["median"]
    assert tiny["rank_correlation"] > 0.9
    assert not {"host", "path"} & set(told["machine"])


def test_every_benchmark_has_a_command_in_a_document():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    named = [p for p in BENCHMARKS if any(f"python benchmarks/{p.name} " in t for t in texts)]
    assert named == BENCHMARKS
