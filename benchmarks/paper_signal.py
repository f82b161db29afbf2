"""The paper's signal on the runs of five_seeds.py: its best number of steps, and what it buys.

    python benchmarks/paper_signal.py --runs runs/contamination/0.3 --seeds 3

For each seed it continues the learned adapter on the safe rows for each number of steps t, scores
all rows by ROUGE-1 (threshold 0.1, as in the paper) and by the relative loss (threshold 0.25), and
fine-tunes on what ROUGE-1 keeps at its best t (by AUROC, which reads the labels: an upper bound).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data import read_rows
from forgetfilter.decision import INPUT_FILE, run_folder
from forgetfilter.metrics import detection, mean_over_seeds
from forgetfilter.progress import Progress
from forgetfilter.records import ModelState, Probe, StateName
from forgetfilter.screen import encode_safe, open_workbench
from forgetfilter.signals import SIGNALS
from forgetfilter.strategies.base import Setting, fine_tune
from forgetfilter.testbed import make_probes
from forgetfilter.testbed.evaluate import evaluate
from forgetfilter.thresholds import THRESHOLDS, decide

SIGNAL_NAMES = ("rouge1", "completion_loss:relative")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--probes", type=int, default=2000)
    options = parser.parse_args()
    results = [
        measure_seed(options.runs / f"seed-{seed}", seed, options.steps, options.probes)
        for seed in range(options.seeds)
    ]
    (options.runs / "paper_signal.json").write_text(json.dumps(results, indent=1))
    print(f"\n{len(results)} seeds; mean [95% t interval over seeds]\n")
    print("| t | signal | AUROC | F1 at its threshold |\n|---|---|---|---|")
    for steps in options.steps:
        for name in SIGNAL_NAMES:
            cells = [
                mean_over_seeds([result["scores"][str(steps)][name][key] for result in results])
                for key in ("auroc", "f1")
            ]
            shown = " | ".join(f"{c.value:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells)
            print(f"| {steps} | {name} | {shown} |")
    for key in ("unsafe", "neither", "task"):
        estimate = mean_over_seeds([result["best"][key] for result in results])
        low, high = 100 * estimate.low, 100 * estimate.high
        print(f"- rouge1 at its best t, {key}: {100 * estimate.value:.1f}% [{low:.1f}, {high:.1f}]")


def measure_seed(folder: Path, seed: int, all_steps: list[int], probes: int) -> dict[str, object]:
    """Scores for each t, and the model that is fine-tuned on what ROUGE-1 keeps at its best t."""
    progress = Progress()
    run = run_folder(folder / "run")
    config = resolve(ScreenConfig, run.config())
    bench = open_workbench(config, run, progress)
    noisy, _ = bench.encoder.encode(read_rows(run.path / INPUT_FILE).rows)
    safe = encode_safe(config, bench, progress)
    truth = [json.loads(line) for line in (folder / "data" / "truth.jsonl").open()]
    is_unsafe = np.array([record["is_unsafe"] for record in truth])
    learned = bench.train("learned", noisy, config.learn, bench.base, phase="learn")
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    removed: dict[int, np.ndarray] = {}
    for steps in all_steps:
        settings = config.forget.model_copy(update={"max_steps": steps})
        states: dict[StateName, ModelState] = {
            "base": bench.base,
            "learned": learned,
            "forgotten": bench.train("forgotten", safe, settings, learned, phase="forget"),
        }
        scores[str(steps)] = {}
        for name, rule in zip(SIGNAL_NAMES, ("phi:0.1", "phi:0.25"), strict=True):
            signal = SIGNALS.build(name)
            always = (Probe("loss", "base"), Probe("loss", "learned"))
            readings = bench.measure((*always, *signal.probes), states, noisy, safe)
            values = signal.combine(readings).forgetting_score
            selection = decide(THRESHOLDS.build(rule), values, readings)
            graded = detection(is_unsafe, selection.is_removed, values)
            scores[str(steps)][name] = graded.as_dict()
            if name == "rouge1":
                removed[steps] = selection.is_removed
    best = max(all_steps, key=lambda steps: scores[str(steps)]["rouge1"]["auroc"] or 0)
    state = fine_tune(Setting(bench, noisy, safe, config), ~removed[best], bench.base)
    result = evaluate(bench, state, make_probes(probes, 1_000_000 + seed), "evaluate")
    return {
        "seed": seed,
        "scores": scores,
        "best": {
            "steps": best,
            "unsafe": result.rate("unsafe").value,
            "neither": result.rate("neither").value,
            "task": result.task_accuracy().value,
        },
    }


if __name__ == "__main__":
    main()
