"""What it brings to read the highest rows of a screen and to screen again with the unsafe ones.

    OMP_NUM_THREADS=1 python benchmarks/read_again.py RUN TRUTH [--read 10 20] [--joint 0.6 1]
    OMP_NUM_THREADS=1 python benchmarks/read_again.py RUN TRUTH --read 20 --joint 1 --cut 10 10
    OMP_NUM_THREADS=1 python benchmarks/read_again.py RUN TRUTH --read 10+10 --unlike --joint 1

RUN is a finished screen, TRUTH what `forgetfilter mix` or `forgetfilter testbed noisy --truth`
wrote for its rows. In a copy of the run the rows with the highest scores are decided as a reviewer
who is always right would: unsafe ones are removed, the others kept. Then the copy is screened again
with `--second-opinion known_unsafe:COPY`, and decided with each joint weight (0 = nothing added).
Nothing is trained again. `--read 10+10` reads ten, screens again, reads the ten that are highest
then, and screens once more. With `--unlike` rows are read in the order of the review page "Most
forgotten, unlike each other". Graded are the rows that nobody has read: how they rank (AUROC,
average precision; higher is better), and what the rule of the run, or of `--threshold`, removes of
them; the last column is of all rows, the read ones where they were decided to be.

With `--cut` more rows are read and decided for the rule `reviewed`: first so many that are spread
over the upper half of the scores, then so many nearest to where it cuts, and so on. The rule
decides, and says how many of the unread rows that it removes it expects to be harmless. With
`--joint reviewed` these decisions choose the weight too; rows are spread by a weight of 1 first.

With `--known FILE` nothing is read: the rows of FILE are the known ones, and all rows are graded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from forgetfilter.arrays import BoolArray
from forgetfilter.config import ScreenConfig
from forgetfilter.lab.metrics import detection
from forgetfilter.progress import Progress
from forgetfilter.review.orders import unlike
from forgetfilter.runs.folder import RunFolder
from forgetfilter.scoring.joint import JointWeight
from forgetfilter.scoring.thresholds.reviewed import spread_over_scores
from forgetfilter.screening.deciding.decide import filter_run, read_summary
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
_BEFORE = 1.0
"""The weight by which the first rows are spread where decisions are to choose it."""
HEAD = (
    "| known unsafe rows | joint weight | rows graded, unsafe | AUROC / average precision "
    "| removed of them, unsafe | harmless ones expected "
    "| second opinion alone: AUROC / average precision | all rows: average precision |"
)


def line_of(run: Path, is_unsafe: BoolArray, is_graded: BoolArray, known: int, asked: str) -> str:
    """One line of the table."""
    scores = pd.read_parquet(run / "scores.parquet")
    summary = read_summary(run)
    weight = summary.get("joint", 0.0)
    told = f"{asked}: {weight:g}" if asked == "reviewed" else asked
    said, ends = (
        summary["expected_false_removals"],
        summary["threshold_notes"].get("harmless_range"),
    )
    expected = "–" if said is None else f"{said:.1f}"
    if ends and said is not None:
        expected += f" ({ends[0]} to {ends[1]})"
    place = is_graded & np.isfinite(scores["forgetting_score"].to_numpy(dtype=np.float64))
    column = "joint_score" if weight else "forgetting_score"
    gone = (scores["decision"] == "removed").to_numpy()[place]
    truth = is_unsafe[place]
    ours, theirs = (
        detection(truth, gone, scores[name].to_numpy(dtype=np.float64)[place])
        for name in (column, "second_opinion")
    )
    whole = scores[column].to_numpy(dtype=np.float64)
    scored = np.isfinite(whole)
    decided = np.where(is_unsafe, whole[scored].max() + 1, whole[scored].min() - 1)
    whole = np.where(is_graded, whole, decided)
    everything = average_precision_score(is_unsafe[scored], whole[scored])
    return (
        f"| {known} | {told} | {len(truth)}, {truth.sum()} | {ours.auroc:.3f} / "
        f"{ours.average_precision:.3f} | {gone.sum()}, {(gone & truth).sum()} | "
        f"{expected} | {theirs.auroc:.3f} / {theirs.average_precision:.3f} | {everything:.3f} |"
    )


def read_for_the_cut(
    run: Path, is_unsafe: BoolArray, is_graded: BoolArray, rows: list[int], asked: str
) -> BoolArray:
    """Decide more rows for the rule `reviewed`, and by it; which rows nobody has read then."""
    is_open = is_graded.copy()
    is_found = asked == "reviewed"
    filter_run(run, joint=_BEFORE if is_found else float(asked), force=True)
    weight: JointWeight | None = "reviewed" if is_found else None
    for count in rows:
        summary = read_summary(run)
        column = "joint_score" if summary.get("joint") else "forgetting_score"
        scores = pd.read_parquet(run / "scores.parquet")[column].to_numpy(dtype=np.float64)
        places = np.flatnonzero(is_open & np.isfinite(scores))
        if summary["threshold"]["rule"].startswith("reviewed"):
            away = np.abs(scores[places] - summary["threshold"]["value"])
            places = places[np.argsort(away, kind="stable")]
        else:
            places = places[spread_over_scores(scores[places])]
        read = [int(row) for row in places[:count]]
        is_open[read] = False
        bad = tuple(row for row in read if is_unsafe[row])
        good = tuple(row for row in read if not is_unsafe[row])
        made = Overruling(good, bad, reviewer="truth")
        filter_run(run, "reviewed", overruling=made, force=True, joint=weight)
    return is_open


def reading_order(run: Path, *, is_unlike: bool) -> list[int]:
    """Which row a reviewer would read first, and next, by what is cut."""
    column = "joint_score" if read_summary(run).get("joint") else "forgetting_score"
    scores = pd.read_parquet(run / "scores.parquet")[column].to_numpy(dtype=np.float64)
    if is_unlike:
        return np.argsort(unlike(run, np.arange(len(scores)), scores), kind="stable").tolist()
    return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable").tolist()


def screen_again(run: Path, known: Path) -> None:
    """Screen a run again with the likeness to unsafe rows that are known."""
    given = RunFolder(run).config() | {
        "output_dir": str(run),
        "second_opinion": f"known_unsafe:{known}",
        "force": True,
    }
    screen(ScreenConfig.model_validate(given), SILENT)


def read_and_screen(
    run: Path, is_unsafe: BoolArray, counts: list[int], *, is_unlike: bool
) -> BoolArray:
    """Read so many rows, screen again, read so many more, and so on; which nobody has read then.

    As long as none that was read is unsafe, there is nothing to screen again with.
    """
    is_open = np.ones(len(is_unsafe), dtype=np.bool_)
    for count in counts:
        if is_unsafe[~is_open].any():
            filter_run(run, joint=_BEFORE, force=True)
        order = reading_order(run, is_unlike=is_unlike)
        read = [row for row in order if is_open[row]][:count]
        is_open[read] = False
        bad = tuple(row for row in read if is_unsafe[row])
        good = tuple(row for row in read if not is_unsafe[row])
        filter_run(run, overruling=Overruling(good, bad, reviewer="truth"), force=True)
        if is_unsafe[~is_open].any():
            screen_again(run, run)
    return is_open


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--read", nargs="+", default=["10", "20", "40"], metavar="ROWS")
    parser.add_argument("--unlike", action="store_true")
    parser.add_argument("--known", type=Path)
    parser.add_argument("--threshold", metavar="RULE")
    parser.add_argument("--cut", type=int, nargs="+", metavar="ROWS")
    parser.add_argument("--joint", nargs="+", default=["0", "0.6", "1"], metavar="WEIGHT")
    args = parser.parse_args()
    told = [json.loads(line) for line in args.truth.read_text().splitlines()]
    is_unsafe = np.zeros(len(told), dtype=np.bool_)
    is_unsafe[[row["row"] for row in told]] = [row["is_unsafe"] for row in told]
    print(f"{HEAD}\n{'|---' * 7}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for read in ["0"] if args.known else args.read:
            run = Path(folder) / f"read-{read}"
            shutil.copytree(args.run, run)
            if args.known:
                is_graded = np.ones(len(told), dtype=np.bool_)
                known = len(args.known.read_text().splitlines())
                screen_again(run, args.known)
            else:
                counts = [int(count) for count in read.split("+")]
                is_graded = read_and_screen(run, is_unsafe, counts, is_unlike=args.unlike)
                known = int(is_unsafe[~is_graded].sum())
                if not known:
                    print(f"| 0 | none of the {sum(counts)} rows read is unsafe |", flush=True)
                    continue
            for weight in args.joint:
                if args.cut:
                    own = run.with_name(f"{run.name}-{weight}")
                    shutil.copytree(run, own)
                    rest = read_for_the_cut(own, is_unsafe, is_graded, args.cut, weight)
                    print(line_of(own, is_unsafe, rest, known, weight), flush=True)
                    continue
                filter_run(run, args.threshold, joint=float(weight), force=True)
                print(line_of(run, is_unsafe, is_graded, known, weight), flush=True)


if __name__ == "__main__":
    main()
