"""What commands take before they work: help, version, a refused input, and the libraries.

    python benchmarks/start_up.py [--rounds 5]

Each is a process of its own, in turn. Seconds on the clock and of the processor, lower is better.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from parts.side_by_side import keep, shown, spread

OWN = [sys.executable, "-m", "forgetfilter"]
WAYS = {
    "forgetfilter --version": [*OWN, "--version"],
    "forgetfilter --help": [*OWN, "--help"],
    "forgetfilter plan --help": [*OWN, "plan", "--help"],
    "screen, refused for its input": [*OWN, "screen", "no-such-file", "--model", "none"],
    "the libraries that train": [sys.executable, "-c", "import torch, transformers, peft, trl"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(options.rounds + 1):
        for name, command in WAYS.items():
            before = spent()
            subprocess.run(command, capture_output=True, check=False)
            if turn:  # the first fills the disk's cache
                seconds[name].append(spent() - before)
    found: dict[str, Any] = {name: spread(own) for name, own in seconds.items()}
    print("| command | seconds of the processor |\n|---|---|")
    for name, own in found.items():
        print(f"| {name} | {shown(own)} |")
    keep(options.json, {"rounds": options.rounds, "cpu_seconds": found})


def spent() -> float:
    """Seconds of the processor of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
