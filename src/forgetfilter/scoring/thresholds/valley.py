"""A cut that rises with the noise of the scores, set in the emptiest place near it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import Cut, Readings
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN
from forgetfilter.scoring.thresholds.auto import emptiest_cut
from forgetfilter.scoring.thresholds.base import HARMLESS_AT_MOST, THRESHOLDS

_NOISE_QUANTILE = 0.25
"""Even where half of the rows are unsafe, the quarter nearest to zero is harmless."""
_SPREAD_QUANTILE = 0.9
"""Where few rows are unsafe, they are above it; where many are, it is theirs and binds nothing."""
_LEAST_SHARE = 0.25
"""How far the spread may bring ``least`` down: smaller scores are hardly evidence."""
_NARROWEST, _WIDEST = 0.8, 1.5
KEPT_AS_UNLIKE = "kept_as_unlike"
"""The note of how many rows are above the cut by the scores alone, and kept as another kind."""
_MOST_ESTIMATED = 0.02
"""Of the removed rows. Where the tail of the kept rows says more, it holds unsafe rows, and says
nothing of the others."""


@THRESHOLDS.add("valley")
class Valley:
    """Cut between evidence that is surely noise and evidence that surely is not.

    The more unsafe rows a file has, the more they disturb, and the further harmless rows move as
    well. So the cut is ``least`` where scores are as quiet as in a clean file, and grows with a
    power of their noise beyond ``quiet``, up to ``most``; the noise is the quantile 0.25 of the
    sizes of the scores, before `contradiction` and `self_training` count them more or less; and
    rows that `contradiction` counts less for being unlike those removed don't move it. Where half
    of the rows are unsafe, that quantile of all rows is the median of the harmless ones, which is
    twice as noisy; so with ``noise=kept`` it is the quarter of as many rows as don't stand out at
    the value that all of them ask for.

    In a file whose scores are nearly all small ``least`` is no more than ``spread`` times the size
    that nine tenths of them stay below, and falls to a quarter of itself at most.

    Within 0.8 to ``widest`` of this value it is set in the emptiest place (see `auto`); beyond 1.5
    times the value only up to ``most``. Where that is the upper end, rows thin out beyond it still,
    and the cut goes on up as long as they do, at most to ``reach`` times the value and to ``most``.

    Where many rows are unsafe they may make the noise themselves, and the value lies in the midst
    of them. So with ``hill`` it is set before the hill that they form: where a fifth of the rows or
    more lie above the range, their density rises in it, and the emptiest place lies beyond a
    twentieth of the rows, nothing beyond the top of that is looked at; and where rows thin out
    below the range still, the cut goes on down as long as they do, at most to where it would be
    without any noise.

    No label is read and no share of unsafe rows is assumed. There is no guarantee: the options and
    the range were chosen on made-up worlds and the choosing part of the real rows;
    docs/lab/transfer.md has on which, and what came out on others. The expected number of false
    removals carries the tail of the kept rows on beyond the cut; where that would be more than a
    fiftieth of the removed rows, unsafe and harmless rows are mingled there, and the rule says that
    it can't tell.

    Args:
        least: the smallest cut, in nats per root token.
        quiet: the noise up to which that is the cut, in nats per root token.
        growth: the power of the noise, 0 to 2: with 0.5 the cut grows with its square root.
        most: where the value stops growing, in nats per root token; the cut may be 1.5 times that.
        reach: how far it goes on where rows thin out, as a multiple of the value, at most to
            ``most``; at 1.5 not at all.
        spread: the most that ``least`` may be, in quantiles 0.9 of the sizes of the scores.
        noise: whose quarter is the noise: ``all`` rows', or that of the ``kept`` ones.
        widest: the upper end of the range, as a multiple of the value, 1.5 or more.
        hill: whether many rows that stand out are told from the noise that they make.

    Raises:
        ConfigError: one of them is out of its range.
    """

    name = "valley"
    units = frozenset({NATS_PER_ROOT_TOKEN})
    version = 5
    """Since 2 the cut follows the noise of the scores, since 3 their spread, since 4 a hill, which
    a few rows don't form since 5."""

    def __init__(
        self,
        least: float = 0.12,
        quiet: float = 0.003,
        growth: float = 0.5,
        most: float = math.inf,
        reach: float = _WIDEST,
        spread: float = math.inf,
        noise: Literal["all", "kept"] = "all",
        widest: float = _WIDEST,
        hill: bool = False,
    ) -> None:
        if not 0 < least < math.inf:
            raise ConfigError(
                f"valley: least is {least:g}; expected a positive number, for example "
                "valley:least=0.12."
            )
        if not 0 < quiet < math.inf:
            raise ConfigError(
                f"valley: quiet is {quiet:g}; expected a positive number, for example "
                "valley:quiet=0.003."
            )
        if not 0 <= growth <= 2:
            raise ConfigError(
                f"valley: growth is {growth:g}; expected 0 to 2, for example valley:growth=0.5."
            )
        if not most >= least:
            raise ConfigError(
                f"valley: most is {most:g}; expected no less than least, which is {least:g}, for "
                f"example valley:least={least:g},most={4 * least:g}."
            )
        if not _WIDEST <= reach < math.inf:
            raise ConfigError(
                f"valley: reach is {reach:g}; expected {_WIDEST:g} or more, for example "
                "valley:reach=2.5."
            )
        if not _WIDEST <= widest < math.inf:
            raise ConfigError(
                f"valley: widest is {widest:g}; expected {_WIDEST:g} or more, for example "
                "valley:widest=3."
            )
        if not spread > 0:
            raise ConfigError(
                f"valley: spread is {spread:g}; expected a positive number, for example "
                "valley:spread=10."
            )
        self.least, self.quiet, self.growth, self.most = least, quiet, growth, most
        self.reach, self.spread, self.noise = reach, spread, noise
        self.widest, self.hill = widest, hill

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """The emptiest place near the value that the noise of the scores asks for."""
        # Noise is that of the evidence, before it counts more or less.
        evidence = readings.uncounted(scores)[is_eligible]
        # Rows that are kept for being unlike the others must not move it.
        alone = readings.alone(scores)
        noise = _size(evidence, _NOISE_QUANTILE)
        wanted = self._wanted(noise, alone[is_eligible])
        if self.noise == "kept":
            kept = float(np.mean(alone[is_eligible] <= wanted)) if is_eligible.any() else 1.0
            noise = _size(evidence, _NOISE_QUANTILE * kept)
            wanted = self._wanted(noise, alone[is_eligible])
        high = max(_WIDEST * wanted, min(self.widest * wanted, self.most))
        limits = (_NARROWEST * wanted, high)
        reach = min(self.reach * wanted, self.most)
        is_open = is_eligible & ~readings.trusted
        floor = _NARROWEST * self._wanted(0.0, alone[is_eligible]) if self.hill else 0.0
        notes = {"noise": noise}
        cut = emptiest_cut(scores, is_eligible, *limits, notes, reach, alone, is_open, floor)
        removed = int(np.count_nonzero(is_open & (scores > cut.value)))
        spared = int(np.count_nonzero(is_open & (alone > cut.value))) - removed
        if spared:
            cut = replace(cut, notes={**cut.notes, KEPT_AS_UNLIKE: spared})
        if (cut.expected_false_removals or 0.0) > max(_MOST_ESTIMATED * removed, 1.0):
            notes = {name: told for name, told in cut.notes.items() if name != HARMLESS_AT_MOST}
            return replace(cut, expected_false_removals=None, lacks_estimate=True, notes=notes)
        return cut

    def _wanted(self, noise: float, scores: FloatArray) -> float:
        """The value near which it cuts, from the noise and from what most scores stay below."""
        least = self.least
        if math.isfinite(self.spread):
            size = _size(scores, _SPREAD_QUANTILE)
            least = min(least, max(self.spread * size, _LEAST_SHARE * least))
        return min(least * max(1.0, noise / self.quiet) ** self.growth, self.most)


def _size(scores: FloatArray, quantile: float) -> float:
    """A quantile of the sizes of some scores; 0 where there are none."""
    return float(np.quantile(np.abs(scores), quantile)) if len(scores) else 0.0
