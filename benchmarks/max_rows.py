"""What learning a sample of the rows costs in detection, and what it saves (`learn.max_rows`).

    OMP_NUM_THREADS=1 python benchmarks/max_rows.py [--world 2] [--rows 1000] [--max-rows 500 250]

Screens one file of a made-up world with all its rows learned, then with fewer, on a model that was
there before; coverage is off. All rows are scored and graded each time. Of the harmless and the
unsafe rows that were drawn, and of those that were not, the shares removed stand apart. AUROC,
average precision, F1 and the share of unsafe rows removed: higher is better; harmless rows removed
and seconds: lower.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.writing import write_records
from forgetfilter.lab.metrics import detection
from forgetfilter.lab.testbed import bundled_model_path
from forgetfilter.lab.testbed.world import open_world
from forgetfilter.lab.testbed.worlds.cache import world_folder
from forgetfilter.progress import Progress
from forgetfilter.screening.deciding.tables import read_readings
from forgetfilter.screening.screen import screen
from parts.side_by_side import keep

SILENT = Progress(is_silent=True)
COLUMNS = ("signal", "rows learned", "AUROC", "average precision", "F1", "seconds")
PARTS = (
    "unsafe removed, of those drawn",
    "of the others",
    "harmless removed, of those drawn",
    "of the others",
)


def one(config: ScreenConfig, is_unsafe: Any) -> dict[str, Any]:
    """Screen, and grade every row."""
    before = time.process_time()
    result = screen(config, SILENT)
    seconds = time.process_time() - before
    readings, scores = read_readings(result.output_dir), result.scores
    value = scores["forgetting_score"].to_numpy(dtype=np.float64)[readings.row]
    gone = (scores["decision"] == "removed").to_numpy()[readings.row]
    unsafe, drawn = is_unsafe[readings.row], readings.was_given
    found = detection(unsafe, gone, value)
    parts = [unsafe & drawn, unsafe & ~drawn, ~unsafe & drawn, ~unsafe & ~drawn]
    return {
        "signal": config.signal,
        "learned": int(drawn.sum()),
        "auroc": found.auroc,
        "average_precision": found.average_precision,
        "f1": found.f1,
        "seconds": seconds,
        "parts": [[int(gone[part].sum()), int(part.sum())] for part in parts],
        "medians": [float(np.median(value[part])) if part.any() else None for part in parts],
        "spread": [float(np.std(value[part])) if part.any() else None for part in parts],
        "threshold": result.summary["threshold"]["value"],
        "findings": [finding["name"] for finding in result.summary["findings"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--world", type=int, help="a drawn world (default: the bundled one)")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--unsafe", type=float, default=0.1, help="share of unsafe rows")
    parser.add_argument(
        "--max-rows", type=int, nargs="+", default=[1000, 500, 250], help="rows that are learned"
    )
    parser.add_argument("--signals", nargs="+", default=["crossfit"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parser.parse_args()
    number, seed = options.world, options.seed
    model = bundled_model_path() if number is None else world_folder(number, SILENT)
    world = open_world(number)
    told: list[dict[str, Any]] = []
    which = "the bundled world" if number is None else f"world {number}"
    print(f"{options.rows} rows of {which}, {options.unsafe:.0%} unsafe, seed {seed}\n")
    print(f"| {' | '.join((*COLUMNS, *PARTS))} |\n{'|---' * (len(COLUMNS) + len(PARTS))}|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows, truth = world.make_noisy(options.rows, options.unsafe, seed)
        write_records(folder / "noisy.jsonl", rows)
        write_records(folder / "safe.jsonl", world.make_safe(400, seed))
        unsafe = pd.DataFrame(truth).sort_values("row")["is_unsafe"].to_numpy(dtype=np.bool_)
        for signal in options.signals:
            for most in options.max_rows:
                given = {
                    "noisy_data": str(folder / "noisy.jsonl"),
                    "safe_data": str(folder / "safe.jsonl"),
                    "model": str(model),
                    "output_dir": str(folder / f"{signal}-{most}"),
                    "signal": signal,
                    "seed": seed,
                    "learn": {"max_rows": most},
                    "coverage": "off",
                    "force": True,
                }
                told.append(one(resolve(ScreenConfig, given), unsafe))
                print(line_of(told[-1]), flush=True)
    keep(options.json, json.loads(json.dumps({"world": number, "seed": seed, "screens": told})))


def line_of(found: dict[str, Any]) -> str:
    """One line of the table."""
    graded = (f"{found[name]:.3f}" for name in ("auroc", "average_precision", "f1"))
    parts = (f"{gone} of {of}" if of else "–" for gone, of in found["parts"])
    cells = (found["signal"], f"{found['learned']:,}", *graded, f"{found['seconds']:.0f}", *parts)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
