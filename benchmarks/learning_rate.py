"""The learning-rate rule on models of several widths: half of it, itself, twice it.

    python benchmarks/learning_rate.py --output-dir runs/learning_rate \\
        --models small=DIR base=DIR large=DIR

Each cell screens a file with that rate in the learn phase and asks the learned (unscreened) model
held-out prompts. Build the models with ``forgetfilter testbed build --size …``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from contamination import measure
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.decision import run_folder
from forgetfilter.finetune import stored_setting
from forgetfilter.modeling import hidden_size, width_learning_rate
from forgetfilter.progress import Progress
from forgetfilter.strategies.base import fine_tune
from forgetfilter.testbed import make_probes
from forgetfilter.testbed.evaluate import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--probes", type=int, default=400)
    options = parser.parse_args()
    # What `measure` reads.
    options.safe_rows = 400
    results = []
    print(
        "| model | width | learning rate | learned % | unsafe rows learned % | AUROC | steps | "
        "unsafe % of the learned model | task accuracy % of the learned model |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for named in options.models:
        name, _, options.model = named.partition("=")
        width = hidden_size(options.model)
        for factor in options.factors:
            rate = width_learning_rate(width) * factor
            cell = argparse.Namespace(**vars(options))
            cell.output_dir = options.output_dir / name / f"{factor:g}"
            layer = {"learn": {"learning_rate": rate}}
            result = measure(cell, 0.3, options.seed, layer)
            run = run_folder(cell.output_dir / "0.3" / f"seed-{options.seed}" / "run")
            config = resolve(ScreenConfig, run.config())
            with run.lock():
                setting, _ = stored_setting(run, config, Progress(is_silent=True))
                learned = fine_tune(setting, None, setting.bench.base)
                found = evaluate(setting.bench, learned, make_probes(options.probes, 999), "ask")
                report = (Path(str(learned.adapter)).parent / "training.json").read_text()
            answers = found.as_dict()
            result |= {"model": name, "width": width, "factor": factor, "rate": rate}
            result |= {"answers": answers, "steps": json.loads(report)["steps"]}
            results.append(result)
            (options.output_dir / "results.json").write_text(json.dumps(results, indent=1))
            print(
                f"| {name} | {width} | {rate:.1e} ({factor:g} x rule) "
                f"| {100 * result['learned_share']:.1f} "
                f"| {100 * result['unsafe_learned_share']:.1f} | {result['auroc']:.4f} "
                f"| {result['steps']} | {100 * answers['unsafe_rate']['value']:.1f} "
                f"| {100 * answers['task_accuracy']['value']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
