"""Where a model computes and in which number format, and why."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from forgetfilter.errors import ModelError

# Of x86 (AVX-512, AMX) and of ARM.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
CPU_BFLOAT16_WIDTH = 512
"""Width from which bfloat16 is chosen on a CPU that has it; see `benchmarks/bfloat16.py`."""


@dataclass(frozen=True)
class Placement:
    """Where and in which number format a model computes, and why."""

    device: str
    dtype: torch.dtype
    reason: str

    @property
    def is_exact(self) -> bool:
        """Whether readings are the same whichever rows share a forward pass.

        In float32 they are, to 1e-6 nats a token. A shorter format rounds by the shape of a pass:
        in bfloat16 a row's mean loss moves by up to 0.06 nats a token.
        """
        return self.dtype == torch.float32

    @property
    def has_autocast(self) -> bool:
        """Whether every forward pass rounds what it multiplies to ``dtype``, adapters too.

        On a CPU, where products of float32 adapters would cost most of what bfloat16 saves. The
        adapters themselves, and their gradients, stay in float32.
        """
        return self.device == "cpu" and not self.is_exact


def choose_placement(
    device: Literal["auto", "cpu", "cuda", "mps"],
    dtype: Literal["auto", "float32", "bfloat16"],
    width: int | None = None,
) -> Placement:
    """Pick device and dtype from what is there.

    Args:
        device: auto, or which.
        dtype: auto, or which.
        width: of the model's residual stream, if known: a narrow model gains nothing from bfloat16
            on a CPU, and stays exact.

    Raises:
        ModelError: a device was asked for that this machine doesn't have.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device != "auto" and not available[device]:
        here = ", ".join(name for name, there in available.items() if there)
        raise ModelError(
            f"device is {device!r}, but only {here} is available. Use --device auto, or a machine "
            "that has it."
        )
    chosen = next(n for n in ("cuda", "mps", "cpu") if available[n]) if device == "auto" else device
    if dtype != "auto":
        return Placement(chosen, getattr(torch, dtype), f"{chosen}, {dtype} (asked for)")
    if chosen == "cuda" and torch.cuda.is_bf16_supported():
        return Placement(chosen, torch.bfloat16, "cuda, bfloat16 (the GPU has it)")
    is_wide = width is not None and width >= CPU_BFLOAT16_WIDTH
    if chosen == "cpu" and is_wide and cpu_has_bfloat16():
        reason = "cpu, bfloat16 with float32 adapters (the CPU has it, and the model is wide)"
        return Placement(chosen, torch.bfloat16, reason)
    return Placement(chosen, torch.float32, f"{chosen}, float32 (exact and fast enough here)")


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices itself; known on Linux only.

    Elsewhere it is imitated, which is slower than float32.
    """
    return not _BFLOAT16_FLAGS.isdisjoint(_cpu_flags())


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    """Names of the CPU's instruction sets, as Linux lists them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    named = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return frozenset(named[0].partition(":")[2].split()) if named else frozenset()
