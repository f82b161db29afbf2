"""Which tokens of a removed row carry no loss, so that the rest of it can be trained on."""

from __future__ import annotations

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN, NATS_PER_TOKEN, SIGNALS

MASKED_UNITS = frozenset({NATS_PER_ROOT_TOKEN, NATS_PER_TOKEN})
"""Units of scores that add up over tokens, so that a threshold says something of one token."""
_LATER = frozenset({"forgotten", "restored", "early_restored"})


def check_maskable(signal: str) -> None:
    """Refuse to mask tokens by a signal that says nothing of single tokens.

    Raises:
        ConfigError: it doesn't: its model is never turned back, or its unit is another.
    """
    built = SIGNALS.build(signal)
    if built.unit not in MASKED_UNITS or not any(probe.state in _LATER for probe in built.probes):
        raise ConfigError(
            f"--action mask needs a signal that adds up over the tokens of a row, and {signal!r} "
            f"is in {built.unit}. Expected one in {' or '.join(sorted(MASKED_UNITS))} whose model "
            "is turned back, such as crossfit. Use --signal crossfit, or another --action."
        )


def masked_tokens(
    rises: FloatArray, weights: FloatArray, score: float, cut: float, unit: str
) -> BoolArray:
    """The fewest tokens without which a removed row would not have been removed, shape (K,).

    First those that were forgotten, each by itself, as much as a row has to be: more than ``cut``.
    Then the most forgotten of the others, until what is left of the row's own evidence is not above
    the threshold, and has fallen by as much as the score was above it (half of a score may be that
    of rows alike, which no token of this one answers for). Tokens that were not forgotten go last,
    and only where all others were not enough.

    Args:
        rises: by how many nats each answer token was forgotten, shape (K,).
        weights: how much each counts in the score, shape (K,); see `EncodedRow.leading_weights`.
        score: the row's forgetting score.
        cut: the threshold.
        unit: of both; one of `MASKED_UNITS`.
    """
    order = np.argsort(-rises, kind="stable")
    rise, weight = rises[order], weights[order]
    # What the tokens from each place of the order on say together; 0 where none is left.
    if unit == NATS_PER_ROOT_TOKEN:
        scale = np.sqrt(_from_each(weight**2))
        left = _from_each(weight * rise) / np.where(scale > 0, scale, 1.0)
    else:
        left = _from_each(rise) / np.maximum(np.arange(len(rise), -1, -1), 1)
    wanted = min(cut, float(left[0]) - (score - cut))
    enough = np.flatnonzero(left <= wanted)
    count = int(enough[0]) if len(enough) else len(rise)
    count = max(count, int(np.count_nonzero(rises > cut)))
    is_masked = np.zeros(len(rises), dtype=np.bool_)
    is_masked[order[:count]] = True
    return is_masked


def _from_each(values: FloatArray) -> FloatArray:
    """Sums from each place to the end, and of nothing: shape (K + 1,)."""
    return np.append(np.cumsum(values[::-1])[::-1], 0.0)
