"""A cut with a stated rate of false removals, from rows that are known to be harmless."""

from __future__ import annotations

import math

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import TRUSTED, Cut, Readings
from forgetfilter.scoring.thresholds.base import ROWS_NEEDED, THRESHOLDS


@THRESHOLDS.add("conformal")
class Conformal:
    """Cut so that a harmless row goes with a probability of at most ``rate``.

    The rows of ``trusted_data`` are learned and scored with the others. Of n trusted rows that can
    be judged, a row's conformal p-value is the share, itself counted, that score as high as it:
    (1 + how many do) / (n + 1). Rows with a p-value of at most ``rate`` go. If a harmless row is
    drawn as the trusted ones are, its score is as likely to have any place among theirs, and so it
    goes with a probability of at most ``rate``, whatever the scores look like and however many
    unsafe rows there are ("Algorithmic Learning in a Random World", Vovk, Gammerman and Shafer,
    2005, chapter 2; for finding outliers Bates et al., "Testing for Outliers with Conformal
    p-values", Annals of Statistics 2023). Nothing is promised for harmless rows of a kind that the
    trusted ones lack.

    With fewer than 1 / rate - 1 trusted rows no p-value is that small, and nothing is removed.

    Args:
        rate: largest probability of removing a harmless row, above 0 and at most 0.5.
    """

    name = "conformal"
    units = None

    def __init__(self, rate: float = 0.01) -> None:
        if not 0 < rate <= 0.5:
            raise ConfigError(
                f"conformal: rate is {rate:g}; expected a probability above 0 and at most 0.5, "
                "for example conformal:rate=0.01."
            )
        self.rate = rate

    @property
    def rows_needed(self) -> int:
        """How many trusted rows there must be for any row to be removed."""
        return math.ceil(1 / self.rate - 1e-9) - 1

    def cut(self, scores: FloatArray, is_eligible: BoolArray, readings: Readings) -> Cut:
        """The score of the trusted row above which a p-value is at most the rate.

        Raises:
            ConfigError: there is no trusted row.
        """
        if TRUSTED not in readings:
            raise ConfigError(
                "The rule conformal compares rows with rows that are known to be harmless, and "
                "this run has none. Expected some. Screen with --trusted-data FILE, or name "
                "another rule."
            )
        trusted = readings.trusted
        known = np.sort(scores[is_eligible & trusted])[::-1]
        others = is_eligible & ~trusted
        place = math.floor(self.rate * (len(known) + 1) + 1e-9)
        notes = {"rate": self.rate, "trusted_rows": len(known)}
        if place < 1:
            highest = float(scores.max()) if len(scores) else 0.0
            told = {**notes, ROWS_NEEDED: self.rows_needed}
            return Cut(value=highest, lacks_estimate=True, notes=told)
        value = float(known[place - 1])
        above = int(np.count_nonzero(others & (scores > value)))
        harmless = int(np.count_nonzero(others)) - above
        share = place / (len(known) + 1)
        expected = min(float(above), harmless * share / (1 - share))
        return Cut(value=value, expected_false_removals=expected, notes=notes)
