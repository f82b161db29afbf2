"""Vaccine: safe rows are learned under the hidden perturbation that hurts them most.

"Vaccine: Perturbation-aware Alignment for Large Language Models against Harmful Fine-tuning Attack"
(arXiv 2402.01109).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.hooked import changed, layers_of
from forgetfilter.model.state import ModelState
from forgetfilter.model.training.step_method import Step, StepMethod
from forgetfilter.screening.method import Setting

if TYPE_CHECKING:
    from torch import Tensor

ATTENTION = ("Attention", "FlashAttention2")
_LEAST = 1e-7


@STRATEGIES.add("vaccine")
class Vaccine(Strategy):
    """Tune on the safe rows under perturbation, and fine-tune on every row from there.

    Each step reads the gradient at the output of every attention layer, scales all of them together
    to the length ``rho``, and follows the gradient of a second pass in which they are added. Two
    forward and backward passes a row. The steps have the settings of the forget phase, whose safe
    rows they pass over. Our choice: both passes have the same dropout.

    Args:
        rho: length of the perturbation, over all layers and tokens of a step; 0 is plain tuning.
        steps: optimizer steps on the safe rows; as many as the forget phase has where not given.
    """

    name = "vaccine"

    def __init__(self, rho: float = 2.0, steps: int | None = None) -> None:
        if not 0 <= rho < float("inf") or (steps is not None and steps < 1):
            raise ConfigError(
                f"vaccine: rho is {rho} and steps {steps}; expected rho from 0 on and steps from 1 "
                "on, for example vaccine:rho=2,steps=20."
            )
        self.rho, self.steps = rho, steps

    def prepare(self, setting: Setting) -> ModelState:
        """The vaccinated model."""
        bench, settings = setting.bench, setting.config.forget
        if self.steps is not None:
            settings = settings.model_copy(update={"max_steps": self.steps})
        rows, method = setting.safe, VaccineSteps(self.rho)
        return bench.train("prepared", rows, settings, bench.base, "align", method=method)


class VaccineSteps(StepMethod):
    """The gradient of a step under perturbation."""

    def __init__(self, rho: float) -> None:
        self.rho = rho

    @property
    def key(self) -> dict[str, Any]:
        """The length of the perturbation."""
        return {"vaccine": 1, "rho": self.rho}

    def state(self) -> dict[str, Any]:
        """Nothing: each step begins anew."""
        return {}

    def gradient(self, step: Step) -> float:
        """That of the second pass."""
        import torch

        layers = layers_of(step.model, ATTENTION, "attention")
        with torch.random.fork_rng():
            perturbations = self.perturbations(step, layers)
        waiting = iter(perturbations)
        current: list[Tensor] = []

        def add(number: int, output: Tensor) -> Tensor:
            if number == 0:
                current[:] = next(waiting)
            return output + current[number].to(output)

        with changed(layers, add):
            return step.add_gradient(step.rows)

    def perturbations(self, step: Step, layers: list[Any]) -> list[list[Tensor]]:
        """For each pass over the step's rows, what is added to each layer's output."""
        import torch

        gradients: list[list[Tensor]] = []
        outputs: list[Tensor] = []

        def keep(_: int, output: Tensor) -> Tensor:
            if not output.requires_grad:  # before the first layer with an adapter
                output = output.requires_grad_()
            outputs.append(output)
            return output

        with changed(layers, keep):
            for batch in step.passes(step.rows):
                outputs.clear()
                loss = step.nats(batch).sum()
                gradients.append(list(torch.autograd.grad(loss, outputs)))
        squares = [float(one.double().pow(2).sum()) for own in gradients for one in own]
        length = sum(squares) ** 0.5
        return [[self.rho * one / (length + _LEAST) for one in own] for own in gradients]
