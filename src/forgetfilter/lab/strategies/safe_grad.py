"""SafeGrad: the part of a step that works against the safe rows is taken out of it.

"Gradient Surgery for Safe LLM Fine-Tuning" (arXiv 2508.07172). What is written here follows its
abstract and summaries: no code was at hand, and the weight of the safe gradient is our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.batches import Endless, endless, resumed
from forgetfilter.model.measuring.divergence import safe_gradient, squared_norm
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.model.state import ModelState, phase_seed
from forgetfilter.model.training.step_method import Step, StepMethod
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import Selection
from forgetfilter.screening.method import Setting, fine_tune

if TYPE_CHECKING:
    from torch import Tensor


@STRATEGIES.add("safe_grad")
class SafeGrad(Strategy):
    """Fine-tune on every row, what conflicts with the safe rows taken out of each step.

    The safe gradient is that of ``KL(base || model)`` on some safe rows. Where its product with the
    rows' gradient is negative, the part of the latter along it is taken out; then the safe gradient
    is added ``weight`` times. Each step passes over safe rows too, and reads them in the base
    model: with as many safe rows as noisy ones in a step that is twice the passes and a forward.

    Args:
        batch: safe rows a step; as many as the step has rows where 0.
        weight: of the safe gradient in the sum; 0 projects alone.
    """

    name = "safe_grad"

    def __init__(self, batch: int = 0, weight: float = 1.0) -> None:
        if batch < 0 or not 0 <= weight < float("inf"):
            raise ConfigError(
                f"safe_grad: batch is {batch} and weight {weight}; expected 0 or more, for example "
                "safe_grad:batch=8,weight=1."
            )
        self.batch, self.weight = batch, weight

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Projected steps on the kept rows."""
        is_kept = None if selection is None else ~selection.is_removed
        limits = (self.batch, self.weight, setting.bench.seed, setting.bench.max_batch_tokens)
        return fine_tune(setting, is_kept, start, method=SafeGradSteps(setting.safe, *limits))


class SafeGradSteps(StepMethod):
    """The projected gradient of a step."""

    def __init__(
        self,
        safe: Sequence[EncodedRow],
        batch: int,
        weight: float,
        seed: int,
        max_batch_tokens: int,
    ) -> None:
        self.safe, self.batch, self.weight, self.seed = safe, batch, weight, seed
        self._max_batch_tokens = max_batch_tokens
        self._batches: Endless | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Safe rows, how many a step, and the weight."""
        own = {"batch": self.batch, "weight": self.weight, "safe": rows_digest(self.safe)}
        return {"safe_grad": 1, **own}

    def gradient(self, step: Step) -> float:
        """The gradient of the step's rows, projected, and the safe one."""
        if step.number == 0 or self._batches is None:
            size = self.batch or len(step.rows)
            self._batches = endless(self.safe, size, phase_seed(self.seed, "safe_grad"))
        rows = next(self._batches)
        silent = Progress(is_silent=True)
        limits = (self._max_batch_tokens, silent, "safe gradient")
        safe = safe_gradient(step.model, rows, "kl_to_base", *limits).gradient
        step.passes_over.counted += len(rows)
        step.model.train()
        loss = step.add_gradient(step.rows)
        own = {
            name: weight.grad for name, weight in step.weights.items() if weight.grad is not None
        }
        share = conflict(own, safe)
        for name, gradient in own.items():
            gradient.add_(safe[name].to(gradient), alpha=self.weight - share)
        return loss

    def state(self) -> dict[str, Any]:
        """Which safe rows have been drawn."""
        return {"batches": self._batches.state()} if self._batches else {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on with the next ones."""
        self._batches = resumed(self.safe, state["batches"], phase_seed(self.seed, "safe_grad"))


def conflict(own: Mapping[str, Tensor], safe: Mapping[str, Tensor]) -> float:
    """How much of ``safe`` is in ``own`` where the two conflict: negative; 0 where they don't.

    ``own`` minus so much of ``safe`` is orthogonal to it.
    """
    along = sum(float((own[name].double() * safe[name].double()).sum()) for name in own)
    length = squared_norm(safe)
    return along / length if along < 0 and length > 0 else 0.0
