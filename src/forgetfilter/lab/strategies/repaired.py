"""A changed adapter as a stage, for strategies that change a model without training it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forgetfilter.model.state import ModelState
from forgetfilter.scoring.records import StateName
from forgetfilter.screening.method import Setting

_VERSION = 1


def repaired(
    setting: Setting,
    state: ModelState,
    key: Mapping[str, Any],
    build: Callable[[Path, str], None],
    name: StateName = "repaired",
) -> ModelState:
    """The state that ``build`` makes of ``state``; made once.

    Args:
        setting: holds the store of the stages.
        state: has an adapter.
        key: all that decides the change.
        build: is called with the folder of the new adapter and that of the old one.
        name: of the new state.
    """
    if state.adapter is None:
        raise ValueError(f"{state} has no adapter to change")
    adapter = state.adapter
    full = {"version": _VERSION, "state": state.fingerprint, **key}
    stage = setting.bench.store.stage(
        "repair", full, lambda folder: build(folder / "adapter", adapter)
    )
    return ModelState(name, fingerprint=stage.name, adapter=str(stage / "adapter"))
