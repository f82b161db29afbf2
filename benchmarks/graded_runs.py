"""Grade finished screens against truth files: how rows rank, and what was decided.

    python benchmarks/graded_runs.py RUN=TRUTH [RUN=TRUTH …]

A truth file is what `forgetfilter testbed noisy --truth` and `forgetfilter mix` write. Prints a
Markdown table with one line a run: AUROC, average precision, F1, recall and precision (higher is
better), harmless rows removed (lower is better), how many the rule expected among the removed (–
where it can't tell), and by harm (or with `--by source` by where the labels come from) the AUROC of
its unsafe rows against all harmless ones. A run with a joint rule is graded by its joint score.
Nothing is trained or decided.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.lab.metrics import detection

HEAD = (
    "| run | signal | unsafe | AUROC / average precision | F1 (precision, recall) "
    "| harmless removed | expected | by {by}: AUROC |"
)


def line_of(run: Path, truth_file: Path, by: str) -> str:
    """One line of the table."""
    scores = pd.read_parquet(run / "scores.parquet")
    summary = json.loads((run / "summary.json").read_text())
    told = [json.loads(line) for line in truth_file.read_text().splitlines()]
    truth: dict[int, dict[str, Any]] = {row["row"]: row for row in told}
    rows = [truth[int(row)] for row in scores["row"]]
    unsafe = np.array([row["is_unsafe"] for row in rows])
    value = scores["joint_score" if summary.get("joint") else "forgetting_score"].to_numpy()
    removed = (scores["decision"] == "removed").to_numpy()
    found = detection(unsafe, removed, value)
    groups = np.array([row.get(by) or "" for row in rows])
    by_group: list[str] = []
    for name in dict.fromkeys(groups[unsafe].tolist()):
        own = ~unsafe | (groups == name)
        auroc = detection(unsafe[own], removed[own], value[own]).auroc
        by_group.append(f"{name} {auroc:.3f}")
    expected = summary["expected_false_removals"]
    graded = (
        f"{found.auroc:.4f} / {found.average_precision:.3f} | "
        f"{found.f1:.3f} ({found.precision:.2f}, {found.recall:.2f})"
        if unsafe.any()
        else "| "
    )
    return (
        f"| {run.name} | {summary['signal']} | {unsafe.sum():,} of {len(unsafe):,} | {graded} | "
        f"{(removed & ~unsafe).sum():,} of {(~unsafe).sum():,} | "
        f"{'–' if expected is None else f'{expected:.1f}'} | {', '.join(by_group)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN=TRUTH")
    parser.add_argument("--by", choices=("harm", "source"), default="harm")
    args = parser.parse_args()
    print(f"{HEAD.format(by=args.by)}\n{'|---' * 8}|")
    for pair in args.runs:
        run, _, truth = pair.rpartition("=")
        print(line_of(Path(run), Path(truth), args.by))


if __name__ == "__main__":
    main()
