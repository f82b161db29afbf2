"""A model in one phase of the method."""

from __future__ import annotations

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
