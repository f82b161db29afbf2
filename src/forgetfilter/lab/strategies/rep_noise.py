"""RepNoise: what the model knows of unsafe answers is turned into noise, layer by layer.

"Representation noising: A Defence Mechanism Against Harmful Finetuning" (arXiv 2405.14577).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forgetfilter.config import ScreenConfig
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.exemplars import PACKAGED, check_source, draw_pairs
from forgetfilter.lab.strategies.hooked import changed, layers_of
from forgetfilter.lab.strategies.noising import at_targets, loss_at_every_layer, mmd
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.model.state import ModelState, phase_seed
from forgetfilter.model.training.step_method import Step, StepMethod
from forgetfilter.screening.method import Setting

if TYPE_CHECKING:
    from torch import Tensor

MLP = ("MLP", "FeedForward", "SparseMoeBlock", "OPTDecoderLayer")


@STRATEGIES.add("rep_noise")
class RepNoise(Strategy):
    """Make unsafe answers noise to the model, and fine-tune on every row from there.

    A step lowers ``safe + beta * noise - alpha * log(harm)``: the loss of safe answers; the
    distance (MMD with five Gaussian kernels) between the outputs of the MLP layers at unsafe
    answers and Gaussian noise, mean over layers; and the loss of the unsafe answers at the output
    and, through norm and output layer, at every layer, mean. Only tokens of answers count: they are
    all that differs in a pair. Our choices: tokens are the samples of the MMD; each pass over rows
    has a logarithm of its own.

    Needs unsafe exemplars. Two forward and backward passes a pair; the steps have the settings of
    the forget phase.

    Args:
        exemplars: a file of preference rows (``prompt``, ``chosen``, ``rejected``), or ``testbed``.
        pairs: how many of them, a budget beside the safe rows, which are not used.
        alpha: weight of the loss of unsafe answers.
        beta: weight of the distance from noise.
        steps: optimizer steps; as many as the forget phase has where not given.
    """

    name = "rep_noise"

    def __init__(
        self,
        exemplars: str = PACKAGED,
        pairs: int = 20,
        alpha: float = 1.0,
        beta: float = 0.001,
        steps: int | None = None,
    ) -> None:
        if pairs < 1 or not 0 <= alpha < float("inf") or not 0 <= beta < float("inf"):
            raise ConfigError(
                f"rep_noise: pairs is {pairs}, alpha {alpha} and beta {beta}; expected at least "
                "one pair and weights from 0 on, for example rep_noise:pairs=20,alpha=1."
            )
        if steps is not None and steps < 1:
            raise ConfigError(
                f"rep_noise: steps is {steps}; expected at least one, such as rep_noise:steps=20."
            )
        self.exemplars, self.pairs, self.steps = exemplars, pairs, steps
        self.alpha, self.beta = alpha, beta

    def check(self, config: ScreenConfig) -> None:
        """There are exemplars."""
        check_source(self.name, self.exemplars)

    def prepare(self, setting: Setting) -> ModelState:
        """The model to which unsafe answers are noise."""
        bench, settings = setting.bench, setting.config.forget
        if self.steps is not None:
            settings = settings.model_copy(update={"max_steps": self.steps})
        pairs = draw_pairs(setting, self.exemplars, self.pairs)
        rows = [pair.safe for pair in pairs]
        unsafe = [pair.unsafe for pair in pairs]
        method = RepNoiseSteps(unsafe, self.alpha, self.beta, phase_seed(bench.seed, self.name))
        return bench.train("prepared", rows, settings, bench.base, "align", method=method)


class RepNoiseSteps(StepMethod):
    """The gradient of the three losses; the phase's rows are the safe answers.

    Args:
        unsafe: the unsafe answer to each of the phase's rows.
        alpha: weight of their loss.
        beta: weight of the distance from noise.
        seed: draws the noise.
    """

    def __init__(self, unsafe: Sequence[EncodedRow], alpha: float, beta: float, seed: int) -> None:
        self.unsafe, self.alpha, self.beta, self.seed = unsafe, alpha, beta, seed
        self._draws: Any = None

    @property
    def key(self) -> dict[str, Any]:
        """Weights and unsafe answers."""
        own = {"alpha": self.alpha, "beta": self.beta, "unsafe": rows_digest(self.unsafe)}
        return {"rep_noise": 1, **own}

    def state(self) -> dict[str, Any]:
        """Where the drawing of noise is."""
        return {} if self._draws is None else {"draws": self._draws.get_state()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on drawing from there."""
        import torch

        self._draws = torch.Generator()
        self._draws.set_state(state["draws"])

    def gradient(self, step: Step) -> float:
        """Of the safe answers of the step's rows, and of the unsafe ones to the same prompts."""
        import torch

        if step.number == 0 or self._draws is None:
            self._draws = torch.Generator().manual_seed(self.seed)
        total = step.add_gradient(step.rows)
        rows = [self.unsafe[index] for index in step.indices]
        layers = layers_of(step.model, MLP, "MLP")
        outputs: list[Tensor] = []

        def keep(_: int, output: Tensor) -> Tensor:
            outputs.append(output)
            return output

        with changed(layers, keep):
            for batch in step.passes(rows):
                outputs.clear()
                harm = loss_at_every_layer(step.model, batch)
                at_answers = [at_targets(output, batch) for output in outputs]
                noise = torch.stack([self._distance(found) for found in at_answers]).mean()
                loss = self.beta * noise - self.alpha * harm.log()
                loss = loss * len(batch.indices) / len(rows)
                loss.backward()  # pyright: ignore[reportUnknownMemberType]
                total += float(loss.detach())
        return total

    def _distance(self, found: Tensor) -> Tensor:
        import torch

        noise = torch.randn(found.shape, generator=self._draws).to(found)
        return mmd(found, noise)
