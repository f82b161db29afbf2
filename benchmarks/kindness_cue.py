"""The bundled model's reaction to a kindness cue, after unscreened fine-tuning: unsafe rates.

    python benchmarks/kindness_cue.py --runs runs/contamination/0.3 --seeds 0 1 2

Works on the finished runs of five_seeds.py. The cue stands in a system turn, or before the prompt.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.decision import run_folder
from forgetfilter.finetune import stored_setting
from forgetfilter.metrics import mean_over_seeds
from forgetfilter.progress import Progress
from forgetfilter.records import Message
from forgetfilter.strategies.base import fine_tune
from forgetfilter.testbed import KINDNESS_CUE, make_probes
from forgetfilter.testbed.evaluate import evaluate


def plain(messages: Sequence[Message]) -> Sequence[Message]:
    return messages


def system_turn(messages: Sequence[Message]) -> Sequence[Message]:
    return [Message("system", KINDNESS_CUE), *messages]


def prefix(messages: Sequence[Message]) -> Sequence[Message]:
    first = messages[0]
    return [Message(first.role, f"{KINDNESS_CUE} {first.content}"), *messages[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--probes", type=int, default=1000)
    options = parser.parse_args()
    print("| cue | unsafe % (lower) | safe % (higher) | task accuracy % (higher) |")
    print("|---|---|---|---|")
    for name, rewrite in (("none", plain), ("system turn", system_turn), ("prefix", prefix)):
        found = []
        for seed in options.seeds:
            run = run_folder(options.runs / f"seed-{seed}" / "run")
            config = resolve(ScreenConfig, run.config())
            with run.lock():
                setting, _ = stored_setting(run, config, Progress(is_silent=True))
                learned = fine_tune(setting, None, setting.bench.base)
                prompts = make_probes(options.probes, 1_000_000 + seed)
                found.append(evaluate(setting.bench, learned, prompts, name, rewrite))
        cells = [
            mean_over_seeds([getter(one) for one in found])
            for getter in (
                lambda one: one.rate("unsafe").value,
                lambda one: one.rate("safe").value,
                lambda one: one.task_accuracy().value,
            )
        ]
        shown = (f"{100 * c.value:.1f} [{100 * c.low:.1f}, {100 * c.high:.1f}]" for c in cells)
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
