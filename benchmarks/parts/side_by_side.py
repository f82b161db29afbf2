"""Ways of doing the same that take turns, and what is kept of it: medians, ranges, the machine.

What else a machine does slows all ways of a round alike. Beside seconds on the clock there are
seconds of the processor, which do not count time given to others.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

Turns = dict[str, list[dict[str, float]]]


def machine() -> dict[str, Any]:
    """The machine in general terms."""
    told = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads_used": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        memory = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return told
    named = [line.partition(":")[2].strip() for line in cpu.splitlines() if "model name" in line]
    told["processor"] = named[0] if named else told["processor"]
    told["has_bfloat16"] = any(flag in cpu for flag in ("avx512_bf16", "amx_bf16"))
    told["memory_gb"] = round(int(memory.split()[1]) / 2**20, 1)
    told["load_average"] = round(os.getloadavg()[0], 1)
    if torch.cuda.is_available():
        told["gpu"] = torch.cuda.get_device_name(0)
    return told


def take_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> Turns:
    """Call every way once a round; seconds on the clock and of the processor of each call."""
    turns: Turns = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            wall, own = time.perf_counter(), time.process_time()
            work()
            spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - own}
            turns[name].append(spent)
    return turns


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "least": min(values), "most": max(values)}


def ratios(turns: Turns, name: str, to: str, kind: str = "cpu") -> dict[str, float]:
    """How many times the seconds of ``to`` those of ``name`` are, round by round."""
    pairs = zip(turns[name], turns[to], strict=True)
    return spread([own[kind] / other[kind] for own, other in pairs])


def keep(path: Path | None, found: dict[str, Any]) -> None:
    """Write what was found, with the machine, as JSON."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine(), **found}, indent=2, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def shown(values: Mapping[str, float], digits: int = 2) -> str:
    """A median with its range."""
    least, most = values["least"], values["most"]
    return f"{values['median']:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"
