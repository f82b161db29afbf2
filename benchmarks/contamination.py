"""Detection from 0% to 50% unsafe rows, default settings, no label read before the grading.

    python benchmarks/contamination.py --output-dir runs/contamination [--set signal=...]

A seed draws the noisy rows, the safe rows, the adapter and the order of training. Finished cells
are skipped on a rerun. Prints a Markdown table and writes ``<output-dir>/results.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from forgetfilter.config import ScreenConfig, parse_assignments, resolve
from forgetfilter.data.writing import write_records
from forgetfilter.metrics import detection
from forgetfilter.progress import Progress
from forgetfilter.screen import screen
from forgetfilter.testbed import HARMS, bundled_model_path, make_noisy, make_safe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    fractions = [0, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5]
    parser.add_argument("--fractions", type=float, nargs="+", default=fractions)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--safe-rows", type=int, default=400)
    parser.add_argument("--model", default=str(bundled_model_path()))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    layer = parse_assignments(options.set)
    results: list[dict[str, Any]] = []
    for seed in options.seeds:
        for fraction in options.fractions:
            result = measure(options, fraction, seed, layer)
            results.append(result)
            print(json.dumps(result), flush=True)
            text = json.dumps(results, indent=1)
            (options.output_dir / "results.json").write_text(text, encoding="utf-8")
    print(table(results))


def measure(
    options: argparse.Namespace, fraction: float, seed: int, layer: dict[str, Any]
) -> dict[str, Any]:
    """Screen one file and grade the outcome against its ground truth."""
    folder = options.output_dir / f"{fraction:g}" / f"seed-{seed}"
    noisy, truth = make_noisy(options.rows, fraction, seed)
    write_records(folder / "data" / "noisy.jsonl", noisy)
    write_records(folder / "data" / "safe.jsonl", make_safe(options.safe_rows, seed))
    paths = {
        "noisy_data": str(folder / "data" / "noisy.jsonl"),
        "safe_data": str(folder / "data" / "safe.jsonl"),
        "model": options.model,
        "output_dir": str(folder / "run"),
        "seed": seed,
    }
    outcome = screen(resolve(ScreenConfig, layer, paths), Progress(is_silent=True))
    frame = outcome.scores
    scores = frame["forgetting_score"].to_numpy(dtype=np.float64)
    is_removed = (frame["decision"] == "removed").to_numpy()
    is_unsafe = np.array([bool(record["is_unsafe"]) for record in truth])
    harm = np.array([str(record["harm"]) for record in truth])
    learned = frame["learned"].to_numpy(dtype=bool)
    result: dict[str, Any] = {"fraction": fraction, "seed": seed, "rows": len(frame)}
    result["cut"] = outcome.summary["threshold"]["value"]
    result["learned_share"] = outcome.summary["learned_share"]
    result["seconds"] = outcome.summary["seconds"]
    result["expected_false_removals"] = outcome.summary["expected_false_removals"]
    result["false_removals"] = int((is_removed & ~is_unsafe).sum())
    if not is_unsafe.any():
        return result
    result |= detection(is_unsafe, is_removed, scores).as_dict()
    result["unsafe_learned_share"] = float(learned[is_unsafe].mean())
    for name in HARMS:
        own = ~is_unsafe | (harm == name)
        if (harm == name).any():
            graded = detection(is_unsafe[own], is_removed[own], scores[own])
            result[f"auroc_{name}"] = graded.auroc
    # The best fixed threshold sees the labels, but may remove learned rows only, as any rule.
    judged = np.where(learned, scores, -np.inf)
    precision, recall, _ = precision_recall_curve(is_unsafe, np.maximum(judged, -1e9))
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    result["best_f1"] = float(f1.max())
    return result


def table(results: list[dict[str, Any]]) -> str:
    """One line per unsafe fraction: mean over seeds, worst seed in brackets."""
    lines = [
        "| unsafe % | AUROC | least AUROC of a harm | F1 | F1 of the best fixed threshold "
        "| clean rows removed % | threshold | learned % | unsafe rows learned % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for fraction in sorted({result["fraction"] for result in results}):
        own = [result for result in results if result["fraction"] == fraction]
        least = [
            min(float(value) for name, value in r.items() if name.startswith("auroc_"))
            for r in own
            if fraction
        ]
        clean = [r["false_removals"] / (r["rows"] * (1 - fraction)) for r in own]
        cells = [
            f"{100 * fraction:g}",
            _cell([r["auroc"] for r in own], "{:.4f}", min) if fraction else "",
            _cell(least, "{:.4f}", min) if fraction else "",
            _cell([r["f1"] for r in own], "{:.3f}", min) if fraction else "",
            _cell([r["best_f1"] for r in own], "{:.3f}", min) if fraction else "",
            _cell([100 * share for share in clean], "{:.2f}", max),
            f"{min(r['cut'] for r in own):.3f} to {max(r['cut'] for r in own):.3f}",
            _cell([100 * r["learned_share"] for r in own], "{:.1f}", min),
            _cell([100 * r["unsafe_learned_share"] for r in own], "{:.1f}", min)
            if fraction
            else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float], form: str, worst: Any) -> str:
    return f"{form.format(float(np.mean(values)))} ({form.format(worst(values))})"


if __name__ == "__main__":
    main()
