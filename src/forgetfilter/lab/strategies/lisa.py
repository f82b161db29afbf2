"""Lisa: turns at safe rows and at noisy ones, neither of which may move far from the other's end.

"Lisa: Lazy Safety Alignment for Large Language Models against Harmful Fine-tuning Attack" (arXiv
2405.18641).
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

_WITHOUT_PULL = 0.1
"""Share of all steps, from the first on, in which nothing is pulled, as in the published code."""


@STRATEGIES.add("lisa")
class Lisa(Strategy):
    """Fine-tune in turns of steps on safe rows and steps on noisy ones, with a proximal term.

    In either state the loss has ``rho / 2`` times the squared distance to where the other state
    ended last. The steps on safe rows take the place of steps on noisy ones, whose rows are left
    out, so that the steps are as many as those of every fine-tune. The published turns of 100 and
    900 steps are meant for 20,000; here they are a tenth of that.

    Args:
        safe_steps: optimizer steps of a turn on safe rows.
        noisy_steps: optimizer steps of a turn on noisy rows.
        rho: strength of the proximal term; 0 leaves the turns alone (BSO in the paper).
    """

    name = "lisa"

    def __init__(self, safe_steps: int = 10, noisy_steps: int = 90, rho: float = 1.0) -> None:
        if safe_steps < 1 or noisy_steps < 1:
            raise ConfigError(
                f"lisa: the turns have {safe_steps} and {noisy_steps} steps; expected at least one "
                "each, for example lisa:safe_steps=10,noisy_steps=90."
            )
        if not 0 <= rho < float("inf"):
            raise ConfigError(f"lisa: rho is {rho}; expected 0 or more, for example lisa:rho=1.")
        self.turns, self.rho = (safe_steps, noisy_steps), rho

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Turns at the safe rows and at the kept ones."""
        is_kept = None if selection is None else ~selection.is_removed
        method = LisaSteps(setting.safe, self.turns, self.rho, setting.bench.seed)
        return fine_tune(setting, is_kept, start, method=method)


class LisaSteps(StepMethod):
    """The gradient of a step of either state.

    Args:
        safe: the safe rows.
        turns: steps on safe rows, and on noisy ones, by turns; it begins with safe ones.
        rho: strength of the proximal term.
        seed: draws the safe batches.
    """

    def __init__(
        self, safe: Sequence[EncodedRow], turns: tuple[int, int], rho: float, seed: int
    ) -> None:
        self.safe, self.turns, self.rho, self.seed = safe, turns, rho, seed
        self.is_on_safe = True
        self.anchors: dict[bool, dict[str, Tensor]] = {}
        """Where the state on safe rows (True) and that on noisy rows (False) ended last."""
        self._batches: Endless | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Turns, strength and safe rows."""
        return {"lisa": 1, "turns": self.turns, "rho": self.rho, "safe": rows_digest(self.safe)}

    def gradient(self, step: Step) -> float:
        """That of the loss of the state's own rows, and of the proximal term."""
        self._enter(step)
        rows = step.rows
        if self.is_on_safe and self._batches is not None:
            rows = next(self._batches)
        loss = step.add_gradient(rows)
        if self.rho == 0 or step.number < _WITHOUT_PULL * step.total:
            return loss
        anchor = self.anchors[not self.is_on_safe]
        for name, weight in step.weights.items():
            apart = weight.detach() - anchor[name].to(weight)
            loss += self.rho / 2 * float(apart.pow(2).sum())
            if weight.grad is not None:
                weight.grad.add_(apart, alpha=self.rho)
        return loss

    def state(self) -> dict[str, Any]:
        """Whose turn it is, both anchors, and which safe rows have been drawn."""
        if self._batches is None:
            return {}
        own = {"is_on_safe": self.is_on_safe, "anchors": self.anchors}
        return {**own, "batches": self._batches.state()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on with these."""
        self.is_on_safe, self.anchors = state["is_on_safe"], dict(state["anchors"])
        self._batches = resumed(self.safe, state["batches"], phase_seed(self.seed, "lisa"))

    def _enter(self, step: Step) -> None:
        """Change the state where its turn is over; the state that ends leaves its anchor."""
        is_on_safe = step.number % sum(self.turns) < self.turns[0]
        if step.number == 0:
            size = len(step.rows)
            self._batches = endless(self.safe, size, phase_seed(self.seed, "lisa"))
            self.anchors = {state: _copied(step) for state in (True, False)}
        elif is_on_safe != self.is_on_safe:
            self.anchors[self.is_on_safe] = _copied(step)
        self.is_on_safe = is_on_safe


def _copied(step: Step) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in step.weights.items()}
