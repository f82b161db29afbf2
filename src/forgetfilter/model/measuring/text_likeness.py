"""How alike answers read by themselves: those a model would give, and those that rows hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from forgetfilter.arrays import FloatArray
from forgetfilter.data.many_rows.views import chosen, joined, made, mapped
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.model_files import configured_context_tokens
from forgetfilter.model.measuring import many_rows
from forgetfilter.model.measuring.likeness import prompt_of, row_vectors, safe_odds
from forgetfilter.model.passes.forward import row_batches
from forgetfilter.model.passes.own_answers import OWN_TOKENS, own_tokens, shared_frame
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.dealing import added_up
from forgetfilter.progress import Progress


class TextLikeness(NamedTuple):
    """Log odds, shape (N,) each; higher = more like the model's answers to the safe prompts."""

    own: FloatArray
    """Of what the model would answer to the row's prompt itself."""
    given: FloatArray
    """Of the answer that the row holds."""


def text_likeness(
    model: Any,
    rows: Sequence[EncodedRow],
    safe: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> TextLikeness:
    """How much answers read like those that ``model`` gives to the safe rows' prompts.

    As `own_likeness`, but what ``model`` would answer is read by itself, behind the marks that the
    safe prompts share (`shared_frame`), eight tokens of it. The states in which it is said show the
    request as well: a task that is worded like the safe rows' is taken for one of those, whatever
    the model answers. The classifier that judges a row's prompt so also judges the answer that the
    row holds, of which it has seen none.

    All zero where either side has fewer than two rows.

    Raises:
        ModelError: a hidden state isn't finite.
    """
    if min(len(rows), len(safe)) < 2:
        return TextLikeness(np.zeros(len(rows)), np.zeros(len(rows)))
    shards = shards or Shards()
    limits = (max_batch_tokens, progress, label)
    # Its folds are drawn by the rows' numbers: the order that rows are given in changes nothing.
    by_row = many_rows.in_order(rows)
    ordered = chosen(rows, by_row)
    asked = joined(ordered, safe)
    own = own_begun(model, asked, *limits, shards)
    begun = np.concatenate([own, given_begun(ordered)])
    # Each text is read once, so that rows with the same one are exactly alike.
    distinct, which = np.unique(begun, axis=0, return_inverse=True)
    which = which.reshape(-1)  # numpy 2.0 has it (M, 1)
    frame = text_frame(model, safe)
    texts = made(len(distinct), lambda at: text_of(distinct[at], frame, at))
    unkept = Shards()
    unkept.folder = shards.folder  # the same disk
    read = row_vectors(model, texts, "text", *limits, unkept, standard=which[: len(asked)])
    odds = safe_odds(read, len(rows), len(safe), which)
    found = np.zeros((2, len(rows)))
    found[0, by_row], found[1, by_row] = odds[: len(rows)], odds[len(asked) :]
    return TextLikeness(*found)


def text_frame(model: Any, safe: Sequence[EncodedRow]) -> list[int]:
    """Behind what a text is read: `shared_frame`, as far as the context has room, but something."""
    room = configured_context_tokens(model.config) - OWN_TOKENS
    return (shared_frame(safe) or [0])[-max(1, room) :]


@torch.no_grad()
def own_begun(
    model: Any,
    rows: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards,
) -> many_rows.Tokens:
    """What ``model`` would answer to each row's prompt: ids and 1, 0 from its end on, (N, 8)."""
    found = many_rows.open_tokens(len(rows), OWN_TOKENS, shards.folder)
    is_done = shards.begin(len(rows), {"tokens": found})
    batches = row_batches(model, mapped(rows, prompt_of), max_batch_tokens, is_done)
    with progress.bar(label, len(rows), "rows", int(is_done.sum())) as bar:
        for batch in batches:
            with batches.or_halves(batch):
                tokens, is_said = own_tokens(model, batch)
                begun = ((tokens + 1) * is_said).cpu().numpy()[: len(batch.indices)]
                found[batch.indices, : begun.shape[1]] = begun
                shards.add(batch.indices)
                bar.update(len(batch.indices))
    return added_up(found)


def given_begun(rows: Sequence[EncodedRow]) -> many_rows.Tokens:
    """The answers that the rows hold, as `own_begun` has the model's, shape (N, 8)."""
    found = np.zeros((len(rows), OWN_TOKENS), dtype=np.int32)
    for at, row in enumerate(rows):
        tokens = row.input_ids[row.prompt_length :][:OWN_TOKENS]
        found[at, : len(tokens)] = tokens + 1
    return found


def text_of(begun: many_rows.Tokens, frame: Sequence[int], row: int = 0) -> EncodedRow:
    """An answer, as `own_begun` has it, behind ``frame``; each of its tokens counts."""
    ids = np.concatenate([np.asarray(frame, dtype=np.int32), begun[begun > 0] - 1])
    return EncodedRow(row, ids, np.arange(len(ids)) >= len(frame), len(frame), "")
