"""LoX: the safe update of the weights is made longer along its main directions.

"LoX: Low-Rank Extrapolation Robustifies LLM Safety Against Fine-tuning" (arXiv 2506.15606). The
paper extrapolates from an unaligned model to the aligned one before fine-tuning. Here there is one
model, whose unaligned origin nobody has: our choice is to take the update that some steps on the
safe rows make as the direction of alignment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.repaired import repaired
from forgetfilter.model.state import ModelState
from forgetfilter.screening.method import Setting


@STRATEGIES.add("lox")
class LoX(Strategy):
    """Tune on the safe rows, extrapolate that update in low rank, and fine-tune on every row.

    The start of the fine-tune is ``W + D + factor * P D``: W the base weights, D the update by the
    safe rows, P the projection on the first ``rank`` left singular directions of D. Costs the steps
    on the safe rows, which have the settings of the forget phase.

    Args:
        rank: how many directions are extrapolated.
        factor: how far, in lengths of the update.
        steps: optimizer steps on the safe rows; as many as the forget phase has where not given.
        when: ``before`` the fine-tune as in the paper; or ``after`` it, in which case ``factor * P
            D`` is added to the fine-tuned model and the start is the base model.
    """

    name = "lox"

    def __init__(
        self,
        rank: int = 6,
        factor: float = 1.25,
        steps: int | None = None,
        when: Literal["before", "after"] = "before",
    ) -> None:
        if rank < 1 or not 0 <= factor < float("inf") or (steps is not None and steps < 1):
            raise ConfigError(
                f"lox: rank is {rank}, factor {factor} and steps {steps}; expected a rank and "
                "steps from 1 on and a factor from 0 on, such as lox:rank=6,factor=1.25,steps=20."
            )
        self.rank, self.factor, self.steps, self.when = rank, factor, steps, when

    def prepare(self, setting: Setting) -> ModelState:
        """The extrapolated model, or the base model where that comes after."""
        if self.when == "after":
            return setting.bench.base
        aligned = self._aligned(setting)

        def build(folder: Path, adapter: str) -> None:
            from forgetfilter.model.loading.adapter_sums import StoredAdapter

            update = StoredAdapter.read(adapter)
            extended = update.reduced(self.rank).scaled(self.factor)
            # The projection changes B alone, so that the sum keeps the rank.
            pairs = {
                name: (a, b + extended.pairs[name][1]) for name, (a, b) in update.pairs.items()
            }
            StoredAdapter(update.folder, update.scale, pairs).write(folder)

        return repaired(setting, aligned, self._key(), build, "prepared")

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """The extrapolation on top of the fine-tuned model, where that comes after."""
        if self.when == "before":
            return state
        aligned = self._aligned(setting)

        def build(folder: Path, adapter: str) -> None:
            from forgetfilter.model.loading.adapter_sums import StoredAdapter

            extended = StoredAdapter.read(str(aligned.adapter)).reduced(self.rank)
            StoredAdapter.read(adapter).plus(extended.scaled(self.factor)).write(folder)

        return repaired(setting, state, {**self._key(), "aligned": aligned.fingerprint}, build)

    def _key(self) -> dict[str, object]:
        return {"lox": self.when, "rank": self.rank, "factor": self.factor}

    def _aligned(self, setting: Setting) -> ModelState:
        settings = setting.config.forget
        if self.steps is not None:
            settings = settings.model_copy(update={"max_steps": self.steps})
        return setting.bench.train("prepared", setting.safe, settings, setting.bench.base, "align")
