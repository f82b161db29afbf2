"""The benchmarks: each can be run, and a document says with which command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
HELP = """
import contextlib, runpy, sys
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_path(path, run_name="__main__")
"""


def test_every_benchmark_explains_itself():
    command = [sys.executable, "-c", HELP, *map(str, BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == len(BENCHMARKS) > 0


def test_every_benchmark_has_a_command_in_a_document():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    named = [p for p in BENCHMARKS if any(f"python benchmarks/{p.name} " in t for t in texts)]
    assert named == BENCHMARKS
