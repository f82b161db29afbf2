"""Tokens instead of rows: train on all rows without the tokens that were forgotten most."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.data.records import EncodedRow
from forgetfilter.lab.strategies.base import STRATEGIES
from forgetfilter.lab.strategies.forget_filter import ForgetFilterStrategy
from forgetfilter.model.state import ModelState
from forgetfilter.scoring.records import Selection
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.token_mask import check_maskable
from forgetfilter.screening.method import Setting, fine_tune

if TYPE_CHECKING:
    from forgetfilter.config import ScreenConfig


@STRATEGIES.add("token_mask")
class TokenMask(ForgetFilterStrategy):
    """Screen as `forget_filter` does, keep all rows, and mask tokens of those that it removes.

    What ``screen --action mask`` and ``finetune`` do; `scoring.token_mask` says which tokens.

    Args:
        signal: the forgetting signal; one that adds up over tokens.
        threshold: the threshold rule; where the settings name none either, the signal's own.
        steps: optimizer steps of the forgetting run, for signals that need one.
    """

    name = "token_mask"

    def check(self, config: ScreenConfig) -> None:
        """The signal says something of single tokens, and the threshold rule fits it."""
        super().check(config)
        check_maskable(self.signal or config.signal)

    def train(self, setting: Setting, selection: Selection | None, start: ModelState) -> ModelState:
        """Fine-tune ``start`` on all rows, without the loss of masked tokens.

        Raises:
            ConfigError: the signal says nothing of single tokens.
        """
        from forgetfilter.screening.annotations.token_forgetting import token_rises
        from forgetfilter.screening.deciding.masks import Rule, loss_mask

        if selection is None or selection.scores is None:
            raise ValueError("its own select step scores the rows")
        signal = self.signal or setting.config.signal
        check_maskable(signal)
        rule = Rule(selection.cut.value, SIGNALS.build(signal).unit)
        gone = np.flatnonzero(selection.is_removed).tolist()
        rises = token_rises(setting, self.scored(setting), [setting.noisy[at] for at in gone])
        rows: list[EncodedRow] = list(setting.noisy)
        for at, own in zip(gone, rises, strict=True):
            row, score = rows[at], float(selection.scores[at])
            rows[at] = replace(row, is_target=loss_mask(row, own, score, rule))
        left = [row for row in rows if row.target_tokens]
        return fine_tune(setting, ~selection.is_removed, start, masked=left if gone else None)
