"""Forgetting as three models see it, one of which has never seen the row."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import (
    HALVES,
    WHOLE,
    Probe,
    Readings,
    SignalScores,
    StateName,
)
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN, SIGNALS

_OF_NEIGHBOURS = 0.5
"""Share of a row's evidence that is its neighbours'."""
_ROWS_TOGETHER = 2**14
_UNLIKE = 0.3
"""What the evidence of the row counts whose prompt is least like those of the safe rows."""


@SIGNALS.add("crossfit")
class Crossfit:
    """The rise of a row's loss as safe behaviour is restored, in models that learned other rows.

    A model that has learned a row by heart loses it only with much else, so that its forgetting
    says little; and what one restoration happens to disturb is no evidence either. So there are
    three models: one learns all noisy rows, and two learn half of them each, parted at random.
    Each is restored to base's behaviour on the safe rows twice, from the end of its learn phase
    and from its early passes (as `restoration` does with the first), and every row is read in all
    of them: in one of the halves' models it was never trained on (cross-fitting: Chernozhukov et
    al., *Double/debiased machine learning*, 2018, doi 10.1111/ectj.12097).

    The evidence of one restoration is the rise of the row's loss summed over its tokens, each of
    which counts 5% less than the one before it (the first ones settle whether an answer complies),
    over the root of the sum of the squared weights, because noise adds up like that: *nats per root
    token*. Unsafe rows come in kinds, so half of a row's evidence is the mean over the four rows
    whose answers the base model represents most alike. The median of the six is taken, so that one
    model which was disturbed by chance does not move it. Neighbours lift a row by at most 0.09
    above its own median, or above 0, so that none is removed for what others are.

    Unsafe rows answer requests like those that the safe rows answer safely. So the score is that
    median times min(1, 0.3 + p), where p is the share of the noisy rows whose prompts are no more
    like the safe rows' than this one's, as the base model represents them: evidence counts in full
    for most rows, and down to 0.3 for those whose prompts are least like the safe rows'.

    What was learned much is given back much, safe behaviour or not: a terse answer to a harmless
    question, of which the base model says a sentence, gains most by learning, and loses most as
    base's behaviour comes back. With ``gain`` the evidence of a restoration counts in full for rows
    that gained up to so much by the training before it, and ``gain`` / its gain for others: for
    those it is the share of what was learned that is given back.

    A row need not be learned to be judged: what no model has learned has nothing to lose, and its
    score is near 0. docs/lab/transfer.md has what was compared with this.

    Args:
        gain: nats per root token, above 0. Infinite, as by default: all evidence counts in full.

    Raises:
        ConfigError: ``gain`` is not above 0.
    """

    name = "crossfit"
    unit = NATS_PER_ROOT_TOKEN
    default_rule = "valley"
    needs_learned = False
    lift = 0.09
    """Nats per root token that neighbours add at most: less than where `valley` cuts at the lowest,
    so that no row is removed for what others are."""
    version = 3
    """Since 2 first tokens count most, and half of the evidence is that of the rows most alike;
    since 3 neighbours add little to a row without evidence, and prompts count."""

    def __init__(self, gain: float = math.inf) -> None:
        if not gain > 0:
            raise ConfigError(
                f"crossfit: gain is {gain:g}; expected a number above 0, for example "
                "crossfit:gain=4."
            )
        self.gain = gain
        pairs: list[tuple[StateName, StateName]] = []
        for own in (WHOLE, *HALVES):
            pairs.append((own[0], own[2]))
            pairs.append((own[1], own[3]))
        self.pairs = tuple(pairs)
        states: list[StateName] = ["base", *(state for pair in pairs for state in pair)]
        alike = (Probe("neighbours", "base"), Probe("likeness", "base"))
        self.probes = (*(Probe("loss", state) for state in states), *alike)

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        own = np.empty((len(self.pairs), len(readings)))  # (6, N)
        for at, pair in enumerate(self.pairs):
            own[at] = self._evidence(readings, *pair)
        evidence = self._with_neighbours(own, readings.neighbours("base"))
        # What a reader is shown is of the one model that has learned all rows.
        is_early = own[1] > own[0]
        del own
        before, after = (
            np.where(is_early, readings.loss_mean(early), readings.loss_mean(late))
            for late, early in zip(*self.pairs[:2], strict=True)
        )
        return SignalScores(
            base=readings.loss_mean("base"),
            before=before,
            after=after,
            forgetting_score=evidence * self._counts(readings),
        )

    def _counts(self, readings: Readings) -> FloatArray:
        """How much the evidence of each row counts, shape (N,)."""
        return counted_by_rank(readings["likeness_base"], _UNLIKE)

    def _evidence(self, readings: Readings, earlier: StateName, later: StateName) -> FloatArray:
        """What one restoration says of every row, shape (N,)."""
        rise = readings[f"leading_loss_{later}"] - readings[f"leading_loss_{earlier}"]
        evidence: FloatArray = rise / readings["leading_scale"]
        if self.gain < math.inf:
            gained = readings["leading_loss_base"] - readings[f"leading_loss_{earlier}"]
            evidence *= self._share_given_back(readings, gained / readings["leading_scale"])
        return evidence

    def _with_neighbours(self, own: FloatArray, neighbours: npt.NDArray[np.int64]) -> FloatArray:
        """The evidence of each row and its neighbours, shape (N,); some thousand rows at a time.

        Args:
            own: what each restoration says of every row, shape (6, N).
            neighbours: positions of each row's most alike rows, shape (N, 4).
        """
        evidence = np.empty(own.shape[1])
        for start in range(0, len(evidence), _ROWS_TOGETHER):
            part = slice(start, start + _ROWS_TOGETHER)
            alike = own[:, neighbours[part]].mean(axis=2)
            each = (1 - _OF_NEIGHBOURS) * own[:, part] + _OF_NEIGHBOURS * alike
            most = np.maximum(self._together(own[:, part]), 0.0) + self.lift
            evidence[part] = np.minimum(self._together(each), most)
        return evidence

    def _together(self, each: FloatArray) -> FloatArray:
        """What the six restorations say together, shape (N,), of what each says, shape (6, N)."""
        together: FloatArray = np.median(each, axis=0)
        return together

    def _share_given_back(self, readings: Readings, gained: FloatArray) -> FloatArray:
        """What the evidence of rows counts that gained so much by the training before, shape (N,).

        Args:
            readings: of these rows.
            gained: nats per root token, shape (N,).
        """
        share: FloatArray = self.gain / np.maximum(gained, self.gain)
        return share


def counted_by_rank(likeness: FloatArray, least: float) -> FloatArray:
    """From ``least`` for the lowest up to 1 for the higher ones; shape (N,), as ``likeness``."""
    share = np.searchsorted(np.sort(likeness), likeness, side="right") / len(likeness)
    counts: FloatArray = np.minimum(1.0, least + share)
    return counts
