"""Rows scored a second: the paper's procedure, batched generation, and the package's signals.

    OMP_NUM_THREADS=1 python benchmarks/scoring.py [--model DIR] [--rows 48] [--rounds 5]

One learned model, made once; each way then scores all rows from nothing, in turn. The paper
generates every row's answer before and after forgetting, one prompt at a time as its code does
(docs/lab/paper.md), and compares both with the target by ROUGE-1. "generation" does the same in
batches. Forgetting is training, and counted with both. `completion_loss` reads losses in place of
texts. `restoration` and `crossfit` restore the learned model first, and read losses; the two
further models that `crossfit` learns are made before, as the learned one is. Higher is better.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.reading import read_rows
from forgetfilter.data.writing import write_records
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_safe
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import HALVES
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.screening.method import ALWAYS, Setting, learn_halves, restore_both
from parts.side_by_side import keep, ratios, shown, spread, take_turns

SILENT = Progress(is_silent=True)
PAPER = "paper, one by one"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder (default: the bundled model)")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=1, help="of the learn phase, not counted")
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report(Scoring(Path(scratch), options), options)


class Scoring:
    """A learned model, and the ways to score the rows that it has learned."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        write_records(folder / "noisy.jsonl", make_noisy(options.rows, 0.3, 0)[0])
        write_records(folder / "safe.jsonl", make_safe(400, 0))
        given = {
            "noisy_data": str(folder / "noisy.jsonl"),
            "safe_data": str(folder / "safe.jsonl"),
            "model": options.model or str(bundled_model_path()),
            "output_dir": str(folder / "unused"),
            "learn": {"num_train_epochs": options.epochs, "stop": "epochs"},
        }
        self.config = resolve(ScreenConfig, given)
        self.bench = Workbench(
            self.config.model,
            StageStore(folder / "made"),
            lora=self.config.lora,
            seed=0,
            progress=SILENT,
        )
        self.noisy, _ = self.bench.encoder.encode(read_rows(folder / "noisy.jsonl").rows)
        self.safe = self.bench.encoder.encode_safe(read_rows(folder / "safe.jsonl").rows)[0]
        setting = Setting(self.bench, self.noisy, self.safe, self.config)
        learn, base = self.config.learn, self.bench.base
        self.learned = self.bench.train("learned", self.noisy, learn, base, "learn")
        halves = learn_halves(setting, self.learned)
        self.halves = {own[0]: halves[own[0]] for own in HALVES}
        self.rounds = 0

    def score(self, signal: str, *, is_single: bool = False) -> None:
        """Score every row by a signal, nothing but the learned models being there."""
        self.rounds += 1
        self.bench.store = StageStore(self.folder / f"round-{self.rounds}")
        self.bench.max_batch_tokens = 1 if is_single else 8192
        built = SIGNALS.build(signal)
        states: dict[Any, Any] = {"base": self.bench.base, "learned": self.learned}
        wanted = {probe.state for probe in built.probes}
        setting = Setting(self.bench, self.noisy, self.safe, self.config)
        if "forgotten" in wanted:
            limits = (self.config.forget, self.learned, "forget")
            self.bench.max_batch_tokens = 8192  # forgetting is training, in batches either way
            states["forgotten"] = self.bench.train("forgotten", self.safe, *limits)
            self.bench.max_batch_tokens = 1 if is_single else 8192
        if "restored" in wanted:
            states |= restore_both(setting, self.learned)
        for own in HALVES:
            if own[0] in wanted:
                states |= {own[0]: self.halves[own[0]]}
                states |= restore_both(setting, self.halves[own[0]], own)
        # Generations alone need no losses; those tell which rows were learned at all.
        probes = built.probes if signal == "rouge1" else (*ALWAYS, *built.probes)
        readings = self.bench.measure(dict.fromkeys(probes), states, self.noisy, self.safe)
        built.combine(readings)


def report(scoring: Scoring, options: argparse.Namespace) -> None:
    ways = {
        PAPER: lambda: scoring.score("rouge1", is_single=True),
        "generation, batched": lambda: scoring.score("rouge1"),
        "completion_loss": lambda: scoring.score("completion_loss"),
        "restoration": lambda: scoring.score("restoration"),
        "crossfit": lambda: scoring.score("crossfit"),
    }
    scoring.score("restoration")  # warms up
    turns = take_turns(ways, options.rounds)
    rows = len(scoring.noisy)
    found: dict[str, Any] = {"rows": rows, "rounds": options.rounds, "turns": turns, "ways": {}}
    print(f"{rows} rows, {options.rounds} rounds in turn, 1 seed\n")
    print("| way | rows a second of the processor | times the paper's |\n|---|---|---|")
    for name, own in turns.items():
        speed = spread([rows / turn["cpu"] for turn in own])
        faster = ratios(turns, PAPER, name)
        found["ways"][name] = {"rows_per_cpu_second": speed, "times_the_papers": faster}
        print(f"| {name} | {shown(speed, 1)} | {shown(faster, 1)} |", flush=True)
    keep(options.json, found)


if __name__ == "__main__":
    main()
