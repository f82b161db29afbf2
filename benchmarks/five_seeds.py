"""The demonstration on several seeds: what screening changes, with intervals.

    python benchmarks/five_seeds.py --output-dir runs/five_seeds --first-seed 10 --rows 1500

A seed draws the noisy rows, the safe rows, the adapter, the order of training and the held-out
prompts. Finished seeds are skipped on a rerun. Prints a Markdown table and writes the numbers to
``<output-dir>/results.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from forgetfilter.config import parse_assignments
from forgetfilter.decision import read_summary
from forgetfilter.demo import DemoSettings, run_demo
from forgetfilter.metrics import Estimate, mean_over_seeds
from forgetfilter.progress import Progress

RATES = ("unsafe_rate", "safe_rate", "neither_rate", "task_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--unsafe-fraction", type=float, default=0.3)
    parser.add_argument("--probes", type=int, default=2000)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()

    layer = parse_assignments(options.set)
    results: list[dict[str, Any]] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        folder = options.output_dir / f"seed-{seed}"
        settings = DemoSettings(
            folder,
            rows=options.rows,
            unsafe_fraction=options.unsafe_fraction,
            probes=options.probes,
            seed=seed,
            most_epochs=None,
        )
        evaluation = run_demo(settings, (layer,), Progress())
        summary = read_summary(folder / "run")
        results.append({"seed": seed, "summary": summary, "evaluation": evaluation})
        text = json.dumps(results, indent=1)
        (options.output_dir / "results.json").write_text(text, encoding="utf-8")
    print(table(results))


def table(results: list[dict[str, Any]]) -> str:
    """Mean over seeds with 95% t intervals, and the worst seed where a bound is promised."""
    evaluations = [result["evaluation"] for result in results]
    lines = [
        f"{len(results)} seeds, {evaluations[0]['prompts']:,} held-out prompts a seed; "
        "mean over seeds [95% t interval over seeds].",
        "",
        "| model | unsafe % (lower) | safe % (higher) | neither % (lower) "
        "| task accuracy % (higher) |",
        "|---|---|---|---|---|",
    ]
    for index, model in enumerate(evaluations[0]["models"]):
        cells = [
            percent(mean_over_seeds([e["models"][index][rate]["value"] for e in evaluations]))
            for rate in RATES
        ]
        lines.append(f"| {model['name']} | {' | '.join(cells)} |")
    rates = [
        [model["unsafe_rate"]["value"] for model in evaluation["models"]]
        for evaluation in evaluations
    ]
    reductions = [1 - screened / max(unscreened, 1e-9) for _, unscreened, screened in rates]
    neither = [
        e["models"][2]["neither_rate"]["value"] - e["models"][1]["neither_rate"]["value"]
        for e in evaluations
    ]
    task = [e["task_difference"]["value"] for e in evaluations]
    lines += [
        "",
        f"- unsafe rate, screened against unscreened: lower by "
        f"{percent(mean_over_seeds(reductions))} %, worst seed {100 * min(reductions):.1f} %",
        f"- neither, screened minus unscreened: {percent(mean_over_seeds(neither))} points, "
        f"worst seed {100 * max(neither):+.1f}",
        f"- task accuracy, screened minus unscreened, paired: {percent(mean_over_seeds(task))} "
        f"points, worst seed {100 * min(task):+.1f}; with the interval over the prompts of these "
        f"seeds alone: {percent(over_prompts([e['task_difference'] for e in evaluations]))}",
    ]
    for name in ("precision", "recall", "f1", "auroc", "average_precision"):
        values = [e["detection"][name] for e in evaluations]
        if all(value is not None for value in values):
            estimate = mean_over_seeds(values)
            lines.append(
                f"- {name}: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}], "
                f"worst seed {min(values):.3f}"
            )
    seconds = [sum(result["summary"]["seconds"].values()) for result in results]
    lines.append(f"- seconds of screening a seed: {mean_over_seeds(seconds).value:.0f}")
    return "\n".join(lines)


def over_prompts(differences: list[dict[str, float]]) -> Estimate:
    """Mean of paired differences, 95% interval over prompts: what these very models differ by.

    The interval over seeds beside it says what another seed's models would differ by.
    """
    halves = [(d["high"] - d["low"]) / 2 for d in differences]
    mean = sum(d["value"] for d in differences) / len(differences)
    half = sum(h**2 for h in halves) ** 0.5 / len(differences)
    return Estimate(mean, mean - half, mean + half)


def percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


if __name__ == "__main__":
    main()
