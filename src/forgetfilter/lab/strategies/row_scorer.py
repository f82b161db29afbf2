"""Any row scorer as a filter: its most suspicious rows are removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.errors import ConfigError
from forgetfilter.lab.row_scorers.base import (
    Given,
    RowScorer,
    RowScores,
    build_scorer,
    lowest_first,
)
from forgetfilter.lab.strategies.base import STRATEGIES, Strategy
from forgetfilter.lab.strategies.exemplars import PACKAGED, draw_pairs
from forgetfilter.model.stages.keys import CODE_VERSION, rows_digest
from forgetfilter.model.stages.phases import TRAINING_FILE, row_passes
from forgetfilter.scoring.formulas import formulas_named
from forgetfilter.scoring.records import Cut, Selection
from forgetfilter.screening.method import Setting

if TYPE_CHECKING:
    from forgetfilter.config import ScreenConfig
    from forgetfilter.data.records import EncodedRow

_SCORES = "scores.json"
_ELSEWHERE = ("output_dir", "noisy_data", "safe_data", "reference_data", "threshold", "action")
"""Settings that no score depends on; the rows themselves are named by their contents."""


def made_with(scorer: RowScorer) -> str:
    """The sha256 of all that a scorer was made with: its options, what it read, a guard's model."""
    from forgetfilter.model.loading.model_files import model_fingerprint

    def plain(value: Any) -> Any:
        return vars(value) if hasattr(value, "__dict__") else repr(value)

    told = json.dumps(vars(scorer), sort_keys=True, default=plain)
    guard = model_fingerprint(str(vars(scorer)["path"])) if scorer.needs.guard else ""
    return hashlib.sha256(f"{told} {guard}".encode()).hexdigest()


def _within(scorer: RowScorer) -> Sequence[RowScorer]:
    """The scorers that one joins."""
    return getattr(scorer, "scorers", ())


@STRATEGIES.add("row_scorer")
class RowScorerStrategy(Strategy):
    """Remove the share of rows that a row scorer finds the most suspicious, and tune on the rest.

    Scorers rank rows and know no threshold, so the share is given: ``row_scorer:scorer=base_loss,
    share=0.1``. A scorer with options stands in double quotes. A row that it can't judge is kept.

    Args:
        scorer: name and options of a row scorer.
        share: of the rows that are removed, rounded, but at least one row; above 0 and below 1.
        exemplars: a JSONL file of rows known to be bad, for scorers that need some, of which they
            take the first ones; none of them may be a noisy row. Or ``testbed``: the unsafe answers
            that other strategies draw from the bundled world.
    """

    name = "row_scorer"

    def __init__(
        self, scorer: str = "base_loss", share: float = 0.1, exemplars: str | None = None
    ) -> None:
        if not 0 < share < 1:
            raise ConfigError(
                f"row_scorer: share is {share:g}; expected more than 0 and less than 1, for "
                "example row_scorer:scorer=base_loss,share=0.1"
            )
        self.scorer, self.share, self.exemplars = build_scorer(scorer), share, exemplars
        self.spec = scorer

    def check(self, config: ScreenConfig) -> None:
        """The exemplars that the scorer needs are given."""
        wanted = self.scorer.needs.exemplars
        if wanted and self.exemplars is None:
            raise ConfigError(
                f"row_scorer: {self.scorer.name} needs {wanted} exemplars. Expected a file of rows "
                f"known to be bad. Add exemplars=FILE.jsonl, or exemplars={PACKAGED} for the "
                "bundled world's, to the strategy's options."
            )
        if self.exemplars not in (None, PACKAGED) and not Path(self.exemplars).is_file():
            raise ConfigError(
                f"row_scorer: there is no file {self.exemplars!r}. Expected a JSONL file of rows "
                f"known to be bad, or {PACKAGED!r}. Mend the path after exemplars="
            )

    def select(self, setting: Setting) -> Selection:
        """Score, and remove the top."""
        found = self._scores(setting)
        scores = lowest_first(found)
        is_judged = np.array([score is not None for score in found])
        count = min(max(1, round(self.share * len(scores))), int(is_judged.sum()))
        top = np.argsort(-scores, kind="stable")[:count]
        is_removed = np.zeros(len(scores), dtype=np.bool_)
        is_removed[top] = True
        # The rows that are kept begin at this score; of equal ones the first in the file go.
        cut = Cut(float(scores[is_removed].min()) if count else float("inf"), fixes_share=True)
        reasons = [
            "above_threshold" if gone else "below_threshold" if has else "not_judged"
            for gone, has in zip(is_removed, is_judged, strict=True)
        ]
        return Selection(cut, is_removed, reasons, scores)

    def _scores(self, setting: Setting) -> RowScores:
        """The scores, as a stage: what they cost is counted, and they are there for a repetition.

        Its row passes are those that went back too, beyond those of the phases that it asked for.
        """
        bench, pool = setting.bench, self._pool(setting)
        scorers = (self.scorer, *_within(self.scorer))
        key = {
            "code": CODE_VERSION,
            "scorer": [self.spec, *map(made_with, scorers)],
            "model": bench.base.fingerprint,
            "rows": [rows_digest(rows) for rows in (setting.noisy, setting.safe, pool)],
            "settings": setting.config.model_dump(mode="json", exclude=set(_ELSEWHERE)),
            "seed": bench.seed,
            "formulas": formulas_named(self.spec, setting.config.signal),
            **bench.numerics(),
        }

        def build(folder: Path) -> None:
            given, before = Given(setting, pool), set(bench.store.counted())
            found = self.scorer.score(given)
            phases = row_passes(set(bench.store.counted()) - before)
            told = {"row_passes": max(0, given.passes.backward - phases)}
            (folder / TRAINING_FILE).write_text(json.dumps(told), encoding="utf-8")
            values = [None if score is None else float(score) for score in found]
            (folder / _SCORES).write_text(json.dumps(values), encoding="utf-8")

        folder = bench.store.stage("row_scores", key, build)
        found: RowScores = json.loads((folder / _SCORES).read_text(encoding="utf-8"))
        return found

    def _pool(self, setting: Setting) -> Sequence[EncodedRow]:
        from forgetfilter.data import read_rows

        if self.exemplars is None:
            return []
        if self.exemplars == PACKAGED:
            # Twice as many: one that is also a noisy row is passed over.
            pairs = draw_pairs(setting, PACKAGED, 2 * self.scorer.needs.exemplars)
            return [pair.unsafe for pair in pairs]
        return setting.bench.encoder.encode(read_rows(self.exemplars).rows)[0]
