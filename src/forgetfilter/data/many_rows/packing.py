"""Encoded rows as bytes: four a token, and a bit for whether it carries loss."""

from __future__ import annotations

import marshal

import numpy as np

from forgetfilter.data.records import EncodedRow


def packed(row: EncodedRow) -> bytes:
    """A row as bytes, for `unpacked` in the same process."""
    arrays = row.input_ids.tobytes(), np.packbits(row.is_target).tobytes()
    told = (row.prompt_length, row.target, row.category, row.unscored)
    return marshal.dumps((row.row, *arrays, *told))


def unpacked(data: bytes) -> EncodedRow:
    """The row again."""
    row, ids, bits, *told = marshal.loads(data)
    input_ids = np.frombuffer(ids, dtype=np.int32)
    is_target = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=len(input_ids))
    return EncodedRow(row, input_ids, is_target.astype(np.bool_), *told)
