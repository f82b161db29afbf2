"""Finished runs without a model: made-up scores, decided and written by the product's own code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conftest import write_rows
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.formats import Reading
from forgetfilter.data.reading import fingerprint_of
from forgetfilter.data.records import RejectedRow
from forgetfilter.data.sources import open_sources
from forgetfilter.files import write_chunks_atomic, write_json_atomic
from forgetfilter.runs import pending
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.inputs import read_input, store_input
from forgetfilter.scoring.records import Readings, SignalScores
from forgetfilter.screening.deciding.asked_for import weight_of
from forgetfilter.screening.deciding.decide import commit_decision
from forgetfilter.screening.deciding.tables import write_readings, write_scores


def plain_rows(count: int) -> list[dict[str, Any]]:
    """Short distinct rows of three sources."""
    return [
        {
            "id": f"own-{i}",
            "source": ("forum", "shop", "wiki")[i % 3],
            "category": "bias" if i % 4 == 0 else "other",
            "messages": [
                {"role": "user", "content": f"Question number {i}?"},
                {"role": "assistant", "content": f"Answer number {i}."},
            ],
        }
        for i in range(count)
    ]


def make_run(
    run: Path,
    rows: Sequence[dict[str, Any]] | Sequence[bytes] | Sequence[Path] | Path | int = 20,
    *,
    threshold: str = "phi:0.5",
    action: str = "remove",
    unlearned: Sequence[int] = (),
    too_long: Sequence[int] = (),
    opinion: Sequence[float] | None = None,
    joint: float = 0.0,
) -> Path:
    """A finished run whose row ``i`` of ``n`` has the score ``i / n``: the last half is removed.

    Rows are dictionaries, lines, how many `plain_rows` there are, or files in any container. Those
    in ``unlearned`` can't be judged; those in ``too_long`` are rejected. With an ``opinion``, one
    for each scored row, the scores are those of `crossfit`, which judges all of them.
    """
    source = _files(run, rows)
    sources = open_sources(source)
    folder = RunFolder(run)
    paths = {"noisy_data": str(source), "model": "made-up", "output_dir": str(run)}
    signal = "restoration" if opinion is None else "crossfit"
    given = None if opinion is None else "words"
    asked = {"action": action, "signal": signal, "second_opinion": given, "joint": joint}
    config = resolve(ScreenConfig, paths, asked)
    with folder.lock():
        folder.record(config.model_dump())
        folder.write_provenance({"inputs": {"noisy_data": fingerprint_of(sources)}})
        part = pending.prepare(run)
        stored = store_input(run, part, sources, Reading(), write_chunks_atomic)
        file = replace(read_input(stored), sources=tuple(sources))
        unfit = [
            RejectedRow(row.row, row.line, row.example_id, row.raw, "too long")
            for row in file.rows
            if row.row in too_long
        ]
        rejected = [*file.rejected, *unfit]
        scored = (row.row for row in file.rows if row.row not in too_long)
        numbers = np.fromiter(scored, np.int64)
        ones = np.ones(len(numbers))
        readings = Readings(
            numbers,
            {
                "completion_tokens": np.full(len(numbers), 4),
                "prompt_tokens": np.full(len(numbers), 5),
                "loss_sum_base": 8 * ones,
                "loss_sum_learned": np.where(np.isin(numbers, list(unlearned)), 8.0, 1.0),
                "greedy_match_learned": np.zeros(len(numbers), dtype=np.bool_),
            },
        )
        scores = SignalScores(2 * ones, 0.25 * ones, ones, numbers / len(file))
        second = None if opinion is None else np.array(opinion, dtype=np.float64)
        rejected = sorted(rejected, key=lambda row: row.row)
        write_scores(part, file, rejected, readings, scores, second)
        write_readings(part, readings)
        write_json_atomic(part / "provenance.json", folder.provenance())
        summary: dict[str, Any] = {
            "signal": signal,
            "unit": "nats per token" if opinion is None else "nats per root token",
            "decided_by": "screen",
            "model": "made-up",
            "noisy_data": str(source),
            "action": action,
            "stages": [],
            "findings": [],
        }
        if opinion is not None:
            words = {"classifier": "words", "label": "toxicity", "fingerprint": "f"}
            summary |= {"second_opinion": words, "needs_learned": False, **weight_of(joint)}
        commit_decision(run, summary, threshold, force=True)
    return run


def _files(run: Path, rows: Any) -> Path | list[Path]:
    """The files that are screened, written where they don't exist yet."""
    if isinstance(rows, Path) or (isinstance(rows, list) and isinstance(rows[0], Path)):
        return rows
    source = run.parent / f"{run.name}-source.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    given = plain_rows(rows) if isinstance(rows, int) else rows
    if given and isinstance(given[0], bytes):
        source.write_bytes(b"".join(line + b"\n" for line in given))
    else:
        write_rows(source, given)
    return source


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))
