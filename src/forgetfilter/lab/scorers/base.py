"""The registry of toxicity scorers; the protocol is `forgetfilter.safe.toxicity.ToxicityScorer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgetfilter.scoring.registry import Registry

if TYPE_CHECKING:
    from forgetfilter.safe.toxicity import ToxicityScorer

TOXICITY_SCORERS: Registry[ToxicityScorer] = Registry(
    "toxicity scorer", __package__, "forgetfilter.toxicity_scorers"
)
