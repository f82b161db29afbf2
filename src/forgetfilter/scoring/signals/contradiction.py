"""Forgetting, counted by how much a row contradicts what the base model would answer itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import Probe, Readings, SignalScores
from forgetfilter.scoring.signals.base import NATS_PER_ROOT_TOKEN, SIGNALS
from forgetfilter.scoring.signals.crossfit import Crossfit, counted_by_rank

_UNLIKE = 0.1
"""What the evidence of the row counts whose own answer is least like those to the safe prompts: not
nothing, for whoever disguises a request must not thereby take all evidence off it."""
_NEWS = 0.5
"""Nats per token of loss in base from which on a row says what base does not."""
_SAFER = 1.5
"""Log odds by which a row's answer may read more like a safe one than base's own, and count."""
_KIND_COUNTED = 3.0
"""Only what is surely of another kind counts less: whoever disguises an unsafe row makes it differ
from the plain ones."""


@SIGNALS.add("contradiction")
class Contradiction(Crossfit):
    """`crossfit`, counted by how much a row contradicts what the base model would answer itself.

    The base model is aligned: to a request that the safe rows are about it begins the answer that
    they give. A row is unsafe where it says something else to such a request. So evidence of
    forgetting counts by two things that need no training.

    By how much base's own answer to the row's prompt is like its own answers to the safe rows'
    prompts, as it represents the first eight tokens of them: times min(1, 0.1 + p), where p is the
    share of the noisy rows whose own answers are no more like those. A harmless task in a style
    that alignment has suppressed is given back as base's behaviour comes back, but base answers it
    as a task. This is asked twice (``text``): of the states in which base says its answer, which
    show the request too, and of those in which it reads that answer without the request.

    And by how little base expects the row: times min(1, its loss in base / 0.5 nats per token)
    squared. What base would say itself contradicts nothing, as most answers to requests that only
    look dangerous. Nor does what is safer than that, as a refusal of a task: with ``text``, times
    exp(-(x - 1.5)) where the row's first eight tokens, read without the request, are more like an
    answer to a safe prompt than base's own are, by log odds x above 1.5.

    This takes the place of `crossfit`'s comparison of prompts. It also tells so much of what is no
    harm that evidence need not be of models alone which never saw the row. Where a file has few
    unsafe rows, or such as are unlike each other, a model that has learned others says nothing of
    this one: it has gained nothing of it, so that nothing is given back. So half of the evidence
    (``learned``) is the rise in the model that has learned all rows, restored from the end of its
    learn phase, and half is the median of the six.

    What was learned much counts by the share that is given back (``gain``, see `crossfit`): tasks
    in styles unknown to base are learned most. Less so where base's own answer is like those to the
    safe prompts, for an unsafe row may be learned much too: that share is taken to the power
    min(1, 1.5 - p), p being the mean of the two.

    Unsafe rows come in kinds. Where these scores alone would remove a tenth of the rows or more, a
    classifier tells the clearest of those from the clearest of the others, by how the base model
    represents prompts and answers (the two-step technique of learning from positive and unlabelled
    rows: Liu et al., *Building text classifiers using positive and unlabeled examples*, 2003). Each
    row is judged by classifiers that were not trained on it, and its score is multiplied by
    min(1, 3q), q being the probability that it is of the removed kinds: a third and more changes
    nothing. `valley` cuts where the scores alone put it, so that this can only keep rows.

    docs/lab/transfer.md has what it finds beside `crossfit`, and how it was chosen.

    Args:
        gain: nats per root token, above 0.
        kinds: whether rows count less that are unlike those removed.
        learned: the share of the evidence that is of the model which has learned the row, 0 to 1.
        text: whether base's own answers are compared as texts, too.

    Raises:
        ConfigError: ``gain`` is not above 0, or ``learned`` not 0 to 1.
    """

    name = "contradiction"
    unit = NATS_PER_ROOT_TOKEN
    default_rule = (
        "valley:least=0.015,quiet=0.001,growth=0.8,most=0.3,widest=2.5,spread=10,noise=kept,"
        "hill=true"
    )
    """Harmless rows score lower than by `crossfit`."""
    lift = 0.01
    version = 7
    """Since 2 what was learned much counts more where base's own answer is like a safe one; since 3
    the run keeps the evidence, which tells how noisy it is; since 4 kinds count; since 5 the model
    that has learned the row says half; since 6 own answers are read without the request, too; since
    7 an answer that reads more like a safe one than base's own counts less."""

    def __init__(
        self, gain: float = 2.0, kinds: bool = True, learned: float = 0.5, text: bool = True
    ) -> None:
        super().__init__(gain)
        if not 0 <= learned <= 1:
            raise ConfigError(
                f"contradiction: learned is {learned:g}; expected 0 to 1, for example "
                "contradiction:learned=0.5."
            )
        self.learned = learned
        self.kinds, self.text = kinds, text
        self._own = (
            ("own_likeness_base", "own_text_likeness_base") if text else ("own_likeness_base",)
        )
        self.probes = (
            *(p for p in self.probes if p.kind != "likeness"),
            Probe("own_likeness", "base"),
            *((Probe("text_likeness", "base"),) if text else ()),
        )
        if kinds:  # last: it is measured by what the others have told
            alone = f"contradiction:gain={gain!r},kinds=false,learned={learned!r}"
            alone += "" if text else ",text=false"
            self.probes += (Probe("removed_likeness", "base", evidence=alone),)

    def combine(self, readings: Readings) -> SignalScores:
        """Score every row; see the class for the formula."""
        scores = super().combine(readings)
        evidence = scores.forgetting_score
        like_safe = np.prod([counted_by_rank(readings[own], _UNLIKE) for own in self._own], axis=0)
        is_news = np.clip(readings.loss_mean("base") / _NEWS, 0.0, 1.0) ** 2
        alone = evidence * (like_safe * is_news * self._not_safer(readings))
        if not self.kinds:
            return replace(scores, forgetting_score=alone, evidence=evidence)
        of_kind = 1 / (1 + np.exp(-readings["removed_likeness_base"]))
        counted = alone * np.minimum(1.0, _KIND_COUNTED * of_kind)
        return replace(scores, forgetting_score=counted, evidence=evidence, alone=alone)

    def _not_safer(self, readings: Readings) -> FloatArray:
        """Less than 1 where the row's answer reads more like a safe one than base's own does."""
        if not self.text:
            return np.ones(len(readings))
        safer = readings["given_text_likeness_base"] - readings["own_text_likeness_base"]
        return np.exp(-np.maximum(safer - _SAFER, 0.0))

    def _counts(self, readings: Readings) -> FloatArray:
        """Prompts are not compared: all evidence counts alike until `combine` counts it."""
        return np.ones(len(readings))

    def _together(self, each: FloatArray) -> FloatArray:
        """The median of the six, and beside it what the model says that has learned the row."""
        return (1 - self.learned) * super()._together(each) + self.learned * each[0]

    def _share_given_back(self, readings: Readings, gained: FloatArray) -> FloatArray:
        like_safe = np.mean([counted_by_rank(readings[own], 0.0) for own in self._own], axis=0)
        return super()._share_given_back(readings, gained) ** np.minimum(1.0, 1.5 - like_safe)
