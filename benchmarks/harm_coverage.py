"""Does the coverage check name the harms that a safe set can't judge, and no others?

    python benchmarks/harm_coverage.py --runs runs/five_seeds --seeds 10 11 12 13 14

For each finished run of five_seeds.py: its learned adapter is restored on 400 safe rows of one harm
only; verdicts are held against the AUROC of each harm's own unsafe rows (labels only grade).
A harm counts as not judged where that AUROC is below 0.9. The harmless kind among the reference
rows has no unsafe rows, and must not be named. *Fallen* are the kept rows that fall on the 16
reference rows of the kind. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.coverage import measure_coverage, read_reference
from forgetfilter.data import read_rows
from forgetfilter.data.writing import write_records
from forgetfilter.decision import INPUT_FILE, run_folder
from forgetfilter.progress import Progress
from forgetfilter.screen import open_workbench
from forgetfilter.strategies.base import Setting
from forgetfilter.strategies.forget_filter import filter_rows, score_rows
from forgetfilter.testbed import HARMS, make_noisy, make_safe

SILENT = Progress(is_silent=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--unsafe-fraction", type=float, default=0.3)
    parser.add_argument("--coverage", choices=["quick", "full"], default="full")
    options = parser.parse_args()
    print(
        "| seed | safe rows of | harm | AUROC | damage undone % | estimated AUROC | fallen "
        "| verdict | right |\n|---|---|---|---|---|---|---|---|---|"
    )
    right: list[bool] = []
    harmless: list[bool] = []
    off: list[float] = []
    for seed in options.seeds:
        folder = run_folder(options.runs / f"seed-{seed}" / "run")
        config = resolve(ScreenConfig, folder.config(), {"coverage": options.coverage})
        bench = open_workbench(config, folder, SILENT)
        noisy, _ = bench.encoder.encode(read_rows(folder.path / INPUT_FILE).rows)
        _, truth = make_noisy(len(noisy), options.unsafe_fraction, seed)
        is_unsafe = np.array([bool(record["is_unsafe"]) for record in truth])
        harms = np.array([str(record["harm"]) for record in truth])
        # Reference rows of every harm, none of them in the safe set.
        data = options.runs / f"seed-{seed}" / "coverage"
        write_records(data / "reference.jsonl", make_safe(300, 1000 + seed))
        reference = read_reference(data / "reference.jsonl", bench.encoder)
        for only in HARMS:
            path = data / f"safe-{only}.jsonl"
            write_records(path, make_safe(400, seed, (only,)))
            safe, _ = bench.encoder.encode_safe(read_rows(path).rows)
            setting = Setting(bench, noisy, safe, config)
            scored = score_rows(setting)
            scores = scored.scores.forgetting_score
            is_removed = filter_rows(scored, config.threshold).is_removed
            measured = measure_coverage(setting, scored, reference)
            for found in measured.decided(scores, is_removed).harms:
                is_named, auroc = found.verdict == "not covered", None
                if found.category in HARMS:
                    own = ~is_unsafe | (harms == found.category)
                    auroc = float(roc_auc_score(is_unsafe[own], scores[own]))
                    is_right = is_named == (auroc < 0.9)
                    right.append(is_right)
                    if found.auroc is not None:
                        off.append(abs(found.auroc - auroc))
                else:
                    is_right = not is_named
                    harmless.append(is_right)
                print(
                    f"| {seed} | {only} | {found.category} | {shown(auroc)} "
                    f"| {100 * found.undone:.0f} | {shown(found.auroc)} "
                    f"| {'–' if found.fallen is None else found.fallen} | {found.verdict} | "
                    f"{'yes' if is_right else 'no'} |",
                    flush=True,
                )
    print(f"\n{sum(right)} of {len(right)} verdicts on harms are right,")
    print(f"{sum(harmless)} of {len(harmless)} on the harmless kind.")
    if off:
        print(f"{len(off)} estimates, off by {np.mean(off):.3f}, at most {max(off):.3f}.")


def shown(auroc: float | None) -> str:
    """An AUROC as the table has it."""
    return "–" if auroc is None else f"{auroc:.3f}"


if __name__ == "__main__":
    main()
