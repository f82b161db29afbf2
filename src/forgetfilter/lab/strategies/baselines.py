"""The paper's plain baselines (arXiv 2312.12736, section 5): no measure, SafetyFT, replay."""

from __future__ import annotations

import numpy as np

from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.batches import drawn
from forgetfilter.model.state import ModelState, phase_seed
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

    It takes more steps than other fine-tunes, as it has more rows, unless ``learn.max_steps`` is
    given.

    Args:
        fraction: share of the safe rows that is mixed in, drawn by the seed.
        ratio: instead, safe rows for each noisy row that is trained on; each comes up again once
            all have, where more are wanted than there are.
    """

    name = "safety_replay"

    def __init__(self, fraction: float = 1.0, ratio: float | None = None) -> None:
        if not 0 < fraction <= 1:
            raise ConfigError(
                f"safety_replay: fraction is {fraction}; expected a share above 0 and up to 1, for "
                "example safety_replay:fraction=0.5."
            )
        if ratio is not None and not 0 < ratio < float("inf"):
            raise ConfigError(
                f"safety_replay: ratio is {ratio}; expected safe rows for each noisy row, above 0, "
                "for example safety_replay:ratio=0.1."
            )
        self.fraction, self.ratio = fraction, ratio

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Noisy and safe rows in one fine-tune."""
        is_kept = None if selection is None else ~selection.is_removed
        seed = phase_seed(setting.bench.seed, self.name)
        if self.ratio is not None:
            kept = len(setting.noisy) if is_kept is None else int(is_kept.sum())
            extra = drawn(setting.safe, max(1, round(self.ratio * kept)), seed)
        else:
            count = max(1, round(self.fraction * len(setting.safe)))
            rng = np.random.default_rng(seed)
            chosen = sorted(rng.choice(len(setting.safe), count, replace=False).tolist())
            extra = [setting.safe[at] for at in chosen]
        return fine_tune(setting, is_kept, start, extra)
