"""The same rule as `auto`, for evidence whose spread does not depend on a row's length."""

from __future__ import annotations

from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN
from forgetfilter.scoring.thresholds.auto import Auto
from forgetfilter.scoring.thresholds.base import THRESHOLDS


@THRESHOLDS.add("valley")
class Valley(Auto):
    """Cut where fewest rows are, between evidence that is surely noise and one that surely is not.

    `auto` for scores in nats per root token. Its bounds were chosen on the choosing worlds and the
    bundled one; docs/lab/transfer.md has what came out on the others.

    Args:
        low: scores up to this are never removed, in nats per root token.
        high: scores above this are always removed, in nats per root token.
    """

    name = "valley"
    units = frozenset({NATS_PER_ROOT_TOKEN})

    def __init__(self, low: float = 0.3, high: float = 0.5) -> None:
        super().__init__(low, high)
