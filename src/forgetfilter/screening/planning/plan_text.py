"""A plan as text for a terminal."""

from __future__ import annotations

from typing import Any


def describe(plan: dict[str, Any]) -> str:
    """The plan as text for a terminal."""
    lines = [
        f"{plan['rows']:,} rows of {plan['tokens']:,} tokens (the longest has "
        f"{plan['longest_row_tokens']:,}); {plan['parameters'] / 1e6:,.0f}M parameters, "
        f"{plan['adapter_parameters'] / 1e6:,.1f}M in the adapter; {plan['placement']}.",
        "",
        f"{'phase':<14}{'time':>12}{'FLOPs':>12}{'tokens':>14}{'memory':>12}",
    ]
    named = {**plan["phases"], "whole screen": plan["screen"]}
    for name, phase in named.items():
        tokens = f"{phase['tokens']:,}" if "tokens" in phase else ""
        lines.append(
            f"{name:<14}{_time(phase['seconds']):>12}{phase['flops']:>12.2e}{tokens:>14}"
            f"{phase['bytes'] / 1e9:>9.2f} GB"
        )
    lines += [
        "",
        "Learning may end before its last epoch; times are of all. Loading isn't in them.",
    ]
    if plan["speed"] is None:
        lines.append(
            "No times: this machine has no GPU. Give --flops, what yours reaches, in TFLOP/s."
        )
    elif plan["speed"]["is_measured"]:
        speed = plan["speed"]
        lines.append(
            f"Measured here: {speed['peak_flops'] / 1e9:,.0f} GFLOP/s in matrix products; passes "
            f"reach {speed['reading_share']:.0%} of it, with gradients "
            f"{speed['training_share']:.0%}."
        )
    else:
        lines.append("Times assume that passes reach 40% of the peak that was given.")
    if plan["takes_more_memory"]:
        lines.append(
            "In bfloat16 a CPU takes more memory than is planned: 2.1 to 2.4 times as much was "
            "measured (docs/benchmarks.md)."
        )
    if not plan["is_counted"]:
        lines.append("A mixture of experts: FLOPs follow from the numbers of parameters.")
    if not plan["fits"]:
        lines.append(f"Doesn't fit into {plan['memory_bytes'] / 1e9:,.0f} GB.")
    lines += [f"Advice: {said}" for said in plan["advice"]]
    return "\n".join(lines)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
