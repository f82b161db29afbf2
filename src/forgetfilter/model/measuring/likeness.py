"""How alike a model represents rows: the nearest answers, and requests like the safe rows'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forgetfilter.arrays import BoolArray, FloatArray, Int32Array, IntArray
from forgetfilter.data.many_rows.views import chosen, joined, mapped
from forgetfilter.data.records import EncodedRow
from forgetfilter.finite import check_finite
from forgetfilter.model.measuring import many_rows
from forgetfilter.model.passes.forward import RowBatch, pass_inputs, row_batches
from forgetfilter.model.passes.own_answers import own_states
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.dealing import added_up
from forgetfilter.model.processes.joining import together
from forgetfilter.progress import Bar, Progress

Part = Literal["answer", "prompt", "own", "text"]
"""Of a row: its last answer as it is predicted, what precedes that, what the model would answer
there itself; its last answer as it is read."""

_DIMENSIONS = 64
"""To which hidden states are projected, so that those of all rows fit in memory."""
_STANDARD_ROWS = 1000
"""Over so many rows the spread of each dimension is measured."""
_MAX_SIMILARITIES = 2**26
"""Similarities that are held at once, in numbers (256 MB)."""
_FOLDS = 5
_STRENGTH = 0.01
"""Inverse of the classifier's penalty: it has 64 dimensions, and may have few rows."""


def nearest_rows(
    model: Any,
    rows: Sequence[EncodedRow],
    count: int,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> Int32Array:
    """The rows whose answers ``model`` represents most alike, nearest first, shape (N, count).

    By the cosine between the rows' vectors (see `row_vectors`). Entries are positions in ``rows``;
    a row is never its own neighbour, unless there are fewer than ``count`` others: then it stands
    in for those that are missing.
    """
    vectors = row_vectors(model, rows, "answer", max_batch_tokens, progress, label, shards)
    for part in many_rows.parts_of(vectors):
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return _nearest(vectors, count)


def safe_likeness(
    model: Any,
    rows: Sequence[EncodedRow],
    safe: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
    part: Part = "prompt",
) -> FloatArray:
    """How much each row's prompt is like those of the safe rows, log odds, shape (N,).

    A logistic regression tells the prompts of ``safe`` from those of ``rows`` by their vectors (see
    `row_vectors`); each row is judged by one that was not fitted on it (five folds, fixed seed).
    Of more than 50,000 rows it is fitted on so many. Unsafe rows answer the requests that safe rows
    decline, so their prompts are taken for safe ones; learning from positive and unlabelled
    examples (Elkan and Noto, 2008). Higher = more like a safe row's. All zero where either side has
    fewer than two rows. Another ``part`` of the rows is compared in the same way.
    """
    if min(len(rows), len(safe)) < 2:
        return np.zeros(len(rows))
    # Its folds are drawn by the rows' numbers: the order that rows are given in changes nothing.
    by_row = many_rows.in_order(rows)
    ordered = joined(chosen(rows, by_row), safe)
    limits = (max_batch_tokens, progress, label, shards)
    vectors = row_vectors(model, ordered, part, *limits)
    found = np.zeros(len(rows))
    found[by_row] = safe_odds(vectors, len(rows), len(safe))[: len(rows)]
    return found


def safe_odds(
    vectors: many_rows.Vectors, rows: int, safe: int, places: IntArray | None = None
) -> FloatArray:
    """How much a classifier takes each row for a safe one, log odds; see `safe_likeness`.

    Args:
        vectors: shape (V, D).
        rows: how many noisy rows there are, at least 2; they come first.
        safe: how many safe ones, at least 2.
        places: where the rows' vectors are; see `many_rows.odds_by_folds`.

    Returns:
        Shape (M,), of all places.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=_STRENGTH, tol=1e-8, max_iter=1000)
    )
    folds = StratifiedKFold(min(_FOLDS, rows, safe), shuffle=True, random_state=0)
    is_safe = np.arange(rows + safe) >= rows
    return many_rows.odds_by_folds(classifier, folds, vectors, is_safe, places)


def own_likeness(
    model: Any,
    rows: Sequence[EncodedRow],
    safe: Sequence[EncodedRow],
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
) -> FloatArray:
    """How much what ``model`` would answer itself is like its answers to the safe rows' prompts.

    Log odds, shape (N,); as `safe_likeness`, by the states in which the model begins its own answer
    (see `own_states`) instead of the prompt's. Higher = more like an answer to a safe row's prompt:
    the model takes the request for one of those that the safe rows are about.
    """
    limits = (max_batch_tokens, progress, label, shards)
    return safe_likeness(model, rows, safe, *limits, part="own")


def row_vectors(
    model: Any,
    rows: Sequence[EncodedRow],
    part: Part,
    max_batch_tokens: int,
    progress: Progress,
    label: str,
    shards: Shards | None = None,
    dimensions: int = _DIMENSIONS,
    standard: IntArray | None = None,
) -> npt.NDArray[np.float32]:
    """What ``model`` makes of one part of each row, float32; many lie in a file.

    The mean hidden state over that part's tokens, of the layer two thirds of the way up and of the
    last one; each dimension standardised by a thousand of the rows, or of those at the places
    ``standard``, which may repeat; projected at random (fixed seed), which keeps angles (Johnson
    and Lindenstrauss, 1984) and takes 256 bytes a row with 64 dimensions.

    Returns:
        Shape (N, dimensions).

    Raises:
        ModelError: a hidden state isn't finite.
    """
    among = many_rows.in_order(rows) if standard is None else standard
    drawn = np.sort(np.random.default_rng(0).permutation(len(among))[:_STANDARD_ROWS])
    sample, repeated = np.unique(among[drawn], return_inverse=True)
    rest = np.setdiff1d(np.arange(len(rows)), sample)
    shards = shards or Shards()
    vectors = many_rows.open_vectors(len(rows), dimensions, shards.folder)
    is_done = shards.begin(len(rows), {"vectors": vectors})[rest]  # the sample is read each time
    with progress.bar(label, len(rows), "rows", int(is_done.sum())) as bar:
        own = [rows[int(at)] for at in sample]
        known = state_table(model, own, part, max_batch_tokens, bar)  # (up to 1,000, 2H)
        mean, spread = known[repeated].mean(axis=0), known[repeated].std(axis=0) + 1e-6
        projection = np.random.default_rng(0).normal(size=(known.shape[1], dimensions))
        vectors[sample] = (known - mean) / spread @ projection
        own = chosen(rows, rest)
        read = mean_states(model, own, part, max_batch_tokens, bar, is_done)
        for number, (index, values) in enumerate(read, start=1):
            vectors[rest[index]] = (values - mean) / spread @ projection
            shards.add([rest[index]])
            if not number % many_rows.PART_ROWS:
                many_rows.put_back(vectors)
        if together() is not None:
            vectors[rest] = added_up(vectors[rest])
    sums = [own.sum(axis=1) for own in many_rows.parts_of(vectors)]
    check_finite(np.concatenate(sums), "hidden state", label)
    return vectors


def state_table(
    model: Any,
    rows: Sequence[EncodedRow],
    part: Part,
    max_batch_tokens: int,
    bar: Bar,
) -> FloatArray:
    """`mean_states` of rows that fit in memory, in their order, shape (N, 2H)."""
    found = dict(mean_states(model, rows, part, max_batch_tokens, bar))
    width = 2 * model.get_output_embeddings().weight.shape[1]
    table = np.zeros((len(rows), next(iter(found.values())).shape[0] if found else width))
    for at, values in found.items():
        table[at] = values
    return added_up(table)


def _nearest(vectors: npt.NDArray[np.float32], count: int) -> Int32Array:
    """Positions of the ``count`` vectors with the largest inner products, shape (N, count)."""
    size = len(vectors)
    if size > many_rows.HELD_ROWS:
        return many_rows.nearest_of_many(vectors, count)
    found = np.repeat(np.arange(size, dtype=np.int32)[:, np.newaxis], count, axis=1)
    most = min(count, size - 1)
    block = max(1, _MAX_SIMILARITIES // size)
    for start in range(0, size if most else 0, block):
        near = vectors[start : start + block] @ vectors.T  # (block, N)
        own = np.arange(len(near))
        near[own, start + own] = -np.inf
        best = np.sort(np.argpartition(-near, most - 1, axis=1)[:, :most], axis=1)
        order = np.argsort(-np.take_along_axis(near, best, axis=1), axis=1, kind="stable")
        found[start : start + block, :most] = np.take_along_axis(best, order, axis=1)
    return found


@torch.no_grad()
def mean_states(
    model: Any,
    rows: Sequence[EncodedRow],
    part: Part,
    max_batch_tokens: int,
    bar: Bar,
    is_done: BoolArray | None = None,
) -> Iterator[tuple[int, FloatArray]]:
    """Position of each row, and its mean hidden states over ``part``, shape (2H,).

    First those of the layer two thirds of the way up, then those of the last one. Without batches
    of rows that all are done.
    """
    read = rows if part in ("answer", "text") else mapped(rows, prompt_of)
    batches = row_batches(model, read, max_batch_tokens, is_done)
    for batch in batches:
        with batches.or_halves(batch):
            layers, chosen_tokens = _states_of(model, batch, part)
            weights = chosen_tokens.float().unsqueeze(-1)  # (B, P, 1)
            means = (layers.float() * weights).sum(dim=1) / weights.sum(dim=1)  # (B, 2H)
            for position, index in enumerate(batch.indices):
                yield index, means[position].double().cpu().numpy()
            bar.update(len(batch.indices))


def _states_of(model: Any, batch: RowBatch, part: Part) -> tuple[Tensor, Tensor]:
    """Both layers at some positions of each row, (B, P, 2H), and which of them count, (B, P)."""
    if part == "own":
        states, is_said = own_states(model, batch)
        return _two_layers(states), is_said
    inputs = pass_inputs(model, batch)
    if "logits_to_keep" in inputs:
        inputs["logits_to_keep"] = 1  # none is wanted
    layers = _two_layers(model(**inputs, output_hidden_states=True).hidden_states)
    if part == "answer":  # where its tokens are predicted
        return layers[:, batch.positions], batch.predicts_target
    if part == "text":  # at the tokens themselves
        return layers[:, batch.positions + 1], batch.predicts_target
    return layers, batch.attention_mask


def _two_layers(states: Sequence[Tensor]) -> Tensor:
    """The layer two thirds of the way up and the last one, side by side, (B, T, 2H)."""
    return torch.cat([states[2 * (len(states) - 1) // 3], states[-1]], dim=-1)


def prompt_of(row: EncodedRow) -> EncodedRow:
    """What precedes the last answer; its first token at least."""
    ids = row.input_ids[: max(1, row.prompt_length)]
    return replace(row, input_ids=ids, is_target=np.zeros(len(ids), dtype=np.bool_))
