"""What a cut by trusted rows would have done to finished screens, against truth files.

    python benchmarks/trusted_rows.py [--trusted 100] [--rate 0.01] [--draws 200] RUN=TRUTH …

Draws ``--trusted`` harmless rows of a run's input at random, as if they had been given as
``--trusted-data``, and decides the others by `conformal`; rows of either kind are learned and
scored alike, so nothing is trained. Prints a Markdown table with one line a run: F1 and precision
(higher is better) and the share of harmless rows removed (at most the rate is promised), each the
mean of all draws, and beside them what the run itself decided.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from forgetfilter.lab.metrics import detection
from forgetfilter.scoring.records import TRUSTED, Readings
from forgetfilter.scoring.thresholds import THRESHOLDS, decide
from forgetfilter.screening.deciding.tables import read_readings

HEAD = (
    "| run | unsafe | F1 | precision | harmless removed | removed of all | "
    "F1 of the run's own rule | harmless removed by it |"
)


def line_of(run: Path, truth_file: Path, trusted: int, rate: float, draws: int) -> str:
    """One line of the table."""
    scores, readings = pd.read_parquet(run / "scores.parquet"), read_readings(run)
    told = {row["row"]: row for row in map(json.loads, truth_file.read_text().splitlines())}
    unsafe = np.array([told[int(row)]["is_unsafe"] for row in readings.row])
    value = scores["forgetting_score"].to_numpy(dtype=np.float64)[readings.row]
    own = (scores["decision"] == "removed").to_numpy()[readings.row]
    rule, harmless = THRESHOLDS.build(f"conformal:rate={rate!r}"), np.flatnonzero(~unsafe)
    random, found = np.random.default_rng(0), []
    for _ in range(draws):
        is_trusted = np.zeros(len(unsafe), dtype=np.bool_)
        is_trusted[random.choice(harmless, trusted, replace=False)] = True
        columns = {**readings.columns, TRUSTED: is_trusted}
        selection = decide(rule, value, Readings(readings.row, columns), needs_learned=False)
        rest, gone = ~is_trusted, selection.is_removed
        graded = detection(unsafe[rest], gone[rest], value[rest])
        precision = graded.precision if gone.any() else np.nan
        found.append((graded.f1, precision, gone[rest & ~unsafe].mean(), gone.sum() / rest.sum()))
    f1, precision, false, share = np.nanmean(np.array(found), axis=0)
    before = detection(unsafe, own, value)
    is_mixed = bool(unsafe.any())
    return (
        f"| {run.name} | {unsafe.sum():,} of {len(unsafe):,} | "
        f"{f'{f1:.3f}' if is_mixed else ''} | {f'{precision:.2f}' if is_mixed else ''} | "
        f"{false:.2%} | {share:.1%} | {f'{before.f1:.3f}' if is_mixed else ''} | "
        f"{own[~unsafe].mean():.2%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN=TRUTH")
    parser.add_argument("--trusted", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--draws", type=int, default=200)
    args = parser.parse_args()
    print(f"{HEAD}\n{'|---' * 8}|")
    for pair in args.runs:
        run, _, truth = pair.rpartition("=")
        print(line_of(Path(run), Path(truth), args.trusted, args.rate, args.draws))


if __name__ == "__main__":
    main()
