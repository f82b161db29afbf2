"""The paper's plain baselines (arXiv 2312.12736, section 5): no measure, SafetyFT, replay."""

from __future__ import annotations

import numpy as np

from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.model.state import ModelState
from forgetfilter.model.training import phase_seed
from forgetfilter.scoring.records import Selection
from forgetfilter.screening.method import Setting, fine_tune


@STRATEGIES.add("none")
class NoMeasure(Strategy):
    """Fine-tune on every row, as if nothing could be wrong with them."""

    name = "none"


@STRATEGIES.add("safety_ft")
class SafetyFT(Strategy):
    """Fine-tune on every row, and then on the safe rows.

    The second fine-tune is a forgetting run: the settings are the forget phase's, and a signal that
    needs one of as many steps shares it.

    Args:
        steps: optimizer steps on the safe rows; as many as the forget phase has where not given.
    """

    name = "safety_ft"

    def __init__(self, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise ConfigError(
                f"safety_ft: steps is {steps}; expected at least one, for example "
                "safety_ft:steps=20."
            )
        self.steps = steps

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """Continue on the safe rows."""
        settings = setting.config.forget
        if self.steps is not None:
            settings = settings.model_copy(update={"max_steps": self.steps})
        return setting.bench.train("forgotten", setting.safe, settings, state, phase="forget")


@STRATEGIES.add("safety_replay")
class SafetyReplay(Strategy):
    """Fine-tune on every row with safe rows mixed in.

    Args:
        fraction: share of the safe rows that is mixed in, drawn by the seed.
    """

    name = "safety_replay"

    def __init__(self, fraction: float = 1.0) -> None:
        if not 0 < fraction <= 1:
            raise ConfigError(
                f"safety_replay: fraction is {fraction}; expected a share above 0 and up to 1, for "
                "example safety_replay:fraction=0.5."
            )
        self.fraction = fraction

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Noisy and safe rows in one fine-tune."""
        count = max(1, round(self.fraction * len(setting.safe)))
        rng = np.random.default_rng(phase_seed(setting.bench.seed, self.name))
        drawn = sorted(rng.choice(len(setting.safe), count, replace=False).tolist())
        is_kept = None if selection is None else ~selection.is_removed
        return fine_tune(setting, is_kept, start, [setting.safe[at] for at in drawn])
