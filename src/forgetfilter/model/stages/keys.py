"""What the stages that a model makes are named by, beside settings and states."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from forgetfilter.data.many_rows.spilled import Spilled
from forgetfilter.data.records import EncodedRow

CODE_VERSION = 2
"""Part of every stage's key: raise it when a stage's content changes its meaning."""
RESTORE_VERSION = 2
"""The same for restorations alone; since 2 every kind of safe row is drawn by its share."""
LIKENESS_VERSION = 3
"""The same for what tells rows apart by hidden states; since 2 by other layers, since 3 by
classifiers that are fitted in double precision."""
FORGOTTEN_LIKENESS_VERSION = 2
"""The same for what is learned of the file's own clearest rows; since 2 of more of those that stand
out."""

_KNOWN: WeakKeyDictionary[Spilled[EncodedRow], str] = WeakKeyDictionary()


def rows_digest(rows: Sequence[EncodedRow]) -> str:
    """sha256 of the tokens and targets of ``rows``, in order."""
    if isinstance(rows, Spilled):  # which stay as they are; reading them all takes its time
        if rows not in _KNOWN:
            _KNOWN[rows] = _digest_of(rows)
        return _KNOWN[rows]
    return _digest_of(rows)


def _digest_of(rows: Sequence[EncodedRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.input_ids.astype(np.int64).tobytes())
        digest.update(np.packbits(row.is_target).tobytes())
        digest.update(f"{row.row}:{row.prompt_length};".encode())
    return digest.hexdigest()
