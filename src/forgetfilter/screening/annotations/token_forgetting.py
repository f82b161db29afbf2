"""By how much each token of the removed rows was forgotten, kept for `--action mask`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import EncodedRow, RowFile
from forgetfilter.data.tokens.encoding import Place
from forgetfilter.files import write_bytes_atomic
from forgetfilter.model.state import ModelState
from forgetfilter.runs.file_names import TOKENS_FILE
from forgetfilter.scoring.records import HALVES, WHOLE
from forgetfilter.screening.method import Scored, Setting

_ROWS_TOGETHER = 5000


def write_tokens(
    run: Path, setting: Setting, scored: Scored, rows: RowFile, gone: BoolArray
) -> None:
    """Write ``tokens.parquet``: every readable row's tokens, and how the removed ones fared.

    Columns: ``row``, ``input_ids``, ``is_target``; and of each token that carries loss, where the
    row was removed: ``rises`` (nats, the median over the restorations that the signal reads),
    ``answers``, ``starts``, ``stops`` (which characters of which of the row's answers it holds;
    answer -1 where it holds none, as an end mark does; null where that can't be told).

    Args:
        run: where to write.
        setting: the rows and the workbench.
        scored: the scores.
        rows: the input, as it was read.
        gone: which of the setting's rows are removed, shape (N,).
    """
    chosen = np.flatnonzero(gone).tolist()
    own = [setting.noisy[at] for at in chosen]
    wanted = {row.row for row in own}
    places = setting.bench.encoder.target_places([r for r in rows.rows if r.row in wanted])
    rises = token_rises(setting, scored, own) if own else []
    told = dict(zip(chosen, zip(rises, places, strict=True), strict=True))
    buffer = io.BytesIO()
    _write(buffer, setting.noisy, told)
    write_bytes_atomic(run / TOKENS_FILE, buffer.getvalue())


def token_rises(setting: Setting, scored: Scored, rows: Sequence[EncodedRow]) -> list[FloatArray]:
    """The rise of the loss of each answer token, the median over all restorations, nats."""
    each: list[list[FloatArray]] = []
    for earlier, later in _pairs(scored):
        before, after = (
            setting.bench.token_losses(state, rows, f"tokens, {state.name}")
            for state in (earlier, later)
        )
        each.append([high - low for low, high in zip(before, after, strict=True)])
    return [np.median(np.stack(found), axis=0) for found in zip(*each, strict=True)]


def _pairs(scored: Scored) -> list[tuple[ModelState, ModelState]]:
    """The states between which the signal sees rows forgotten."""
    states = scored.states
    if "forgotten" in states:
        return [(states["learned"], states["forgotten"])]
    return [
        (states[own[at]], states[own[at + 2]])
        for own in (WHOLE, *HALVES)
        for at in (0, 1)
        if own[at] in states and own[at + 2] in states
    ]


def _write(
    target: Any,
    rows: Sequence[EncodedRow],
    told: dict[int, tuple[FloatArray, list[Place] | None]],
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    of_tokens = {"rises": pa.float32(), **dict.fromkeys(("answers", "starts", "stops"), pa.int32())}
    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("input_ids", pa.list_(pa.int32())),
            ("is_target", pa.list_(pa.bool_())),
            *((name, pa.list_(kind)) for name, kind in of_tokens.items()),
        ]
    )

    def columns(first: int, part: Sequence[EncodedRow]) -> Iterator[list[Any]]:
        yield [row.row for row in part]
        yield [row.input_ids for row in part]
        yield [row.is_target for row in part]
        found = [told.get(first + at) for at in range(len(part))]
        yield [None if own is None else own[0].astype(np.float32) for own in found]
        for k in range(3):
            yield [
                None if own is None or own[1] is None else [place[k] for place in own[1]]
                for own in found
            ]

    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for first in range(0, len(rows), _ROWS_TOGETHER):
            part = rows[first : first + _ROWS_TOGETHER]
            arrays = [
                pa.array(values, field.type)
                for values, field in zip(columns(first, part), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
