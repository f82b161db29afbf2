"""Finished runs without a model: made-up scores, decided and written by the product's own code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conftest import write_rows
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data import read_rows
from forgetfilter.data.records import RejectedRow
from forgetfilter.files import sha256_file, write_json_atomic
from forgetfilter.runs import pending
from forgetfilter.runs.folder import RunFolder
from forgetfilter.scoring.records import Readings, SignalScores
from forgetfilter.screening.decide import commit_decision
from forgetfilter.screening.tables import score_frame, write_parquet, write_readings


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
    rows: Sequence[dict[str, Any]] | Sequence[bytes] | int = 20,
    *,
    threshold: str = "phi:0.5",
    action: str = "remove",
    unlearned: Sequence[int] = (),
    too_long: Sequence[int] = (),
) -> Path:
    """A finished run whose row ``i`` of ``n`` has the score ``i / n``: the last half is removed.

    Rows in ``unlearned`` can't be judged; those in ``too_long`` are rejected.
    """
    given = plain_rows(rows) if isinstance(rows, int) else rows
    source = run.parent / f"{run.name}-source.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    if given and isinstance(given[0], bytes):
        source.write_bytes(b"".join(bytes(line) + b"\n" for line in given))  # type: ignore[arg-type]
    else:
        write_rows(source, given)  # type: ignore[arg-type]
    folder = RunFolder(run)
    paths = {"noisy_data": str(source), "model": "made-up", "output_dir": str(run)}
    config = resolve(ScreenConfig, paths, {"signal": "restoration", "action": action})
    with folder.lock():
        folder.record(config.model_dump())
        folder.write_provenance({"inputs": {"noisy_data": sha256_file(source)}})
        part = pending.prepare(run)
        (part / "input.jsonl").write_bytes(source.read_bytes())
        file = read_rows(source)
        unfit = [
            RejectedRow(row.row, row.line, row.example_id, row.raw, "too long")
            for row in file.rows
            if row.row in too_long
        ]
        rejected = [*file.rejected, *unfit]
        scored = [row for row in file.rows if row.row not in too_long]
        numbers = np.array([row.row for row in scored], dtype=np.int64)
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
        frame = score_frame(file, rejected, readings, scores)
        write_parquet(part / "scores.parquet", frame)
        write_readings(part, frame, readings)
        write_json_atomic(part / "provenance.json", folder.provenance())
        summary = {
            "signal": "restoration",
            "unit": "nats per token",
            "decided_by": "screen",
            "model": "made-up",
            "noisy_data": str(source),
            "action": action,
            "stages": [],
            "findings": [],
        }
        commit_decision(run, summary, threshold, force=True)
    return run


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))
