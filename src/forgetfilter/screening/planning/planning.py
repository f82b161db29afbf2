"""How long a screen will take and how much memory, before anything is trained.

Passes are counted as the phases will make them (`passes.py`), what each costs is counted from the
model's config (`model/passes/costs.py`), and how long that takes is measured on this machine
(`model/training/speed.py`) or follows from the peak of a device that is named.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from forgetfilter.config import ScreenConfig
from forgetfilter.data.reading import read_sources
from forgetfilter.model.loading.model_files import model_config
from forgetfilter.model.passes.costs import Bits, Costs, count_costs
from forgetfilter.model.passes.gpu_memory import TYPICAL_LENGTH, gpu_elsewhere, gpu_memory
from forgetfilter.model.training.speed import Clock, Speed, assumed_speed, measure_speed
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.inputs.opening import open_input, reading_of
from forgetfilter.screening.inputs.setup import encode_rows
from forgetfilter.screening.planning.passes import Counter, Target, Work, counter_for, phases

_CONTEXT_BYTES = 0.7e9
"""What a GPU's own libraries hold."""


def plan_screen(
    config: ScreenConfig,
    *,
    memory: float | None = None,
    flops: float | None = None,
    most_rows: int = 2000,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """What a screen with these settings, and the fine-tune that follows, will cost.

    Args:
        config: the settings of the screen.
        memory: bytes of the GPU that is planned for; None plans for this machine.
        flops: FLOPs a second that the device reaches in matrix products; None measures this one.
        most_rows: lengths are taken from so many rows at most, evenly spread.
        clock: gives seconds; for tests on a machine that others use.

    Raises:
        DataError: an input can't be used as a whole.
        ModelError: the model's config or tokenizer can't be read.
    """
    silent = Progress(is_silent=True)
    held_now = _resident_bytes()
    with tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch:
        bench = Workbench(
            config.model,
            StageStore(Path(scratch)),
            lora=config.lora,
            seed=config.seed,
            progress=silent,
            template=config.template,
            max_length_tokens=config.max_length_tokens,
            device=config.device,
            dtype=config.dtype,
            trust_remote_code=config.trust_remote_code,
        )
        file = read_sources(open_input(config), reading_of(config.reading))
        every = max(1, -(-len(file.rows) // most_rows))
        setting, _ = encode_rows(config, bench, _thinned(file, every), silent)
        placement = bench.placement
        if memory is not None and placement.device != "cuda":
            placement = gpu_elsewhere()
        model_settings = bench.completed(config.learn)
        described = model_config(config.model, config.trust_remote_code)
        tokenizer = bench.tokenizer
    if memory is None and placement.device == "cuda":
        memory = gpu_memory()
    costs = count_costs(described, config.lora, placement.dtype, autocast=placement.has_autocast)
    target = Target(
        placement.device, memory, config.loading.bits, config.loading.gradient_checkpointing
    )
    counter = counter_for(costs, config, target, float(every))
    noisy, safe = setting.noisy, setting.safe
    lengths = [len(row.input_ids) for row in noisy]
    works = phases(counter, config.model_copy(update={"learn": model_settings}), noisy, safe)
    length = int(median(lengths))
    speed = None
    if flops is not None:
        speed = assumed_speed(flops)
    elif placement.device == "cpu" or gpu_memory() is not None:
        rows = max(1, counter.training_tokens // length)
        timing = {} if clock is None else {"clock": clock}
        speed = measure_speed(described, tokenizer, config.lora, placement, rows, length, **timing)
    held = _CONTEXT_BYTES if placement.device == "cuda" else held_now
    return _told(config, counter, placement, works, lengths, speed, held)


def _thinned(file: Any, every: int) -> Any:
    """One row of so many of a file."""
    return file if every == 1 else replace(file, rows=file.rows[::every])


def _told(
    config: ScreenConfig,
    counter: Counter,
    placement: Any,
    works: dict[str, Work],
    lengths: Sequence[int],
    speed: Speed | None,
    held: float,
) -> dict[str, Any]:
    """The plan as plain values."""
    costs, target = counter.costs, counter.target
    weights = costs.weights(target.bits)
    length = min(max(lengths), TYPICAL_LENGTH)
    reading_rows = max(1, counter.reading_tokens // length)
    training_rows = max(1, counter.training_tokens // length)
    logits = costs.logits(target.device)
    merged = weights if placement.is_exact and costs.linear <= 2**29 else 0.0
    reading = held + weights + merged + costs.reading_bytes(reading_rows, length) + logits
    training = held + weights + logits
    training += costs.training_bytes(training_rows, length, checkpointed=target.checkpointed)
    least = held + weights + logits
    longest = max(lengths)
    phases: dict[str, dict[str, Any]] = {
        name: {
            "seconds": None if speed is None else round(work.seconds(speed), 3),
            "flops": work.all_flops,
            "tokens": round(work.tokens),
            "bytes": round(training if work.training_passes else reading),
        }
        for name, work in works.items()
    }
    screening = [phase for name, phase in phases.items() if name != "retrain"]
    plan: dict[str, Any] = {
        "model": config.model,
        "signal": config.signal,
        "rows": round(len(lengths) * counter.scale),
        "tokens": round(sum(lengths) * counter.scale),
        "longest_row_tokens": longest,
        "placement": placement.reason,
        "parameters": costs.parameters,
        "adapter_parameters": costs.adapter,
        "is_counted": costs.is_counted,
        "bits": target.bits,
        "gradient_checkpointing": target.checkpointed,
        "tokens_per_pass": {"score": counter.reading_tokens, "learn": counter.training_tokens},
        "weights_bytes": round(weights),
        "phases": phases,
        "screen": {
            "seconds": None if speed is None else round(sum(p["seconds"] for p in screening), 3),
            "flops": sum(phase["flops"] for phase in screening),
            "bytes": max(phase["bytes"] for phase in screening),
        },
        "speed": None if speed is None else _speed_told(speed),
        "memory_bytes": None if target.memory is None else round(target.memory),
        # Measured: 2.1 to 2.4 times as much (docs/benchmarks.md).
        "takes_more_memory": target.device == "cpu" and not placement.is_exact,
    }
    needed = least + costs.training_bytes(1, longest, checkpointed=target.checkpointed)
    plan["fits"] = target.memory is None or needed <= target.memory
    plan["advice"] = _advice(costs, target, held + logits, longest)
    return plan


def _speed_told(speed: Speed) -> dict[str, Any]:
    return {
        "peak_flops": speed.peak,
        "reading_share": speed.reading.rate / speed.peak,
        "training_share": speed.training.rate / speed.peak,
        "is_measured": speed.is_measured,
    }


def _advice(costs: Costs, target: Target, beside: float, longest: int) -> list[str]:
    """What makes the longest row fit, the cheapest first; nothing where it fits as planned."""
    if target.memory is None:
        return []

    def needs(bits: Bits, checkpointed: bool) -> float:
        least = costs.training_bytes(1, longest, checkpointed=checkpointed)
        return beside + costs.weights(bits) + least

    if needs(target.bits, target.checkpointed) <= target.memory:
        return []
    ways: list[tuple[Bits, bool]] = [(None, True), (8, True), (4, True)]
    for bits, checkpointed in ways:
        if needs(bits, checkpointed) <= target.memory:
            words = ["--set loading.gradient_checkpointing=true"]
            words += [f"--set loading.bits={bits}"] if bits else []
            need = needs(bits, checkpointed) / 1e9
            return [f"{' '.join(words)} (then {need:.1f} GB for one row of {longest:,} tokens)"]
    return [
        "It doesn't fit with 4-bit weights and gradient checkpointing either: reject long rows "
        "(--max-length-tokens), spread the model (--set loading.device_map=auto), or take a "
        "smaller model."
    ]


def _resident_bytes() -> float:
    """What this process holds now, in bytes; 0 where the system doesn't say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        return 0.0
    return float(pages * resource.getpagesize())
