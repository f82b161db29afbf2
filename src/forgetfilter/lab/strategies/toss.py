"""TOSS: tokens that a degraded model knows and a trusted one doesn't carry no loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.exemplars import PACKAGED, check_source, draw_pairs
from forgetfilter.model.state import ModelState
from forgetfilter.scoring.records import Selection
from forgetfilter.screening.deciding.masks import carries_loss
from forgetfilter.screening.method import Setting, fine_tune

if TYPE_CHECKING:
    from forgetfilter.config import ScreenConfig
    from forgetfilter.data.records import EncodedRow


@STRATEGIES.add("toss")
class Toss(Strategy):
    """Fine-tune on all rows without the tokens that an unsafe model expects more than a safe one.

    "Token-level Data Selection for Safe LLM Fine-tuning" (TOSS, arXiv 2603.01185): one model is
    degraded by a fine-tune on unsafe rows, another one is tuned on trusted rows; a token's score is
    the difference of its losses in the two, and the highest ``share`` of all tokens of the set,
    whatever row they are in, is masked. Our choices: of the two signs the one by which a token
    that the degraded model finds likelier has the higher score; the safe rows are the trusted ones;
    both fine-tunes begin at the base model, with the settings of the forget phase; the second
    round of TOSS-Pro, which scores again with models tuned on the selected tokens, is left out.

    Needs unsafe exemplars: the unsafe answers of ``pairs``. Costs the steps of both fine-tunes, and
    2 forward passes a row.

    Args:
        share: of all answer tokens of the kept rows, masked; from 0 to below 1.
        exemplars: a file of preference rows (``prompt``, ``chosen``, ``rejected``), or ``testbed``.
        pairs: how many of them, a budget beside the safe rows.
        steps: of each of the two fine-tunes; as many as the forget phase has where not given.
    """

    name = "toss"

    def __init__(
        self,
        share: float = 0.2,
        exemplars: str = PACKAGED,
        pairs: int = 20,
        steps: int | None = None,
    ) -> None:
        if not 0 <= share < 1 or pairs < 1 or (steps is not None and steps < 1):
            raise ConfigError(
                f"toss: share is {share}, pairs {pairs} and steps {steps}; expected a share from 0 "
                "to below 1, and pairs and steps from 1 on, for example toss:share=0.2,pairs=20."
            )
        self.share, self.exemplars, self.pairs, self.steps = share, exemplars, pairs, steps

    def check(self, config: ScreenConfig) -> None:
        """There are exemplars."""
        check_source(self.name, self.exemplars)

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Fine-tune ``start`` on the kept rows, without the loss of masked tokens."""
        is_kept = np.ones(len(setting.noisy), dtype=np.bool_)
        if selection is not None:
            is_kept = ~selection.is_removed
        rows = [row for row, kept in zip(setting.noisy, is_kept, strict=True) if kept]
        masks = highest_of_all(self.scores(setting, rows), self.share)
        left = [
            replace(row, is_target=carries_loss(row, mask))
            for row, mask in zip(rows, masks, strict=True)
        ]
        masked = [row for row in left if row.target_tokens]
        return fine_tune(setting, is_kept, start, masked=masked if left != rows else None)

    def scores(self, setting: Setting, rows: Sequence[EncodedRow]) -> list[FloatArray]:
        """By how many nats each answer token of each row is likelier to the degraded model."""
        bench, settings = setting.bench, setting.config.forget
        if self.steps is not None:
            settings = settings.model_copy(update={"max_steps": self.steps})
        unsafe = [pair.unsafe for pair in draw_pairs(setting, self.exemplars, self.pairs)]
        losses = [
            bench.token_losses(
                bench.train("prepared", own, settings, bench.base, phase), rows, f"tokens, {phase}"
            )
            for own, phase in ((setting.safe, "align"), (unsafe, "degrade"))
        ]
        return [trusted - degraded for trusted, degraded in zip(*losses, strict=True)]


def highest_of_all(scores: Sequence[FloatArray], share: float) -> list[BoolArray]:
    """Which tokens are among the highest ``share`` of all, whatever row they are in.

    So many tokens as the share comes to, rounded down; of equal ones the first.
    """
    every = np.concatenate([np.zeros(0), *scores])
    order = np.argsort(-every, kind="stable")[: int(share * len(every) + 1e-9)]
    is_highest = np.zeros(len(every), dtype=np.bool_)
    is_highest[order] = True
    ends = np.cumsum([len(own) for own in scores])
    return [np.asarray(part) for part in np.split(is_highest, ends[:-1])] if scores else []
