"""Hidden states of rows at places that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.passes.forward import pass_inputs, row_batches

Place = Literal["last", "answer", "prompt_end"]
"""The row's last token; the mean over its completion tokens; the last token before its answer."""


@torch.no_grad()
def hidden_states(
    model: Any,
    rows: Sequence[EncodedRow],
    places: Sequence[Place],
    max_batch_tokens: int,
    layers: Sequence[int] | None = None,
) -> list[FloatArray]:
    """Hidden states of ``rows`` at each of ``places``, each of shape (N, layers, H).

    Args:
        model: is read.
        rows: what is read, once whatever the number of places.
        places: at which tokens.
        max_batch_tokens: padded tokens of a pass.
        layers: which hidden states, 0 being the embedding and -1 the last layer; all where not
            given.
    """
    found: list[list[Any]] = [[None] * len(rows) for _ in places]
    for batch in row_batches(model, rows, max_batch_tokens):
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
