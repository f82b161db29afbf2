"""A model in one phase of the method, and the seed of that phase."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from forgetfilter.scoring.records import StateName


@dataclass(frozen=True)
class ModelState:
    """A model in one phase of the method: the base weights plus at most one adapter."""

    name: StateName
    fingerprint: str
    """Identifies base weights, adapter and everything that made it."""
    adapter: str | None = None
    """Folder of the adapter, or None for the base model as it stands."""


def phase_seed(seed: int, phase: str) -> int:
    """A seed of its own for each phase, so that phases neither share nor disturb random state."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{phase}".encode()).digest()[:4], "big")
