"""All signals on the same learned adapter: AUROC by harm, best F1, seconds beyond learning.

    python benchmarks/signal_table.py --output-dir runs/signals --seeds 0 --unsafe-fraction 0.3

Also trains the shortcut: a labelled decision tree of depth 2 on (base loss per token, learned gain,
completion length), cross-validated. Stages are kept, so a rerun with another signal is quick.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from forgetfilter.config import PhaseSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.writing import write_records
from forgetfilter.progress import Progress
from forgetfilter.records import ModelState, Probe, StateName
from forgetfilter.signals import SIGNALS
from forgetfilter.store import StageStore
from forgetfilter.testbed import HARMS, bundled_model_path, make_noisy, make_safe
from forgetfilter.workbench import Workbench

ALWAYS = (Probe("loss", "base"), Probe("loss", "learned"))
SPECS = [
    "completion_loss:relative",
    "rate",
    "rate:directions=4",
    "rate:directions=1",
    "completion_loss",
    "rouge1",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--unsafe-fraction", type=float, default=0.3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--signals", nargs="+", default=SPECS)
    parser.add_argument("--model", default=str(bundled_model_path()))
    options = parser.parse_args()
    print("| seed | signal | AUROC | bias / harmfulness / toxicity | best F1 | seconds |")
    print("|---|---|---|---|---|---|")
    for seed in options.seeds:
        measure(options, seed)


def measure(options: argparse.Namespace, seed: int) -> None:
    """Print the table's lines of one seed."""
    folder = options.output_dir / f"seed-{seed}-{options.unsafe_fraction}-{options.rows}"
    noisy_rows, truth = make_noisy(options.rows, options.unsafe_fraction, seed)
    write_records(folder / "noisy.jsonl", noisy_rows)
    write_records(folder / "safe.jsonl", make_safe(400, seed))
    defaults = ScreenConfig(noisy_data="", model="", safe_data="", output_dir="")
    store = StageStore(folder / "stages")
    progress = Progress(is_silent=True)
    bench = Workbench(options.model, store, lora=defaults.lora, seed=seed, progress=progress)
    noisy, _ = bench.encoder.encode(read_rows(folder / "noisy.jsonl").rows)
    safe, _ = bench.encoder.encode(read_rows(folder / "safe.jsonl").rows)
    is_unsafe = np.array([record["is_unsafe"] for record in truth])
    harm = np.array([str(record["harm"]) for record in truth])
    learn = PhaseSettings(num_train_epochs=options.epochs, batch_size=options.batch_size)
    learned = bench.train("learned", noisy, learn, bench.base, phase="learn")
    states: dict[StateName, ModelState] = {"base": bench.base, "learned": learned}
    readings = bench.measure(ALWAYS, states, noisy)
    base, gain = (
        readings.loss_mean("base"),
        readings["loss_sum_base"] - readings["loss_sum_learned"],
    )
    shortcut = np.stack([base, gain, readings["completion_tokens"]], axis=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    chances = cross_val_predict(tree, shortcut, is_unsafe, cv=folds, method="predict_proba")[:, 1]
    print(f"| {seed} | labelled tree of depth 2 | {roc_auc_score(is_unsafe, chances):.3f} | | | |")
    for spec in options.signals:
        signal = SIGNALS.build(spec)
        start = time.perf_counter()
        if any(probe.state == "forgotten" for probe in signal.probes):
            states["forgotten"] = bench.train(
                "forgotten", safe, defaults.forget, learned, phase="forget"
            )
        measured = bench.measure((*ALWAYS, *signal.probes), states, noisy, safe)
        seconds = time.perf_counter() - start
        scores = signal.combine(measured).forgetting_score
        precision, recall, _ = precision_recall_curve(is_unsafe, scores)
        best_f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        own = [~is_unsafe | (harm == name) for name in HARMS]
        by_harm = " / ".join(f"{roc_auc_score(is_unsafe[k], scores[k]):.3f}" for k in own)
        auroc = roc_auc_score(is_unsafe, scores)
        cells = f"{auroc:.3f} | {by_harm} | {best_f1:.3f} | {seconds:.0f}"
        print(f"| {seed} | {spec} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
