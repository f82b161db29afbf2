"""How far a second opinion and the forgetting scores agree on the rows of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.runs.file_names import SCORES_FILE
from forgetfilter.runs.parquet_parts import names_in, read_column
from forgetfilter.runs.schema import Opinion
from forgetfilter.scoring.records import Readings
from forgetfilter.scoring.thresholds import THRESHOLDS, decide


def agreement(
    run: Path, readings: Readings, summary: Mapping[str, Any], threshold: str
) -> dict[str, Any]:
    """What the summary says of a second opinion; nothing where there is none.

    A row is suspected by its forgetting where ``threshold`` alone, without a joint weight, would
    remove it, and by the second opinion where that is above `Opinion.above`.
    """
    path = run / SCORES_FILE
    if not summary.get("second_opinion") or "second_opinion" not in names_in(path):
        return {}
    opinion = Opinion.model_validate(summary["second_opinion"])
    forgetting = read_column(path, "forgetting_score")[readings.row]
    second = read_column(path, "second_opinion")[readings.row]
    judges_learned = bool(summary.get("needs_learned", True))
    alone = decide(THRESHOLDS.build(threshold), forgetting, readings, needs_learned=judges_learned)
    ours, theirs = alone.is_removed, second > opinion.above
    cut = float(alone.cut.value)
    told = {
        "above": opinion.above,
        "cut": cut if np.isfinite(cut) else None,
        "both": int(np.sum(ours & theirs)),
        "only_forgetting": int(np.sum(ours & ~theirs)),
        "only_second_opinion": int(np.sum(theirs & ~ours)),
        "neither": int(np.sum(~ours & ~theirs)),
    }
    return {"second_opinion": {**opinion.as_json(), **told}}
