"""A few noisy and safe rows on a workbench with a tiny model: what strategies are tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from conftest import rows_of, write_rows
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.adapter_sums import StoredAdapter
from forgetfilter.model.state import ModelState
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.method import Setting

MakeSetting = Callable[..., Setting]
"""``make_setting(model="llama", seed=0, **changes)``: changes are settings of a screen."""


def setting_maker(
    root: Path,
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    **settings: Any,
) -> MakeSetting:
    """Makes settings of 10 noisy and 6 safe rows below ``root``, each on a bench of its own.

    Stages are shared, so that what two of them need is trained once.
    """
    noisy = write_rows(root / "noisy.jsonl", rows_of(10))
    safe = write_rows(root / "safe.jsonl", rows_of(6, start=100))

    def make(model: str = "llama", seed: int = 0, **changes: Any) -> Setting:
        config = quick_config(root / "run", **(settings | changes | {"seed": seed}))
        bench = Workbench(
            str(tiny_model(model)),
            StageStore(root / "stages"),
            lora=config.lora,
            seed=seed,
            progress=Progress(is_silent=True),
            max_new_tokens=4,
        )
        rows = [bench.encoder.encode(read_rows(path).rows)[0] for path in (noisy, safe)]
        return Setting(bench, rows[0], rows[1], config)

    return make


def spy_on_training(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[EncodedRow]]]:
    """What is trained from now on: the name of each new state, and the rows of its phase."""
    trained: list[tuple[str, list[EncodedRow]]] = []
    own = Workbench.train

    def spy(self: Workbench, name: Any, rows: Any, *rest: Any, **more: Any) -> Any:
        trained.append((name, list(rows)))
        return own(self, name, rows, *rest, **more)

    monkeypatch.setattr(Workbench, "train", spy)
    return trained


def adapter_of(state: ModelState) -> StoredAdapter:
    """The adapter of a state, as it is stored."""
    return StoredAdapter.read(str(state.adapter))


def updates_of(state: ModelState) -> dict[str, Tensor]:
    """What a state changes of each weight, (out, in)."""
    return adapter_of(state).updates()
