"""Merging: the fine-tuned model is moved part of the way back to the base model.

Weight interpolation, as in "Robust fine-tuning of zero-shot models" (arXiv 2109.01903).
"""

from __future__ import annotations

from pathlib import Path

from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.repaired import repaired
from forgetfilter.model.state import ModelState
from forgetfilter.screening.method import Setting


@STRATEGIES.add("merge_base")
class MergeBase(Strategy):
    """Fine-tune on every row, and then average the weights with those of the base model.

    The base model is the one that was given, whatever was done before the fine-tune. Costs no pass.

    Args:
        weight: of the base model in the average: 0 changes nothing, 1 is the base model.
    """

    name = "merge_base"

    def __init__(self, weight: float = 0.5) -> None:
        if not 0 <= weight <= 1:
            raise ConfigError(
                f"merge_base: weight is {weight}; expected a share from 0 to 1, for example "
                "merge_base:weight=0.5."
            )
        self.weight = weight

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """The update of the weights, less ``weight`` of it."""

        def build(folder: Path, adapter: str) -> None:
            from forgetfilter.model.loading.adapter_sums import StoredAdapter

            StoredAdapter.read(adapter).scaled(1 - self.weight).write(folder)

        return repaired(setting, state, {"merge_base": self.weight}, build)
