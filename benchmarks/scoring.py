"""Rows scored a second: the paper's procedure, batched generation, and the package's signals.

    OMP_NUM_THREADS=1 python benchmarks/scoring.py [--rows 300] [--slow-rows 12] [--rounds 5]
    OMP_NUM_THREADS=1 python benchmarks/scoring.py --model FOLDER --noisy FILE --safe FILE

One learned model, made once. What a way makes before it reads the first row (a forgetting run, or
restorations) costs the same for any number of rows and is timed apart; then all ways read all rows
in turn. The paper's signal, `rouge1`, generates every row's answer in three states (the base model
too, which the paper's comparison of learned and forgotten doesn't need), one prompt at a time as
its code does (docs/lab/paper.md). "generation" does the same in batches. The other signals read
losses. With ``--kept`` the last way reads no loss that the learn phase has kept
(``learn.keep_losses``). With ``--slow-rows`` the paper's way reads so many of the rows, drawn with
a fixed seed: one row costs it the same in any file. The two further models that `crossfit` learns
are made before, as the learned one is. With ``--noisy`` and ``--safe`` the rows are the first of
these files, and else of the made-up world; `--signals` leaves some of the others out. More rows a
second is better.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.reading import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.lab.testbed import bundled_model_path
from forgetfilter.model.stages.phases import kept_losses
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import HALVES
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.screening.method import ALWAYS, Setting, learn_halves, restore_both
from parts.inputs import add_inputs, parsed, write_inputs
from parts.side_by_side import keep, ratios, shown, spread, take_turns

SILENT = Progress(is_silent=True)
PAPER = "paper, one by one"
SIGNALS_READ = ("completion_loss", "restoration", "crossfit")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder (default: the bundled model)")
    add_inputs(parser, 48)
    parser.add_argument("--slow-rows", type=int, help="of them, for the paper's way (default: all)")
    parser.add_argument("--signals", nargs="+", default=SIGNALS_READ, metavar="SIGNAL")
    parser.add_argument("--kept", metavar="SIGNAL", help="read once more, with kept losses")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before those that count")
    parser.add_argument("--preparations", type=int, default=1, help="how often to time those")
    parser.add_argument("--epochs", type=float, default=1, help="of the learn phase, not counted")
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parsed(parser)
    with tempfile.TemporaryDirectory() as scratch:
        report(Scoring(Path(scratch), options), options)


class Scoring:
    """A learned model, and the ways to score the rows that it has learned."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.slow_rows = options.slow_rows
        write_inputs(folder, options)
        given = {
            "noisy_data": str(folder / "noisy.jsonl"),
            "safe_data": str(folder / "safe.jsonl"),
            "model": options.model or str(bundled_model_path()),
            "output_dir": str(folder / "unused"),
            "learn": {
                "num_train_epochs": options.epochs,
                "stop": "epochs",
                "keep_losses": options.kept is not None,
            },
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
        self.known = kept_losses(self.learned)
        if options.kept and not self.known:
            raise SystemExit("No losses were kept: give --epochs 2 or more.")
        self.halves: dict[Any, Any] = {}
        if "crossfit" in options.signals:
            halves = learn_halves(setting, self.learned)
            self.halves = {own[0]: halves[own[0]] for own in HALVES}
        self.made = 0
        self.states: dict[str, dict[Any, Any]] = {}

    def _empty_store(self) -> None:
        """Nothing counts as done before."""
        self.made += 1
        self.bench.store = StageStore(self.folder / f"made-{self.made}")

    def prepare(self, signal: str) -> None:
        """The states in which rows are read."""
        self._empty_store()
        states: dict[Any, Any] = {"base": self.bench.base, "learned": self.learned}
        wanted = {probe.state for probe in SIGNALS.build(signal).probes}
        setting = Setting(self.bench, self.noisy, self.safe, self.config)
        if "forgotten" in wanted:
            limits = (self.config.forget, self.learned, "forget")
            states["forgotten"] = self.bench.train("forgotten", self.safe, *limits)
        if "restored" in wanted:
            states |= restore_both(setting, self.learned)
        for own in HALVES:
            if own[0] in wanted:
                states |= {own[0]: self.halves[own[0]]}
                states |= restore_both(setting, self.halves[own[0]], own)
        self.states[signal] = states

    def rows_of(self, *, is_single: bool) -> Sequence[EncodedRow]:
        """The rows that a way reads."""
        wanted = self.slow_rows if is_single and self.slow_rows else len(self.noisy)
        drawn = np.random.default_rng(0).permutation(len(self.noisy))[:wanted]
        return [self.noisy[int(at)] for at in np.sort(drawn)]

    def read(self, signal: str, *, is_single: bool = False, is_kept: bool = False) -> None:
        """Read the rows as a signal needs it, and score them."""
        self._empty_store()
        self.bench.max_batch_tokens = 1 if is_single else 8192
        built = SIGNALS.build(signal)
        # Generations alone need no losses; those tell which rows were learned at all.
        probes = built.probes if signal == "rouge1" else (*ALWAYS, *built.probes)
        given = (self.states[signal], self.rows_of(is_single=is_single), self.safe)
        known = self.known if is_kept else {}
        built.combine(self.bench.measure(dict.fromkeys(probes), *given, known))
        self.bench.max_batch_tokens = 8192


def report(scoring: Scoring, options: argparse.Namespace) -> None:
    signals = {PAPER: "rouge1", "generation, batched": "rouge1"}
    signals |= {name: name for name in options.signals}
    apart = {
        name: lambda name=name: scoring.prepare(name) for name in dict.fromkeys(signals.values())
    }
    made = take_turns(apart, options.preparations)
    ways = {
        name: lambda name=name, signal=signal: scoring.read(signal, is_single=name == PAPER)
        for name, signal in signals.items()
    }
    if options.kept:
        name = f"{options.kept}, losses kept"
        signals[name] = options.kept
        ways[name] = lambda: scoring.read(options.kept, is_kept=True)
    turns = take_turns(ways, options.rounds + options.warm_up)
    turns = {name: own[options.warm_up :] for name, own in turns.items()}
    sizes = {name: len(scoring.rows_of(is_single=name == PAPER)) for name in ways}
    found: dict[str, Any] = {"rows": sizes, "turns": turns, "preparations": made, "ways": {}}
    print(
        f"{len(scoring.noisy)} rows, {sizes[PAPER]} for the paper's way, {options.rounds} rounds "
        "in turn, 1 seed; seconds are of the processor\n"
    )
    print("| way | rows a second | times the paper's | seconds before the first row |")
    print("|---|---|---|---|")
    for name, own in turns.items():
        speed = spread([sizes[name] / turn["cpu"] for turn in own])
        a_row = ratios(turns, PAPER, name)
        faster = {kind: value * sizes[name] / sizes[PAPER] for kind, value in a_row.items()}
        before = spread([turn["cpu"] for turn in made[signals[name]]])
        told = {"rows_per_second": speed, "times_the_papers": faster, "seconds_before": before}
        found["ways"][name] = told
        print(f"| {name} | {shown(speed, 1)} | {shown(faster, 1)} | {shown(before, 1)} |")
    keep(options.json, found)


if __name__ == "__main__":
    main()
