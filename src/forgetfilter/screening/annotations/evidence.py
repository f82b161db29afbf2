"""Evidence for the rows that a report shows: what the model says, and which words it forgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import SharedTexts
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.state import ModelState
from forgetfilter.runs.file_names import EVIDENCE_FILE
from forgetfilter.runs.parquet_parts import write_parquet
from forgetfilter.runs.report.shown_rows import PIECES_SHOWN, rows_to_show
from forgetfilter.runs.schema import EVIDENCE_TEXTS
from forgetfilter.scoring.thresholds.base import NOT_LEARNED
from forgetfilter.screening.method import Scored, Setting, filter_rows


def write_evidence(run: Path, setting: Setting, scored: Scored) -> None:
    """Write ``evidence.parquet``, one line per row that the report shows.

    Columns: ``row``; ``earlier``, the state that it was held against (learned, or early in the
    learn phase); ``learned_text`` and ``forgotten_text``, greedy answers in that state and
    in the later one (forgotten or restored; null where the signal has none); ``pieces``, the
    texts of the answer's first tokens, and ``rises``, how many nats each lost between the two.
    """
    selection = filter_rows(scored, setting.config.threshold)
    # Rows that can't be judged are never shown as forgotten.
    is_judged = SharedTexts.of(selection.reasons) != NOT_LEARNED
    judged = np.where(is_judged, scored.cut_by, np.nan)
    shown = rows_to_show(judged, selection.cut.value)
    rows = [setting.noisy[i] for i in shown]
    told: list[dict[str, Any]] = [{"row": row.row} for row in rows]
    for earlier, later, chosen in _ends(scored, shown):
        own, places = [rows[at] for at in chosen], [shown[at] for at in chosen]
        columns: dict[str, Sequence[Any]] = {
            "earlier": [earlier.name] * len(own),
            "learned_text": _answers(setting, scored, earlier, places),
            "forgotten_text": [None] * len(own),
        }
        if later:
            columns["forgotten_text"] = _answers(setting, scored, later, places)
            encoder = setting.bench.encoder
            columns["pieces"] = [encoder.answer_pieces(row, PIECES_SHOWN) for row in own]
            columns["rises"] = _rises(setting, earlier, later, own)
        for name, values in columns.items():
            for at, value in zip(chosen, values, strict=True):
                told[at][name] = value
    always = ["row", *EVIDENCE_TEXTS]
    table = pd.DataFrame(told, columns=None if told else always)
    table["row"] = table["row"].astype(np.int64)
    write_parquet(run / EVIDENCE_FILE, table)


def _ends(
    scored: Scored, shown: Sequence[int]
) -> list[tuple[ModelState, ModelState | None, list[int]]]:
    """What is held against what, and for which places of ``shown``."""
    states, every = scored.states, list(range(len(shown)))
    later = states.get("forgotten") or states.get("restored")
    if "early_restored" not in states:
        return [(states["learned"], later, every)]
    # ``before`` is of the restoration by which a row was judged.
    before, readings = scored.scores.before, scored.readings
    early = (readings.loss_mean("early"), readings["loss_sum_early"])
    is_early = np.any([np.isclose(before, loss) for loss in early], axis=0)
    pairs = (
        (states["early"], states["early_restored"], [at for at in every if is_early[shown[at]]]),
        (states["learned"], later, [at for at in every if not is_early[shown[at]]]),
    )
    return [(earlier, after, chosen) for earlier, after, chosen in pairs if chosen]


def _answers(
    setting: Setting, scored: Scored, state: ModelState, shown: Sequence[int]
) -> list[str]:
    """Greedy answers to the shown rows' prompts; generated only if the signal has not done so."""
    column = f"generation_{state.name}"
    if column in scored.readings:
        return [str(text) for text in scored.readings[column][list(shown)]]
    rows = [setting.noisy[i] for i in shown]
    return setting.bench.answers(state, rows, f"evidence, {state.name}")


def _rises(
    setting: Setting, learned: ModelState, later: ModelState, rows: Sequence[EncodedRow]
) -> list[list[float]]:
    """Rise of the loss of the first tokens of the last answer, nats."""
    before, after = (
        setting.bench.token_losses(state, rows, f"evidence, words, {state.name}")
        for state in (learned, later)
    )
    rises: list[list[float]] = []
    for row, low, high in zip(rows, before, after, strict=True):
        earlier = int(row.is_target[: row.prompt_length].sum())
        rises.append([float(rise) for rise in (high - low)[earlier : earlier + PIECES_SHOWN]])
    return rises
