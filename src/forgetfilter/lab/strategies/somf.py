"""SOMF: the update by the fine-tune is masked, by a mask that is learned on preferences for safety.

"A safety realignment framework via subspace-oriented model fusion for large language models" (arXiv
2405.09055).
"""

from __future__ import annotations

import json
from pathlib import Path

from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.exemplars import PACKAGED, check_source, draw_pairs
from forgetfilter.lab.strategies.masks import MaskCourse, safe_weights
from forgetfilter.lab.strategies.repaired import repaired
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.model.stages.phases import TRAINING_FILE
from forgetfilter.model.state import ModelState, phase_seed
from forgetfilter.screening.method import Setting


@STRATEGIES.add("somf")
class Somf(Strategy):
    """Fine-tune on every row, and then keep of each number of the update what a mask lets through.

    The result is ``safe + mask * (tuned - safe) / mean(mask)`` for each tensor of the adapter. The
    mask is a relaxed Bernoulli variable with one logit per number, from 0 on, drawn anew in each
    step; the logits lower the preference loss (DPO) of unsafe answers over safe ones, against the
    safe model. Our choices: where the fine-tune began at the base model, whose adapter is zero, the
    second factor of each update is masked; the final mask is the one without noise, so that no step
    changes nothing; fewer steps than published, at a higher rate.

    Needs unsafe exemplars: ``pairs`` of an unsafe and a safe answer. Costs forward and backward
    passes over ``8 * steps`` rows.

    Args:
        exemplars: a file of preference rows (``prompt``, ``chosen``, ``rejected``), or ``testbed``.
        pairs: how many of them, a budget beside the safe rows.
        steps: of the mask; 0 leaves the model as it is.
        rate: learning rate of the logits, which falls to zero along a cosine.
    """

    name = "somf"

    def __init__(
        self, exemplars: str = PACKAGED, pairs: int = 20, steps: int = 50, rate: float = 0.1
    ) -> None:
        if pairs < 1 or steps < 0 or not 0 < rate < float("inf"):
            raise ConfigError(
                f"somf: pairs is {pairs}, steps {steps} and rate {rate}; expected at least one "
                "pair, steps from 0 on and a rate above 0, for example somf:pairs=20,steps=50."
            )
        self.exemplars, self.pairs, self.steps, self.rate = exemplars, pairs, steps, rate

    def check(self, config: ScreenConfig) -> None:
        """There are exemplars."""
        check_source(self.name, self.exemplars)

    def repair(self, setting: Setting, state: ModelState) -> ModelState:
        """The masked update."""
        bench, start = setting.bench, setting.bench.base
        pairs = draw_pairs(setting, self.exemplars, self.pairs)

        def build(folder: Path, adapter: str) -> None:
            from forgetfilter.model.loading.adapters import save_adapter

            model = bench.model.trainable(state, "somf").eval()
            course = MaskCourse(model, safe_weights(model, start))
            course.learn(pairs, self.steps, self.rate, phase_seed(bench.seed, "somf"))
            save_adapter(model, folder)
            report = {"row_passes": course.row_passes}
            (folder.parent / TRAINING_FILE).write_text(json.dumps(report), encoding="utf-8")
            bench.model.release()

        key = {
            "somf": [self.steps, self.rate],
            "start": start.fingerprint,
            "pairs": rows_digest([row for pair in pairs for row in (pair.safe, pair.unsafe)]),
            "seed": bench.seed,
        }
        return repaired(setting, state, key, build)
