"""Forgetting, and what rows of the same kind show of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import Probe, Readings, SignalScores
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN, SIGNALS
from forgetfilter.scoring.signals.contradiction import Contradiction
from forgetfilter.scoring.signals.crossfit import Crossfit

_COUNTED, _MOST_COUNTED = 1.6, 1.2
"""Chosen with each other: with more, harmless rows that are like unsafe ones are removed."""
_VERSION = 2
"""Of what is done here; since 2 the run keeps the evidence, which tells how noisy it is."""
_EVIDENCE = {"crossfit": "crossfit", "contradiction": "contradiction:kinds=false"}


@SIGNALS.add("self_training")
class SelfTraining:
    """The scores of another signal, counted by how much a row is of a kind that is forgotten.

    What a restoration does to one row is noisy, most of all in real text, whose answers are learned
    one by one; what it does to all rows of a kind is not. So a classifier is trained on the file's
    own clearest rows: by how the base model represents prompts and answers it tells the fifth of
    the rows that ``evidence`` finds most forgotten from the half that it finds least forgotten
    (self-training: Yarowsky, *Unsupervised word sense disambiguation rivaling supervised methods*,
    1995; no label is read). Each row is judged by classifiers that were not trained on it.

    The score is that of ``evidence`` times 1.6 times the probability that the row is of the
    forgotten kind, at most 1.2: evidence counts more for a row like those that are forgotten most,
    and next to nothing for one unlike them. A row without any evidence of its own keeps a score of
    0, whatever it is like.

    docs/lab/transfer_real.md has what it finds on real text, and what on made-up worlds.

    Args:
        evidence: the signal whose scores are counted so, ``crossfit`` or ``contradiction``, which
            then counts no kinds itself. Its cut is taken too.

    Raises:
        ConfigError: ``evidence`` is another name.
    """

    name = "self_training"
    unit = NATS_PER_ROOT_TOKEN
    needs_learned = False
    version = 100 * _VERSION + 10 * Crossfit.version + Contradiction.version
    """Raised with that of either of the others, too."""

    def __init__(self, evidence: str = "crossfit") -> None:
        if evidence not in _EVIDENCE:
            raise ConfigError(
                f"self_training: evidence is {evidence!r}; expected crossfit or contradiction, for "
                "example self_training:evidence=contradiction."
            )
        self._signal = SIGNALS.build(_EVIDENCE[evidence])
        self.default_rule = self._signal.default_rule
        # Last: it is measured by what the others have told.
        kind = Probe("forgotten_likeness", "base", evidence=_EVIDENCE[evidence])
        self.probes = (*self._signal.probes, kind)

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        scores = self._signal.combine(readings)
        found = scores.forgetting_score
        noisy = found if scores.evidence is None else scores.evidence
        of_kind = 1 / (1 + np.exp(-readings["forgotten_likeness_base"]))
        counted = found * np.minimum(_MOST_COUNTED, _COUNTED * of_kind)
        return replace(scores, forgetting_score=counted, evidence=noisy)
