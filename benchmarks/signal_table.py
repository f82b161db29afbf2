"""Every signal and baseline on the same learned adapters: AUROC, average precision, seconds.

    python benchmarks/signal_table.py --runs runs/contamination --fraction 0.3 --seeds 0 1 2

Works on the finished cells of contamination.py, whose learned adapters it reuses. AdamW forgetting
runs are continued for t steps on the safe rows. Seconds are what a signal costs beyond the learned
adapter and the two losses that every signal needs. Prints a Markdown table: mean over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from forgetfilter.config import ScreenConfig, parse_assignments, resolve
from forgetfilter.data import read_rows
from forgetfilter.decision import INPUT_FILE, run_folder
from forgetfilter.divergence import safe_gradient, trainable_parameters
from forgetfilter.grouping import row_features
from forgetfilter.progress import Progress
from forgetfilter.rates import loss_rates
from forgetfilter.records import (
    EncodedRow,
    FloatArray,
    ModelState,
    Readings,
    StateName,
)
from forgetfilter.screen import encode_safe, open_workbench
from forgetfilter.signals import SIGNALS
from forgetfilter.stages import StageStore
from forgetfilter.store import RunFolder
from forgetfilter.strategies.base import Setting
from forgetfilter.strategies.forget_filter import ALWAYS, restore_both
from forgetfilter.testbed import HARMS, make_noisy
from forgetfilter.workbench import Workbench

# (signal, steps of the forgetting run or None)
SPECS: list[tuple[str, int | None]] = [
    ("restoration", None),
    ("restoration:mean", None),
    ("restoration:sum", None),
    ("restoration:relative", None),
    ("rate:directions=1", None),
    ("rate:directions=4", None),
    ("rate:objective=completion_loss,directions=1", None),
    ("completion_loss", 5),
    ("completion_loss:relative", 5),
    ("completion_loss:tempered", 5),
    ("completion_loss", 20),
    ("completion_loss:relative", 20),
    ("completion_loss:tempered", 20),
    ("rouge1", 5),
    ("rouge1", 20),
]
SILENT = Progress(is_silent=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--fraction", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    layer = parse_assignments(options.set)
    cells: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed in options.seeds:
        folder = options.runs / f"{options.fraction:g}" / f"seed-{seed}"
        for name, result in measure(folder, options.fraction, seed, layer).items():
            cells[name].append(result)
            print(seed, name, json.dumps(result), flush=True)
    path = options.runs / f"signals-{options.fraction:g}.json"
    path.write_text(json.dumps(cells, indent=1))
    print("| signal | AUROC (worst seed) | bias / harmfulness / toxicity | average precision "
          "| best F1 | seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for name, own in cells.items():
        mean = {key: float(np.mean([result[key] for result in own])) for key in own[0]}
        harms = " / ".join(f"{mean[harm]:.3f}" for harm in HARMS)
        worst = min(result["auroc"] for result in own)
        print(
            f"| {name} | {mean['auroc']:.3f} ({worst:.3f}) | {harms} | {mean['ap']:.3f} "
            f"| {mean['best_f1']:.3f} | {mean['seconds']:.0f} |"
        )


def measure(
    folder: Path, fraction: float, seed: int, layer: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Grades of every signal on one cell, with its own settings and ``layer`` over them."""
    run = RunFolder(folder / "run")
    config = resolve(ScreenConfig, run_folder(folder / "run").config(), layer)
    bench = open_workbench(config, run, SILENT)
    noisy, _ = bench.encoder.encode(read_rows(run.path / INPUT_FILE).rows)
    safe = encode_safe(config, bench, SILENT)
    _, truth = make_noisy(len(noisy), fraction, seed)
    learned = bench.train("learned", noisy, config.learn, bench.base, phase="learn")
    found = all_scores(bench, config, noisy, safe, learned, folder / "signals")
    return {name: grade(scores, truth) | {"seconds": seconds} for name, scores, seconds in found}


def all_scores(
    bench: Workbench,
    config: ScreenConfig,
    noisy: Sequence[EncodedRow],
    safe: Sequence[EncodedRow],
    learned: ModelState,
    store: Path,
) -> Iterator[tuple[str, FloatArray, float]]:
    """Name, scores of shape (N,) and seconds of every signal and baseline, most costly last."""
    states: dict[StateName, ModelState] = {"base": bench.base, "learned": learned}
    known = bench.measure(ALWAYS, states, noisy)
    # Reductions of one reading share it; every other signal pays for all that it needs.
    taken: dict[Any, tuple[Readings, float]] = {}
    for spec, steps in SPECS:
        signal = SIGNALS.build(spec)
        own = [probe for probe in signal.probes if probe not in ALWAYS]
        key = (tuple(own), steps)
        if key not in taken:
            bench.store = StageStore(store / f"{len(taken)}-{time.time():.0f}")
            start = time.perf_counter()
            if any(probe.state == "forgotten" for probe in own):
                wanted = config.forget.model_copy(update={"max_steps": steps})
                states["forgotten"] = bench.train("forgotten", safe, wanted, learned, "forget")
            if any(probe.state == "restored" for probe in own):
                states |= restore_both(Setting(bench, noisy, safe, config), learned)
            taken[key] = bench.measure(own, states, noisy, safe), time.perf_counter() - start
        found, seconds = taken[key]
        readings = Readings(found.row, {**known.columns, **found.columns})
        name = spec if steps is None else f"{spec}, t = {steps}"
        yield name, signal.combine(readings).forgetting_score, seconds

    # Baselines: no forgetting, and two that look at representations and at single gradients.
    base, after = known.loss_mean("base"), known.loss_mean("learned")
    yield "base loss", base, 0.0
    yield "learned gain", base - after, 0.0
    yield "random", np.random.default_rng(bench.seed).random(len(noisy)), 0.0
    start = time.perf_counter()
    model = bench.model.in_state(bench.base)
    table = row_features(model, [*noisy, *safe], config.max_batch_tokens, SILENT, "")
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    nearest = (table[: len(noisy)] @ table[len(noisy) :].T).max(axis=1)
    yield "hidden states: similarity to the nearest safe row", nearest, time.perf_counter() - start
    # The same first-order rate before anything was learned: a fresh adapter on base.
    start = time.perf_counter()
    model = bench.model.trainable(bench.base, "learn").eval()
    limits = (config.max_batch_tokens, SILENT, "")
    whole = safe_gradient(model, safe, "completion_loss", *limits)
    descent = {name: -tensor for name, tensor in whole.gradient.items()}
    rates = loss_rates(model, noisy, [descent], *limits)[0]
    tokens = known["completion_tokens"]
    yield "rate at base, completion loss", rates / tokens, time.perf_counter() - start
    start = time.perf_counter()
    model = bench.model.in_state(learned, is_trainable=True)
    weights = list(trainable_parameters(model))
    whole = safe_gradient(model, safe, "completion_loss", *limits)
    direction = torch.cat([whole.gradient[name].flatten() for name in weights])
    cosines: list[float] = []
    for row in noisy:
        one = safe_gradient(model, [row], "completion_loss", *limits)
        gradient = torch.cat([one.gradient[name].flatten() for name in weights])
        cosines.append(float(torch.nn.functional.cosine_similarity(gradient, direction, dim=0)))
    name = "gradient: minus the cosine with the safe rows'"
    yield name, -np.array(cosines), time.perf_counter() - start


def grade(scores: np.ndarray, truth: list[dict[str, Any]]) -> dict[str, float]:
    """AUROC over all rows and by harm, average precision and the best F1 of any threshold."""
    is_unsafe = np.array([bool(record["is_unsafe"]) for record in truth])
    harm = np.array([str(record["harm"]) for record in truth])
    precision, recall, _ = precision_recall_curve(is_unsafe, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    graded = {
        "auroc": float(roc_auc_score(is_unsafe, scores)),
        "ap": float(average_precision_score(is_unsafe, scores)),
        "best_f1": float(best),
    }
    for name in HARMS:
        own = ~is_unsafe | (harm == name)
        graded[name] = float(roc_auc_score(is_unsafe[own], scores[own]))
    return graded


if __name__ == "__main__":
    main()
