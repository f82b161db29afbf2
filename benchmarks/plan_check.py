"""What `forgetfilter plan` says against what is then measured: seconds and memory, phase by phase.

    OMP_NUM_THREADS=1 python benchmarks/plan_check.py [--model DIR] [--rows 48] [--epochs 2]
    OMP_NUM_THREADS=1 python benchmarks/plan_check.py --parameters 110 --rows 8 --epochs 1 \
        --signal restoration --restore-steps 3

A random model of so many million parameters has the bundled model's tokenizer. Both sides are in
seconds of the processor, so that other work on the machine is in neither. Each side's memory is
that of a process of its own. Nearer to 1 is better.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.writing import write_records
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_safe
from forgetfilter.progress import Progress
from matrix_peak import llama
from parts.side_by_side import keep

PHASES = {
    "learn": ("learn",),
    "learn_halves": ("learn_half_a", "learn_half_b"),
    "restore": ("restore",),
    "score": ("measure",),
}


def random_model(folder: Path, millions: float) -> str:
    """A large model with the bundled tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = llama(millions)
    config.vocab_size = 32_000
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bundled_model_path()).save_pretrained(folder)
    return str(folder)


def planned(given: dict[str, Any]) -> dict[str, Any]:
    from forgetfilter.screening.planning.planning import plan_screen

    return plan_screen(resolve(ScreenConfig, given), clock=time.process_time)


def measured(given: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the processor by stage, and the most memory in use, of a screen."""
    import forgetfilter.runs.stages as stages
    from forgetfilter.screening.screen import screen

    stages.time.perf_counter = time.process_time  # what stages are timed by
    screen(resolve(ScreenConfig, given), Progress(is_silent=True))
    folders = Path(given["output_dir"], "stages").glob("*/stage.json")
    told = [(path.parent.name, json.loads(path.read_text())["seconds"]) for path in folders]
    seconds = {
        phase: sum(s for name, s in told if name.rpartition("-")[0].startswith(starts))
        for phase, starts in PHASES.items()
    }
    seconds["learn"] = sum(s for name, s in told if name.rpartition("-")[0] == "learn")
    return {"seconds": seconds, "bytes": _peak()}


def _peak() -> int:
    """The most resident memory of this process, bytes.

    Not ``ru_maxrss``, which a new process may have from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder (default: the bundled model)")
    parser.add_argument("--parameters", type=float, help="millions of a random model instead")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--signal", default="crossfit")
    parser.add_argument("--restore-steps", type=int, help="of either restoration (default: usual)")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=1, help="plan and screen, in turn")
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_records(folder / "noisy.jsonl", make_noisy(options.rows, 0.3, 0)[0])
        write_records(folder / "safe.jsonl", make_safe(100, 0))
        model = options.model or str(bundled_model_path())
        if options.parameters:
            model = random_model(folder / "model", options.parameters)
        given = {
            "noisy_data": str(folder / "noisy.jsonl"),
            "safe_data": str(folder / "safe.jsonl"),
            "model": model,
            "signal": options.signal,
            "dtype": options.dtype,
            "coverage": "off",
            "force": True,
            "learn": {"num_train_epochs": options.epochs, "stop": "epochs"},
        }
        if options.restore_steps:
            steps = options.restore_steps
            given["restore"] = {"steps": steps, "early_steps": steps}
        for turn in range(options.rounds):
            own = {**given, "output_dir": str(folder / f"run-{turn}")}
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                plan = pool.apply(planned, (own,))
                found = pool.apply(measured, (own,))
            rounds.append({"planned": plan, "measured": found})
            show(plan, found)
    keep(options.json, {"rounds": rounds})


def show(plan: dict[str, Any], found: dict[str, Any]) -> None:
    print(f"{plan['parameters'] / 1e6:.0f}M parameters, {plan['rows']} rows, {plan['placement']}\n")
    print("| phase | planned | measured | planned / measured |\n|---|---|---|---|")
    total = [0.0, 0.0]
    for phase, seconds in found["seconds"].items():
        if phase in plan["phases"]:
            said = plan["phases"][phase]["seconds"]
            total = [total[0] + said, total[1] + seconds]
            print(f"| {phase}, s | {said:.1f} | {seconds:.1f} | {said / seconds:.2f} |")
    print(f"| all, s | {total[0]:.1f} | {total[1]:.1f} | {total[0] / total[1]:.2f} |")
    said, seen = plan["screen"]["bytes"] / 1e9, found["bytes"] / 1e9
    print(f"| memory, GB | {said:.2f} | {seen:.2f} | {said / seen:.2f} |\n", flush=True)


if __name__ == "__main__":
    main()
