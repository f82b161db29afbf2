"""What a signal costs beyond the learn stage, side by side on one file, in seconds and as a ratio.

    python benchmarks/cost.py --output-dir runs/cost --rows 1000 --signals default rouge1-5 \
        --repeats 5
    python benchmarks/cost.py --output-dir runs/cost --rows 300

Repeats take turns, so that what else the machine does affects all alike; the median counts, of
seconds and of the ratios within one turn.

The learn stage is not counted, so the paper preset's is shortened to one epoch. `rouge1-5` is the
paper's signal after 5 forgetting steps, its best number of steps here.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from statistics import median
from typing import Any

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.writing import write_records
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_safe
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen

RIVALS: dict[str, dict[str, Any]] = {
    "default": {},
    "rouge1-5": {"signal": "rouge1", "threshold": "phi:0.1", "forget": {"max_steps": 5}},
    "paper": {"preset": "paper", "learn": {"num_train_epochs": 1}},
}
# Every signal needs these two to tell which rows were learned. The coverage check measures its few
# reference rows under the same names; what it takes under them is the same for all.
NOT_COUNTED = {"learn", "measure_loss_base", "measure_loss_learned"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--signals", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    import peft  # noqa: F401  no stage pays for loading the libraries
    import trl  # noqa: F401

    folder = options.output_dir / str(options.rows)
    noisy, _ = make_noisy(options.rows, 0.3, options.seed)
    write_records(folder / "noisy.jsonl", noisy)
    write_records(folder / "safe.jsonl", make_safe(400, options.seed))
    paths = {
        "noisy_data": str(folder / "noisy.jsonl"),
        "safe_data": str(folder / "safe.jsonl"),
        "model": str(bundled_model_path()),
        "seed": options.seed,
    }
    print(f"{options.rows} rows, 1 seed\n\n| settings | seconds beyond learning | of which |")
    print("|---|---|---|")
    turns: list[dict[str, float]] = []
    for _ in range(options.repeats):
        turns.append({})
        for name in options.signals:
            run = folder / name
            forget_all_but_learning(run)
            config = resolve(ScreenConfig, RIVALS[name], paths, {"output_dir": str(run)})
            seconds = screen(config, Progress()).summary["seconds"]
            counted = {stage: s for stage, s in seconds.items() if stage not in NOT_COUNTED}
            turns[-1][name] = sum(counted.values())
            parts = ", ".join(f"{stage} {s:.1f}" for stage, s in counted.items())
            print(f"| {name} | {turns[-1][name]:.1f} | {parts} |", flush=True)
    for name in options.signals:
        own = [turn[name] for turn in turns]
        print(f"- {name}: median {median(own):.1f} s ({min(own):.1f} to {max(own):.1f})")
        if name != "default" and "default" in options.signals:
            ratios = [turn["default"] / turn[name] for turn in turns]
            print(
                f"- default / {name}: median {median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f})"
            )


def forget_all_but_learning(run: Path) -> None:
    """Take away what a finished run has measured, so that it is measured again."""
    for path in run.glob("*"):
        if path.is_file() and path.name != "config.yaml":
            path.unlink()
    for stage in run.glob("stages/*"):
        if stage.name.split("-")[0] not in NOT_COUNTED:
            shutil.rmtree(stage)


if __name__ == "__main__":
    main()
