"""The Python interface: settings once, then screen as many files as wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forgetfilter.config import PACKAGED_SAFE, ScreenConfig, resolve
from forgetfilter.progress import Progress
from forgetfilter.scoring.thresholds import choose_rule
from forgetfilter.screening.finetune import FinetuneResult, finetune
from forgetfilter.screening.screen import ScreenResult, screen


class ForgetFilter:
    """Screens fine-tuning files with one model and one set of safe rows.

    Args:
        model: folder or hub id of the causal language model that is to be fine-tuned.
        safe_data: JSONL file of rows whose answers are known to be safe; the packaged
            general-purpose set where not given. Rows that match your own risks are better.
        preset: ``default`` or ``paper``.
        is_silent: whether to show no progress.
        settings: any other field of `ScreenConfig`; groups as mappings, for example
            ``learn={"num_train_epochs": 5}``.

    Raises:
        ConfigError: an unknown setting or a wrong value, all of them named at once; or a signal
            and a threshold rule that don't fit.
    """

    def __init__(
        self,
        model: str | Path,
        safe_data: str | Path = PACKAGED_SAFE,
        *,
        preset: str = "default",
        is_silent: bool = False,
        **settings: Any,
    ) -> None:
        self._layer: dict[str, Any] = {
            **settings,
            "model": str(model),
            "safe_data": str(safe_data),
            "preset": preset,
        }
        self._progress = Progress(is_silent=is_silent)
        # Wrong settings are found now, not after the model is loaded.
        config = resolve(ScreenConfig, {**self._layer, "noisy_data": "", "output_dir": ""})
        choose_rule(config.signal, config.threshold)

    def screen(
        self, noisy_data: str | Path, output_dir: str | Path, *, overwrite: bool = False
    ) -> ScreenResult:
        """Screen one file into a run folder; see `screening.screen.screen` for the errors."""
        paths = {"noisy_data": str(noisy_data), "output_dir": str(output_dir)}
        config = resolve(ScreenConfig, {**self._layer, **paths})
        return screen(config, self._progress, overwrite=overwrite)

    def finetune(
        self, run: str | Path, output_dir: str | Path, *, overwrite: bool = False
    ) -> FinetuneResult:
        """Fine-tune the base model on what a run kept; the adapter goes to ``output_dir``."""
        return finetune(run, output_dir, self._progress, overwrite=overwrite)
