"""The registry of toxicity scorers; the protocol is `forgetfilter.metrics.ToxicityScorer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgetfilter.registry import Registry

if TYPE_CHECKING:
    from forgetfilter.metrics import ToxicityScorer

TOXICITY_SCORERS: Registry[ToxicityScorer] = Registry(
    "toxicity scorer", __package__, "forgetfilter.toxicity_scorers"
)
