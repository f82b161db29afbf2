"""Do decisions hold under another adapter? One file, screened with other ranks and adapter seeds.

    python benchmarks/stability.py --output-dir runs/stability [--unsafe-fraction 0.3]

The noisy and the safe rows stay the same (data seed); the rank of the adapter, or the seed that
draws it and orders the training, changes. Agreement is the share of rows on which two screens
decide alike. Finished screens are skipped on a rerun. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.writing import write_records
from forgetfilter.lab.metrics import detection
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_safe
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen

# (what is said of it, rank, seed of the adapter); alpha stays twice the rank, as in the default.
SCREENS = [
    ("default: r 16", 16, 0),
    ("r 4", 4, 0),
    ("r 8", 8, 0),
    ("r 32", 32, 0),
    ("r 16, adapter seed 1", 16, 1),
    ("r 16, adapter seed 2", 16, 2),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--unsafe-fraction", type=float, default=0.3)
    parser.add_argument("--data-seed", type=int, default=20)
    options = parser.parse_args()
    folder = options.output_dir / f"{options.unsafe_fraction:g}-{options.data_seed}"
    noisy, truth = make_noisy(options.rows, options.unsafe_fraction, options.data_seed)
    write_records(folder / "noisy.jsonl", noisy)
    write_records(folder / "safe.jsonl", make_safe(400, options.data_seed))
    is_unsafe = np.array([bool(record["is_unsafe"]) for record in truth])
    decisions: dict[str, np.ndarray[Any, Any]] = {}
    print(
        f"{options.rows} rows, {100 * options.unsafe_fraction:g}% unsafe, "
        f"data seed {options.data_seed}\n\n"
        "| adapter | AUROC | F1 | clean rows removed | threshold | decided as by the default % |\n"
        "|---|---|---|---|---|---|"
    )
    for number, (name, rank, seed) in enumerate(SCREENS):
        layer: dict[str, Any] = {
            "noisy_data": str(folder / "noisy.jsonl"),
            "safe_data": str(folder / "safe.jsonl"),
            "model": str(bundled_model_path()),
            "output_dir": str(folder / str(number)),
            "seed": seed,
            "lora": {"r": rank, "alpha": 2 * rank},
        }
        result = screen(resolve(ScreenConfig, layer), Progress(is_silent=True))
        frame = result.scores
        decisions[name] = (frame["decision"] == "removed").to_numpy(dtype=np.bool_)
        scores = frame["forgetting_score"].to_numpy(dtype=np.float64)
        found = detection(is_unsafe, decisions[name], scores)
        false = int((decisions[name] & ~is_unsafe).sum())
        alike = float((decisions[name] == decisions[SCREENS[0][0]]).mean())
        cut = result.summary["threshold"]["value"]
        print(
            f"| {name} | {found.auroc:.4f} | {found.f1:.3f} | {false} | {cut:.3f} "
            f"| {100 * alike:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
