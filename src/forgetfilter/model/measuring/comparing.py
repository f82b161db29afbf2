"""Each row held against a few known ones, by the hidden states of a part that they all have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.measuring.likeness import Part, mean_states, state_table
from forgetfilter.model.measuring.many_rows import in_order
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.dealing import added_up
from forgetfilter.model.processes.joining import together
from forgetfilter.progress import Bar, Progress

_STANDARD_ROWS = 1000
"""By so many rows the spread of each dimension is measured."""

Comparison = Callable[[FloatArray], Any]
"""From a row's vector, of length 1, shape (2H,), to what is kept of it."""


def compare_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    known: Sequence[EncodedRow],
    part: Part,
    found: Any,
    comparison: Callable[[FloatArray], Comparison],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> None:
    """Fill ``found`` with what ``comparison`` says of each row.

    The vectors are mean hidden states over ``part`` (see `mean_states`), standardised by up to
    1,000 of ``rows``, so that what all rows share (a template's marks) counts nothing, and brought
    to length 1. Those of ``known`` are held in memory; of the others one batch at a time.

    Args:
        model: is read.
        rows: what is compared.
        known: with what; they fit in memory.
        part: of rows and known ones alike.
        found: an entry for each row, all 0, the rows being its first axis.
        comparison: given the vectors of ``known``, shape (N, 2H), gives what judges a row's.
        max_batch_tokens: padded tokens of a pass.
        progress: where it reports.
        label: names the pass.
        shards: what it keeps on its way.

    Raises:
        ModelError: a hidden state isn't finite.
    """
    by_row = in_order(rows)
    drawn = np.sort(np.random.default_rng(0).permutation(len(rows))[:_STANDARD_ROWS])
    sample = by_row[drawn]
    rest = np.setdiff1d(by_row, sample)
    shards = shards or Shards()
    is_done = shards.begin(len(rows), {"nearest": found})[rest]  # the sample is read each time
    with progress.bar(label, len(rows) + len(known), "rows", int(is_done.sum())) as bar:
        own = [rows[int(at)] for at in sample]
        first = _table(model, own, part, max_batch_tokens, bar, label)
        mean, spread = first.mean(axis=0), first.std(axis=0) + 1e-6
        table = _table(model, known, part, max_batch_tokens, bar, label)
        judge = comparison(_unit((table - mean) / spread))
        for at, values in zip(sample, first, strict=True):
            found[at] = judge(_unit((values - mean) / spread))
        others = chosen(rows, rest)
        for at, values in mean_states(model, others, part, max_batch_tokens, bar, is_done):
            check_finite(values.sum(), "hidden state", label)
            found[rest[at]] = judge(_unit((values - mean) / spread))
            shards.add([rest[at]])
        if together() is not None:  # alone, no copy of all is made
            found[rest] = added_up(found[rest])


def _table(
    model: Any, rows: Sequence[EncodedRow], part: Part, max_batch_tokens: int, bar: Bar, label: str
) -> FloatArray:
    """`mean_states` of rows that fit in memory, shape (N, 2H)."""
    table = state_table(model, rows, part, max_batch_tokens, bar)
    check_finite(table.sum(axis=1), "hidden state", label)
    return table


def _unit(vectors: FloatArray) -> FloatArray:
    """Vectors of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
