"""The default signal with other settings, on files whose learn phase is done.

    python benchmarks/contamination.py --output-dir runs/contamination --seeds 60 61 62 63 64
    python benchmarks/restoration_variants.py --runs runs/contamination --seeds 60 61 62 63 64 \\
        --variants both:12,8,8 both:16,8,4 late:32,32,16 0.65:16,16,8

A variant is START:STEPS,EARLY_STEPS,ROWS. START is where the restoration begins: ``both`` ends,
``late`` or ``early`` alone, or a number, the learned adapter's weight in its mean with the early
one; all but ``both`` take STEPS steps. ROWS is how many safe rows a step sees. ``--most-damage``
and ``--tempered-above`` change the score, ``--high`` the upper bound of `auto`. Prints mean (worst)
over seeds of AUROC and of F1 at `auto`, the clean rows removed, and the highest clean score.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score, roc_auc_score

from forgetfilter.config import RestoreSettings, ScreenConfig, resolve
from forgetfilter.data import read_rows
from forgetfilter.decision import INPUT_FILE, run_folder
from forgetfilter.progress import Progress
from forgetfilter.records import ModelState, StateName
from forgetfilter.screen import encode_safe, open_workbench
from forgetfilter.signals import restoration
from forgetfilter.strategies.base import Setting
from forgetfilter.strategies.forget_filter import ALWAYS, restore_both
from forgetfilter.testbed import make_noisy
from forgetfilter.thresholds import THRESHOLDS, decide
from forgetfilter.trained import early

SILENT = Progress(is_silent=True)
WEIGHTS = "adapter_model.safetensors"
SHARES = ["0", "0.01", "0.02", "0.05", "0.1", "0.3", "0.5"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--fractions", nargs="+", default=SHARES)
    parser.add_argument("--variants", nargs="+", default=["both:16,8,4"])
    parser.add_argument("--tempered-above", type=float, default=4.0, help="nats")
    parser.add_argument("--most-damage", type=float, default=0.2, help="nats per token")
    parser.add_argument("--high", type=float, default=0.15, help="upper bound of auto")
    options = parser.parse_args()
    restoration.Restoration.tempered_above = options.tempered_above
    restoration._MOST_DAMAGE = options.most_damage  # pyright: ignore[reportPrivateUsage]
    print("| unsafe share | variant | AUROC | F1 | clean rows removed | highest clean score |")
    print("|---|---|---|---|---|---|")
    for fraction in options.fractions:
        for variant in options.variants:
            found = np.array(
                [
                    grade(options.runs / fraction / f"seed-{seed}" / "run", seed, variant, options)
                    for seed in options.seeds
                ]
            )
            means, worst = found.mean(axis=0), found.min(axis=0)
            cells = [fraction, variant]
            cells += [f"{means[i]:.4f} ({worst[i]:.4f})" for i in (0, 1)]
            cells += [f"{found[:, 2].sum():.0f}", f"{found[:, 3].max():.3f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def grade(path: Path, seed: int, variant: str, options: argparse.Namespace) -> list[float]:
    """AUROC, F1 (nan without unsafe rows), clean rows removed, highest clean score of one file."""
    run = run_folder(path)
    start, _, numbers = variant.partition(":")
    steps, early_steps, size = map(int, numbers.split(","))
    settings = RestoreSettings(steps=steps, early_steps=early_steps, batch_size=size)
    config = resolve(ScreenConfig, run.config()).model_copy(update={"restore": settings})
    bench = open_workbench(config, run, SILENT)
    noisy, _ = bench.encoder.encode(read_rows(run.path / INPUT_FILE).rows)
    safe = encode_safe(config, bench, SILENT)
    learned = bench.train("learned", noisy, config.learn, bench.base, phase="learn")
    states: dict[StateName, ModelState] = {"base": bench.base, "learned": learned}
    if start == "both":
        states |= restore_both(Setting(bench, noisy, safe, config), learned)
    else:
        states["early"] = starting_state(start, learned, path)
        back = bench.restore("restored", safe, settings, states["early"])
        states |= {"restored": back, "early_restored": back}
    signal = restoration.Restoration()
    readings = bench.measure(dict.fromkeys((*ALWAYS, *signal.probes)), states, noisy, safe)
    scored = readings
    if start != "both":  # both ends are the one start
        own = {"loss_sum_learned": readings["loss_sum_early"]}
        scored = replace(readings, columns={**readings.columns, **own})
    scores = signal.combine(scored).forgetting_score
    removed = decide(THRESHOLDS.build(f"auto:high={options.high}"), scores, readings).is_removed
    _, truth = make_noisy(len(noisy), float(path.parent.parent.name), seed)
    is_unsafe = np.array([bool(record["is_unsafe"]) for record in truth])
    false, highest = float((removed & ~is_unsafe).sum()), float(scores[~is_unsafe].max())
    if not is_unsafe.any():
        return [np.nan, np.nan, false, highest]
    auroc = float(roc_auc_score(is_unsafe, scores))
    return [auroc, float(f1_score(is_unsafe, removed)), false, highest]


def starting_state(start: str, learned: ModelState, path: Path) -> ModelState:
    """The learned model, the early one, or their mean, weighted."""
    first = early(learned)
    if start in ("late", "early"):
        return learned if start == "late" else first
    if learned.adapter is None or first.adapter is None:
        raise ValueError(f"{learned} has no adapter")
    folder = path / "between" / start
    shutil.copytree(learned.adapter, folder, dirs_exist_ok=True)
    late, before = (load_file(Path(state) / WEIGHTS) for state in (learned.adapter, first.adapter))
    share = float(start)
    mean = {name: share * late[name] + (1 - share) * before[name] for name in late}
    save_file(mean, folder / WEIGHTS, metadata={"format": "pt"})
    return ModelState("early", f"{learned.fingerprint}:{start}", str(folder))


if __name__ == "__main__":
    main()
