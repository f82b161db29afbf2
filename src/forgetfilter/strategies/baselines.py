"""The plainest strategy, against which all others are held."""

from __future__ import annotations

from forgetfilter.strategies.base import STRATEGIES, Strategy


@STRATEGIES.add("none")
class NoMeasure(Strategy):
    """Fine-tune on every row, as if nothing could be wrong with them."""

    name = "none"
