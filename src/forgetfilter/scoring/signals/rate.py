"""Forgetting as it begins: how fast a row's loss rises when the model turns back to safety."""

from __future__ import annotations

from typing import Literal

import numpy as np

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import Probe, Readings, SignalScores
from forgetfilter.scoring.signals.base import SIGNALS


@SIGNALS.add("rate")
class Rate:
    """Instantaneous forgetting: the rise of a row's loss along the safe direction.

    Let theta be the adapter after the learn phase, L(theta) an objective over the safe rows with
    gradient g, and l_i the completion loss of row i (nats, summed). While the model descends on L,
    row i's loss changes at the rate ``-<g, grad l_i>``: unsafe rows rise, safe rows fall, task rows
    hardly move, because the safe direction is nearly orthogonal to what tasks use. The score is
    that rate times the Polyak step ``L / |g|^2``, which would bring L to zero if it were linear:
    *nats that the row loses while the safe behaviour is restored*, to first order. The step makes
    the score independent of how the adapter is scaled, and where nothing has to be restored (L
    near 0) every score is near 0.

    No forgetting run, no generation and no gradient per row: one backward pass over the safe rows
    and one over the noisy ones, whatever the number of directions. ``-<g, grad l_i>`` is the
    gradient similarity of influence functions and LESS (arXiv 2402.04333), with the safe rows as
    targets and the sign turned, without their projection.

    It has no default rule: the score adds up over a row's tokens, so that a fixed number means
    another thing for a longer row, and none has been measured on more than one seed.

    Args:
        objective: ``kl_to_base``, the divergence of the learned model from the base model on the
            safe rows: zero in base, so that it measures only what learning has damaged; or
            ``completion_loss``, the safe rows' own loss.
        directions: groups of alike safe rows, each with its own direction; the score is the
            largest over them, so that a rare harm isn't averaged away.
    """

    name = "rate"
    unit = "nats lost while safe behaviour is restored"
    default_rule = None
    needs_learned = True

    def __init__(
        self,
        objective: Literal["kl_to_base", "completion_loss"] = "kl_to_base",
        directions: int = 8,
    ) -> None:
        if directions < 1:
            raise ConfigError(f"rate: directions is {directions}; expected at least 1.")
        self.probe = Probe("rate", "learned", objective, directions)
        self.probes = (Probe("loss", "base"), Probe("loss", "learned"), self.probe)

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        rates = [name for name in readings.columns if name.startswith(f"{self.probe.name}_")]
        steps = [name.replace("rate", "step", 1) for name in rates]
        restored = [readings[r] * readings[s] for r, s in zip(rates, steps, strict=True)]
        return SignalScores(
            base=readings.loss_mean("base"),
            before=readings.loss_mean("learned"),
            after=None,
            forgetting_score=np.max(restored, axis=0),
        )
