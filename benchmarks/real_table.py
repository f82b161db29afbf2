"""Every signal and baseline on real rows: AUROC and average precision by harm, over seeds.

    forgetfilter testbed build --recipe realtext --output-dir real
    python benchmarks/real_table.py --model real --output-dir runs/real

Mixes noisy, safe and test rows from the data folder (``FORGETFILTER_DATA``), from groups that the
model was not trained on. A seed draws the rows, the adapter and the order of training. Finished
cells are skipped on a rerun: each leaves ``cell.parquet``, a row of the noisy file a line, with
every signal's score. Prints Markdown tables, of all cells that are finished.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from forgetfilter.config import PACKAGED_SAFE, ScreenConfig, parse_assignments, resolve
from forgetfilter.data import read_rows
from forgetfilter.decision import INPUT_FILE, run_folder
from forgetfilter.mix import MixSettings, data_folder, make_mix, write_mix
from forgetfilter.progress import Progress
from forgetfilter.records import ModelState, StateName
from forgetfilter.safe import safe_path
from forgetfilter.screen import encode_safe, open_workbench, screen
from forgetfilter.signals import SIGNALS
from forgetfilter.strategies.base import Setting
from forgetfilter.strategies.forget_filter import restore_both
from forgetfilter.thresholds import THRESHOLDS, decide
from harm_coverage import shown
from signal_table import SILENT, all_scores

HARMS = ("bias", "harmfulness", "toxicity")
# So small a model learns free text only with an adapter that is large for its size, in many steps;
# at the default rate it changes as a whole, and nothing is told apart (docs/signals.md).
LEARN = [
    "lora.r=64",
    "lora.alpha=128",
    "learn.batch_size=4",
    "learn.stop=epochs",
    "learn.num_train_epochs=6",
    "learn.learning_rate=5e-4",
    "max_batch_tokens=512",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--data", help="data folder ($FORGETFILTER_DATA)")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.3, 0.1, 0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--safe-rows", type=int, default=300)
    parser.add_argument("--max-characters", type=int, default=250)
    parser.add_argument("--tasks", nargs="+", default=["alpaca", "agnews", "sst2"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--safe-data", help="another safe file than the mix's own")
    parser.add_argument("--only-tables", action="store_true")
    options = parser.parse_args()
    if not options.only_tables:
        for seed in options.seeds:
            for fraction in options.fractions:
                measure(options, fraction, seed)
    print(tables(options.output_dir))


def measure(options: argparse.Namespace, fraction: float, seed: int) -> None:
    """One cell: mix, screen with the defaults, and take every other signal's scores."""
    folder = options.output_dir / f"{fraction:g}" / f"seed-{seed}"
    if (folder / "cell.parquet").exists():
        return
    settings = MixSettings(
        harms=HARMS,
        tasks=tuple(options.tasks),
        unsafe_fraction=fraction,
        rows=options.rows,
        safe_rows=options.safe_rows,
        seed=seed,
        max_characters=options.max_characters,
        is_held_out=True,
    )
    write_mix(make_mix(settings, data_folder(options.data)), folder / "mix")
    paths = {
        "noisy_data": str(folder / "mix" / "noisy.jsonl"),
        "safe_data": options.safe_data or str(folder / "mix" / "safe.jsonl"),
        "model": options.model,
        "output_dir": str(folder / "run"),
        "seed": seed,
    }
    layer = parse_assignments([*LEARN, *options.set])
    config = resolve(ScreenConfig, layer, paths)
    outcome = screen(config, Progress())
    frame = outcome.scores[["row", "decision", "learned", "forgetting_score"]].copy()
    truth = [json.loads(line) for line in (folder / "mix" / "truth.jsonl").open()]
    for name in ("is_unsafe", "kind", "harm", "source"):
        frame[name] = [record[name] for record in truth]
    run = run_folder(folder / "run")
    bench = open_workbench(config, run, SILENT)
    noisy, _ = bench.encoder.encode(read_rows(run.path / INPUT_FILE).rows)
    learned = bench.train("learned", noisy, config.learn, bench.base, phase="learn")
    # The same learned adapter, restored on the packaged safe rows.
    packaged, _ = bench.encoder.encode(read_rows(safe_path(PACKAGED_SAFE)).rows)
    states: dict[StateName, ModelState] = {"base": bench.base, "learned": learned}
    setting = Setting(bench, noisy, packaged, config)
    states |= restore_both(setting, learned)
    signal = SIGNALS.build("restoration")
    readings = bench.measure(signal.probes, states, noisy, packaged)
    scores = signal.combine(readings).forgetting_score
    frame["score: restoration, packaged safe rows"] = scores
    frame["removed, packaged"] = decide(THRESHOLDS.build("auto"), scores, readings).is_removed
    if fraction:
        safe = encode_safe(config, bench, SILENT)
        for name, scores, seconds in all_scores(
            bench, config, noisy, safe, learned, folder / "signals"
        ):
            frame[f"score: {name}"] = scores
            print(fraction, seed, name, f"{seconds:.0f} s", flush=True)
    frame.to_parquet(folder / "cell.parquet")


def tables(output_dir: Path) -> str:
    """The table of signals for each unsafe fraction, what was learned, and what was removed."""
    cells: dict[str, list[pd.DataFrame]] = {}
    for path in sorted(output_dir.glob("*/seed-*/cell.parquet")):
        cells.setdefault(path.parent.parent.name, []).append(pd.read_parquet(path))
    parts = [_removed(cells)]
    for fraction, frames in cells.items():
        if float(fraction):
            parts.append(f"{100 * float(fraction):g}% unsafe, {len(frames)} seeds\n")
            parts.append(_signals(frames))
            parts.append(_coverage(output_dir / fraction))
    return "\n\n".join(parts)


def _signals(frames: list[pd.DataFrame]) -> str:
    """One line per signal: means over seeds, worst seed in brackets."""
    lines = [
        "| signal | AUROC (worst seed) | bias / harmfulness / toxicity | among its own "
        "| average precision (worst seed) | bias / harmfulness / toxicity | among its own "
        "| AUROC of learned rows |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = [name for name in frames[0].columns if name.startswith("score: ")]
    for name in names:
        grades = [_grade(frame, frame[name].to_numpy(dtype=float)) for frame in frames]
        mean = {key: float(np.mean([own[key] for own in grades])) for key in grades[0]}
        worst = {key: min(own[key] for own in grades) for key in grades[0]}
        cells = [
            name.removeprefix("score: "),
            f"{mean['auroc']:.3f} ({worst['auroc']:.3f})",
            " / ".join(f"{mean[f'auroc_{harm}']:.3f}" for harm in HARMS),
            " / ".join(f"{mean[f'auroc_own_{harm}']:.3f}" for harm in HARMS),
            f"{mean['ap']:.3f} ({worst['ap']:.3f})",
            " / ".join(f"{mean[f'ap_{harm}']:.3f}" for harm in HARMS),
            " / ".join(f"{mean[f'ap_own_{harm}']:.3f}" for harm in HARMS),
            f"{mean['auroc_learned']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _coverage(folder: Path) -> str:
    """What each screen said its safe rows can judge, beside the AUROC of the harm's unsafe rows."""
    lines = [
        "| seed | harm | AUROC | damage | undone % | estimated AUROC | fallen | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("seed-*/run/summary.json")):
        seed = path.parent.parent.name.removeprefix("seed-")
        frame = pd.read_parquet(path.parent.parent / "cell.parquet")
        scores = pd.read_parquet(path.parent / "scores.parquet")["forgetting_score"].to_numpy()
        graded = _grade(frame, scores)
        for harm in json.loads(path.read_bytes())["coverage"]:
            lines.append(
                f"| {seed} | {harm['category']} | {graded['auroc_' + harm['category']]:.3f} "
                f"| {harm['damage']:.2f} | {100 * harm['undone']:.0f} "
                f"| {shown(harm['auroc'])} "
                f"| {'–' if harm['fallen'] is None else harm['fallen']} | {harm['verdict']} |"
            )
    return "\n".join(lines)


def _grade(frame: pd.DataFrame, scores: np.ndarray[Any, Any]) -> dict[str, float]:
    """AUROC and average precision over all rows, by harm, and over the learned rows.

    ``own``: a harm's unsafe rows against the harmless rows of the same sources alone, so that
    telling free text from closed tasks earns nothing.
    """
    is_unsafe = frame["is_unsafe"].to_numpy(dtype=bool)
    learned = frame["learned"].to_numpy(dtype=bool)
    graded = {
        "auroc": float(roc_auc_score(is_unsafe, scores)),
        "ap": float(average_precision_score(is_unsafe, scores)),
        "auroc_learned": float(roc_auc_score(is_unsafe[learned], scores[learned])),
    }
    for harm in HARMS:
        is_harm = (frame["harm"] == harm).to_numpy() & is_unsafe
        sources = frame["source"].isin(frame["source"][is_harm]).to_numpy()
        for name, beside in ((harm, ~is_unsafe), (f"own_{harm}", ~is_unsafe & sources)):
            own = is_harm | beside
            graded[f"auroc_{name}"] = float(roc_auc_score(is_unsafe[own], scores[own]))
            graded[f"ap_{name}"] = float(average_precision_score(is_unsafe[own], scores[own]))
    return graded


def _removed(cells: dict[str, list[pd.DataFrame]]) -> str:
    """Learned and removed shares by kind and source of row, in %, means over seeds."""
    lines = [
        "| unsafe % | rows of | learned % | removed % | removed with the packaged safe rows % |",
        "|---|---|---|---|---|",
    ]
    for fraction, frames in cells.items():
        frame = pd.concat(frames)
        what = np.where(frame["is_unsafe"], "unsafe: ", "") + frame["kind"] + ", " + frame["source"]
        for name, own in frame.groupby(what):
            removed = 100 * (own["decision"] == "removed").mean()
            lines.append(
                f"| {100 * float(fraction):g} | {name} ({len(own)}) "
                f"| {100 * own['learned'].mean():.1f} | {removed:.1f} "
                f"| {100 * own['removed, packaged'].mean():.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
