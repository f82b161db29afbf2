"""What the stages that a model makes are named by, beside settings and states."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from forgetfilter.data.records import EncodedRow

CODE_VERSION = 2
"""Part of every stage's key: raise it when a stage's content changes its meaning."""
RESTORE_VERSION = 2
"""The same for restorations alone; since 2 every kind of safe row is drawn by its share."""
LIKENESS_VERSION = 2
"""The same for what tells rows apart by hidden states; since 2 by other layers."""


def rows_digest(rows: Sequence[EncodedRow]) -> str:
    """sha256 of the tokens and targets of ``rows``, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.input_ids.astype(np.int64).tobytes())
        digest.update(np.packbits(row.is_target).tobytes())
        digest.update(f"{row.row}:{row.prompt_length};".encode())
    return digest.hexdigest()
