"""Bayesian Data Scheduler: row weights that are learned in the fine-tune itself.

"Adaptive Defense against Harmful Fine-Tuning for Large Language Models via Bayesian Data Scheduler"
(arXiv 2510.27172), in its joint form: the model that comes out of it is the result, and no row is
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.batches import Endless, endless, resumed
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.model.state import ModelState, phase_seed
from forgetfilter.model.training.step_method import Step, StepMethod
from forgetfilter.scoring.records import Selection
from forgetfilter.screening.method import Setting, fine_tune

if TYPE_CHECKING:
    from torch import Tensor

_FIRST_LOGIT = 0.1


@STRATEGIES.add("bds")
class BayesianScheduler(Strategy):
    """Fine-tune on safe rows and weighted noisy ones, whose weights are learned on the way.

    A step lowers the mean loss of a batch of safe rows plus the weighted mean loss of its noisy
    rows, the weights being N times the softmax of N logits; then the logits take a step that lowers
    the weighted loss, so that rows which the safe model fits badly lose weight. Steps of an
    optimizer stand for the paper's sampling, as in the published code; that it is Adam is our
    choice. Each step passes over as many safe rows as noisy ones: twice the passes.

    Args:
        rate: learning rate of the logits.
    """

    name = "bds"

    def __init__(self, rate: float = 5e-3) -> None:
        if not 0 <= rate < float("inf"):
            raise ConfigError(
                f"bds: rate is {rate}; expected 0 or more, for example bds:rate=0.005."
            )
        self.rate = rate

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Weights and model together, on the kept rows."""
        is_kept = None if selection is None else ~selection.is_removed
        count = len(setting.noisy) if is_kept is None else int(is_kept.sum())
        method = BayesianSteps(setting.safe, count, self.rate, setting.bench.seed)
        return fine_tune(setting, is_kept, start, method=method)


class BayesianSteps(StepMethod):
    """The gradient of safe rows and of weighted noisy ones, and a step of the weights.

    Args:
        safe: the safe rows.
        count: how many noisy rows there are.
        rate: learning rate of their logits.
        seed: draws the safe batches.
    """

    def __init__(self, safe: Sequence[EncodedRow], count: int, rate: float, seed: int) -> None:
        self.safe, self.count, self.rate, self.seed = safe, count, rate, seed
        self.logits: Tensor | None = None
        """One for each noisy row, shape (N,)."""
        self._optimizer: Any = None
        self._batches: Endless | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Safe rows and rate."""
        return {"bds": 1, "rate": self.rate, "safe": rows_digest(self.safe)}

    def weights(self) -> Tensor:
        """The rows' weights, shape (N,), mean 1."""
        if self.logits is None:
            raise ValueError("no step has been taken")
        return self.count * self.logits.softmax(dim=0)

    def gradient(self, step: Step) -> float:
        """Safe rows in full, the step's own by weight."""
        import torch

        if step.number == 0 or self._batches is None:
            self._begin(len(step.rows))
        loss = step.add_gradient(next(self._batches)) if self._batches else 0.0
        weights = self.weights()[list(step.indices)]
        losses = torch.zeros(len(step.rows))
        for batch in step.passes(step.rows):
            own = step.row_losses(batch)
            fixed = weights.detach()[batch.indices].to(own)
            ((fixed * own).sum() / len(step.rows)).backward()  # pyright: ignore[reportUnknownMemberType]
            losses[batch.indices] = own.detach().float().cpu()
        weighted = (weights * losses).mean()
        self._optimizer.zero_grad()
        weighted.backward()  # pyright: ignore[reportUnknownMemberType]
        self._optimizer.step()
        return loss + float(weighted.detach())

    def state(self) -> dict[str, Any]:
        """Logits, their optimizer, and which safe rows have been drawn."""
        if self.logits is None or self._batches is None:
            return {}
        optimizer = self._optimizer.state_dict()
        own = {"logits": self.logits.detach(), "optimizer": optimizer}
        return {**own, "batches": self._batches.state()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on with these."""
        self._set(state["logits"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches = resumed(self.safe, state["batches"], phase_seed(self.seed, "bds"))

    def _begin(self, size: int) -> None:
        import torch

        self._set(torch.full((self.count,), _FIRST_LOGIT))
        self._batches = endless(self.safe, size, phase_seed(self.seed, "bds"))

    def _set(self, logits: Tensor) -> None:
        import torch

        self.logits = logits.clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self.logits], lr=self.rate, betas=(0.9, 0.95))
