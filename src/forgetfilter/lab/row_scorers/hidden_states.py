"""Hidden states of rows in the model as given, which several scorers compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray

if TYPE_CHECKING:
    from forgetfilter.data.records import EncodedRow
    from forgetfilter.lab.row_scorers.base import Given

Place = Literal["last", "answer", "prompt_end"]
"""The row's last token; the mean over its completion tokens; the last token before its answer."""


def hidden_states(
    given: Given,
    rows: Sequence[EncodedRow],
    places: Sequence[Place],
    layers: Sequence[int] | None = None,
) -> list[FloatArray]:
    """Hidden states of ``rows`` at each of ``places``, each of shape (N, layers, H).

    Args:
        given: whose base model is read, and where the passes are counted.
        rows: what is read, once whatever the number of places.
        places: at which tokens.
        layers: which hidden states, 0 being the embedding and -1 the last layer; all where not
            given.
    """
    import torch

    from forgetfilter.model.forward import pass_inputs, row_batches

    model = given.bench.model.to_read(given.bench.base)
    found: list[list[Any]] = [[None] * len(rows) for _ in places]
    given.passes.read(len(rows))
    with torch.no_grad():
        for batch in row_batches(model, rows, given.bench.max_batch_tokens):
            inputs = pass_inputs(model, batch)
            if "logits_to_keep" in inputs:
                inputs["logits_to_keep"] = 1  # none is wanted
            states = model(**inputs, output_hidden_states=True).hidden_states
            kept = states if layers is None else [states[at] for at in layers]
            table = torch.stack([own.float() for own in kept], dim=2)  # (B, T, layers, H)
            for position, index in enumerate(batch.indices):
                for own, place in zip(found, places, strict=True):
                    at = torch.tensor(_tokens(rows[index], place), device=table.device)
                    own[index] = table[position, at].mean(dim=0).cpu().numpy()
    return [np.stack(own).astype(np.float64) for own in found]


def _tokens(row: EncodedRow, place: Place) -> IntArray:
    """The tokens of a row that a place means."""
    if place == "last":
        return np.array([len(row.input_ids) - 1])
    if place == "prompt_end":
        return np.array([max(0, row.prompt_length - 1)])
    return np.flatnonzero(row.is_target)


def unit(vectors: FloatArray) -> FloatArray:
    """``vectors`` at length 1 along the last axis; what has no length stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
