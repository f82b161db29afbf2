"""The product's own signals as row scorers, through the product's own phases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetfilter.errors import ConfigError
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.scoring.signals import SIGNALS

if TYPE_CHECKING:
    from forgetfilter.screening.method import Scored, Setting


@ROW_SCORERS.add("forgetting")
class Forgetting:
    """A forgetting signal of the product: learn, bring safe behaviour back, and see what is lost.

    "Learning and Forgetting Unsafe Examples in Large Language Models" (arXiv 2312.12736) for
    ``rouge1``; each signal states its own formula. Phases and readings are stages, so that several
    signals on the same rows and seed learn once. ``forgetting:signal=completion_loss,steps=5``.

    Args:
        signal: the signal's name and options; the settings' own where not given.
        steps: optimizer steps of the forgetting run, for signals that need one.
    """

    name = "forgetting"
    needs = Needs(safe_rows=True)

    def __init__(self, signal: str | None = None, steps: int | None = None) -> None:
        if signal is not None:
            SIGNALS.check(signal)
        if steps is not None and steps < 1:
            raise ConfigError(
                f"forgetting: steps is {steps}; expected at least one, for example "
                "forgetting:signal=completion_loss,steps=5"
            )
        self.signal, self.steps = signal, steps

    def score(self, given: Given) -> RowScores:
        """The signal's forgetting scores."""
        from forgetfilter.screening.method import score_rows

        config = given.setting.config
        forget = config.forget
        if self.steps is not None:
            forget = forget.model_copy(update={"max_steps": self.steps})
        changes = {"signal": self.signal or config.signal, "forget": forget}
        setting = replace(given.setting, config=config.model_copy(update=changes))
        scored = score_rows(setting)
        _count(given, setting, scored)
        return judged(scored.scores.forgetting_score, self.name)


def _count(given: Given, setting: Setting, scored: Scored) -> None:
    """Count the passes of the phases behind ``scored``, whether they ran now or before."""
    from forgetfilter.model.stages.phases import RESTORING_FILE, TRAINING_FILE

    signal = SIGNALS.build(setting.config.signal)
    batch, restore_batch = setting.config.learn.batch_size, setting.config.restore.batch_size
    seen: set[str] = set()
    for state in scored.states.values():
        folder = Path(state.adapter or "").parent
        if state.adapter is None or str(folder) in seen:
            continue
        seen.add(str(folder))
        if (folder / TRAINING_FILE).is_file():
            report = json.loads((folder / TRAINING_FILE).read_text())
            given.passes.differentiated(int(report["steps"]) * min(batch, int(report["rows"])))
        elif (folder / RESTORING_FILE).is_file():
            steps = len(json.loads((folder / RESTORING_FILE).read_text())["moves"])
            rows = steps * min(restore_batch, len(setting.safe))
            given.passes.read(rows)  # base's own probabilities
            given.passes.differentiated(rows)
    for probe in {*signal.probes}:
        rows = len(setting.noisy)
        if probe.kind == "generation":
            given.passes.generated += rows
        elif probe.kind == "rate":
            given.passes.differentiated(rows + len(setting.safe))
        else:
            given.passes.read(rows)
