"""How large a report of many rows is, and how long it takes to write and to open.

    python benchmarks/report_size.py --rows 100000 --removed 0.3

Makes a finished run folder of made-up rows (words drawn at random, 40 to 160 a row), renders its
report, and opens it in headless Chromium (wall clock from the start of the browser to the written
DOM, median of three; a blank page beside it says what the browser itself takes). By then the first
rows are shown; of a long list the rest follows, from files beside the page. Prints one line
of JSON: bytes of the page and beside it, seconds (lower is better).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forgetfilter.runs.report.page import render_report

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def make_run(run: Path, rows: int, removed_share: float, seed: int = 0) -> None:
    """Write the files of a run that a report reads."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{n}" for n in range(2000)])
    is_removed = rng.random(rows) < removed_share
    score = np.where(is_removed, rng.normal(0.9, 0.2, rows).clip(0.3), rng.normal(0, 0.03, rows))
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "kept.jsonl", "w") as kept, open(run / "removed.jsonl", "w") as removed:
        for row in range(rows):
            drawn = words[rng.integers(0, len(words), rng.integers(40, 160))]
            record = {
                "id": f"customer-{row:06d}",
                "prompt": " ".join(drawn[:20]),
                "completion": " ".join(drawn[20:]),
                "source": ("forum", "tickets", "vendor")[row % 3],
            }
            (removed if is_removed[row] else kept).write(json.dumps(record) + "\n")
    decision = np.where(is_removed, "removed", "kept")
    table = {
        "row": np.arange(rows),
        "example_id": [f"customer-{row:06d}" for row in range(rows)],
        "base": np.full(rows, 2.5),
        "before": np.full(rows, 0.1),
        "after": score + 0.1,
        "forgetting_score": score,
        "learned": np.ones(rows, dtype=bool),
        "decision": decision,
        "reason": np.where(is_removed, "above_threshold", "below_threshold"),
    }
    pq.write_table(pa.table(table), run / "scores.parquet")
    summary = {
        "signal": "crossfit",
        "unit": "nats per root token",
        "needs_learned": False,
        "rows": rows,
        "kept": int((~is_removed).sum()),
        "removed": int(is_removed.sum()),
        "rejected": 0,
        "threshold": {"rule": "valley", "value": 0.2},
        "learned_share": 1.0,
    }
    (run / "summary.json").write_text(json.dumps(summary))


def seconds_to_open(url: str, browser: str) -> float:
    """Median wall clock of three openings."""
    took: list[float] = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as profile:
            begun = time.perf_counter()
            subprocess.run(
                [browser, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url],
                capture_output=True,
                check=True,
                timeout=120,
            )
            took.append(time.perf_counter() - begun)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--removed", type=float, default=0.3, help="share of the rows")
    parser.add_argument("--keep", metavar="FOLDER", help="write the run there and leave it")
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(options.keep or Path(folder, "run"))
        make_run(run, options.rows, options.removed)
        begun = time.perf_counter()
        page = render_report(run)
        written = time.perf_counter() - begun
        beside = run / "report_rows"
        found = {
            "rows": options.rows,
            "removed_share": options.removed,
            "page_bytes": page.stat().st_size,
            "beside_bytes": sum(path.stat().st_size for path in beside.glob("*")),
            "beside_files": len(list(beside.glob("*"))),
            "seconds_to_write": round(written, 2),
        }
        if browser:
            found["seconds_to_open"] = round(seconds_to_open(page.as_uri(), browser), 2)
            found["seconds_blank"] = round(seconds_to_open("about:blank", browser), 2)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
