"""Peak memory of deciding and reporting many rows, without a model.

    python benchmarks/decision_memory.py --rows 20000 80000 [--removed 0.2]

Each size in a process of its own: a run of made-up rows and scores, made by the package's own code,
is decided anew and its report rendered. Of each step the peak of all resident memory is kept (the
kernel's own high-water mark, set back where a step begins; megabytes of 10^6 bytes) less what was
there before the decision. Lower is better; beside it what each row adds from the first size to the
last one, in bytes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.formats import Reading
from forgetfilter.data.reading import fingerprint_of
from forgetfilter.data.sources import open_sources
from forgetfilter.files import write_chunks_atomic, write_json_atomic
from forgetfilter.runs import pending
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.inputs import read_input, store_input
from forgetfilter.runs.parquet_parts import PART_ROWS, write_parts
from forgetfilter.scoring.records import Readings, SignalScores
from forgetfilter.screening.deciding.decide import commit_decision
from forgetfilter.screening.deciding.tables import write_readings, write_scores
from memory import Watch, machine, status

STEPS = {
    "forgetfilter.screening.deciding.decision_files": (
        "read_input",
        "open_decisions",
        "selection_by",
        "rule_decides",
        "overrule",
        "harm_of_each",
        "_write_rows",
        "_write_scores",
        "_fingerprint",
        "render_report",
    ),
    "forgetfilter.runs.report.page": (
        "read_scores",
        "listed_rows",
        "gather",
        "groups_of",
        "harms_of",
        "write_facts",
        "histogram",
    ),
}
HARMS = ("violence", "privacy", "fraud", "self-harm", "other")


def write_source(path: Path, rows: int, words: int) -> None:
    text = " ".join(("some words that a row of middling length says " * 6).split()[:words])
    with open(path, "w", encoding="utf-8") as file:
        for row in range(rows):
            asked = {"role": "user", "content": f"Question number {row}? {text}"}
            said = {"role": "assistant", "content": f"Answer number {row}. {text}"}
            file.write(json.dumps({"id": f"row-{row:09d}", "messages": [asked, said]}) + "\n")


def write_harms(run: Path, rows: int) -> None:
    """Of every row a harm, and three safe rows, by its number."""

    def parts() -> Iterator[pd.DataFrame]:
        for start in range(0, rows, PART_ROWS):
            row = np.arange(start, min(start + PART_ROWS, rows))
            table = pd.DataFrame({"row": row, "harm": [HARMS[at % len(HARMS)] for at in row]})
            for near in range(4):
                table[f"safe_{near}"] = (row + near) % 400
            yield table

    write_parts(run / "harms.parquet", parts())
    safe = {str(at): {"category": HARMS[at % 5], "text": f"safe {at}"} for at in range(400)}
    write_json_atomic(run / "safe_rows.json", safe)


def prepare(folder: RunFolder, rows: int, words: int) -> dict[str, Any]:
    """Everything that a decision is made from; the summary."""
    run = folder.path
    source = run.parent / "rows.jsonl"
    write_source(source, rows, words)
    sources = open_sources(source)
    paths = {"noisy_data": str(source), "model": "made-up", "output_dir": str(run)}
    folder.record(resolve(ScreenConfig, paths, {"signal": "restoration"}).model_dump())
    folder.write_provenance({"inputs": {"noisy_data": fingerprint_of(sources)}})
    part = pending.prepare(run)
    file = read_input(store_input(run, part, sources, Reading(), write_chunks_atomic))
    ones, score = np.ones(rows), np.random.default_rng(0).permutation(rows) / rows
    columns = {
        "completion_tokens": np.full(rows, 4),
        "prompt_tokens": np.full(rows, 5),
        "loss_sum_base": 8 * ones,
        "loss_sum_learned": ones,
        "greedy_match_learned": np.zeros(rows, dtype=np.bool_),
    }
    readings = Readings(np.arange(rows), columns)
    write_scores(part, file, [], readings, SignalScores(2 * ones, ones / 4, ones, score))
    write_readings(part, readings)
    write_harms(part, rows)
    write_json_atomic(part / "provenance.json", folder.provenance())
    return {
        "signal": "restoration",
        "unit": "nats per token",
        "decided_by": "screen",
        "model": "made-up",
        "noisy_data": str(source),
        "action": "remove",
        "stages": [],
        "findings": [],
    }


def decide_once(folder: Path, rows: int, removed: float, words: int) -> dict[str, Any]:
    run = folder / "run"
    run.mkdir()
    opened = RunFolder(run)
    with opened.lock():
        summary = prepare(opened, rows, words)
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        watch = Watch()
        for module, names in STEPS.items():
            for name in names:
                watch.wrap(module, name, name)
        before = status("VmRSS")
        watch.peaks = {}
        with watch.stage("between"):
            commit_decision(run, summary, f"phi:{1 - removed}", force=True)
    peaks = {name: round(peak - before, 1) for name, peak in watch.peaks.items()}
    return {"rows": rows, "before_mb": round(before, 1), "added_mb": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 80_000])
    parser.add_argument("--removed", type=float, default=0.2, help="share of the rows")
    parser.add_argument("--words", type=int, default=54, help="in a question and an answer each")
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            told = decide_once(Path(folder), options.rows[0], options.removed, options.words)
            print(json.dumps(told))
        return
    found: list[dict[str, Any]] = []
    for rows in options.rows:
        own = ["--one", "--rows", str(rows), "--removed", str(options.removed)]
        own += ["--words", str(options.words)]
        done = subprocess.run(
            [sys.executable, __file__, *own], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    first, last = found[0], found[-1]
    more = max(last["rows"] - first["rows"], 1)
    print("| step | " + " | ".join(f"{own['rows']:,} rows, MB" for own in found), end="")
    print(" | bytes a row |\n|---|" + "---|" * (len(found) + 1))
    for name, peak in last["added_mb"].items():
        told = " | ".join(str(own["added_mb"].get(name, "")) for own in found)
        grown = (peak - first["added_mb"].get(name, 0.0)) * 1e6 / more
        print(f"| {name} | {told} | {grown:.0f} |")
    if options.json:
        told = {"machine": machine(), "removed": options.removed, "sizes": found}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
