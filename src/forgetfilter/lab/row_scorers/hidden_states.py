"""Hidden states of rows in the model as given, which several scorers compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import FloatArray

if TYPE_CHECKING:
    from forgetfilter.data.records import EncodedRow
    from forgetfilter.lab.row_scorers.base import Given
    from forgetfilter.model.passes.hidden_states import Place


def hidden_states(
    given: Given,
    rows: Sequence[EncodedRow],
    places: Sequence[Place],
    layers: Sequence[int] | None = None,
) -> list[FloatArray]:
    """As `model.passes.hidden_states.hidden_states` in the base model, whose passes are counted."""
    from forgetfilter.model.passes import hidden_states as own

    given.passes.read(len(rows))
    model = given.bench.model.to_read(given.bench.base)
    return own.hidden_states(model, rows, places, given.bench.max_batch_tokens, layers)


def unit(vectors: FloatArray) -> FloatArray:
    """``vectors`` at length 1 along the last axis; what has no length stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
