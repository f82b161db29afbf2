"""How like the answers of rows are to those of rows that are known to be unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.measuring.comparing import Comparison, compare_rows
from forgetfilter.model.passes.shards import Shards
from forgetfilter.progress import Progress


def unsafe_likeness(
    model: Any,
    rows: Sequence[EncodedRow],
    known: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> FloatArray:
    """Each row's largest cosine with a row known to be unsafe, by their answers, shape (N,).

    Between 0 and 1, negative ones being 0; higher = more like an unsafe one, 1 = the same. The
    answers' vectors are those of `compare_rows`. After the representation matching of "What is in
    Your Safe Data?" (arXiv 2404.01099), which takes the last layer at the last token, as given;
    docs/second_opinion.md has what the other choice changes.
    """
    found = np.zeros(len(rows))

    def largest(vectors: FloatArray) -> Comparison:
        return lambda own: min(max(float((vectors @ own).max()), 0.0), 1.0)

    limits = (max_batch_tokens, progress, label, shards)
    compare_rows(model, rows, known, "answer", found, largest, *limits)
    return found
