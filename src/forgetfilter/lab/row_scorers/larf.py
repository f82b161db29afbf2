"""LARF: nearness to unsafe answers, less nearness to refusals, at a safety-sensitive layer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.errors import ModelError
from forgetfilter.lab.row_scorers.base import ROW_SCORERS, Given, Needs, RowScores, judged
from forgetfilter.lab.row_scorers.hidden_states import hidden_states, unit

if TYPE_CHECKING:
    from forgetfilter.data.records import EncodedRow

FACTORS = (0.7, 0.8, 0.9, 1.1, 1.2, 1.3)
"""By which the weights of a layer are scaled in the search."""
_MOST = 100


@ROW_SCORERS.add("larf")
class Larf:
    """Mean of the largest differences: cosine with an unsafe answer, less that with a refusal.

    "Layer-Aware Representation Filtering: Purifying Finetuning Data to Preserve LLM Safety
    Alignment" (arXiv 2507.18631): the hidden state of a row's last token at the layer that safety
    hangs on most, compared with unsafe answers and refusals; the mean over the 100 largest of the
    pairs' differences. That layer is the one whose weights, scaled by 0.7 to 1.3, change most how
    the model refuses. Chosen here: the safe rows stand in for the refusals (unpaired, which changes
    nothing up to 100 of each), and the change is that of the safe answers' losses, because a
    generation for every layer and factor costs more than all else.

    Args:
        budget: exemplars, and as many safe rows.
        layer: from 0; searched for where not given.
        probes: safe rows that the search reads.
    """

    name = "larf"

    def __init__(self, budget: int = 20, layer: int | None = None, probes: int = 16) -> None:
        self.needs = Needs(safe_rows=True, exemplars=budget)
        self.layer, self.probes = layer, max(1, probes)

    def score(self, given: Given) -> RowScores:
        """The mean differences."""
        count = self.needs.exemplars
        safe, unsafe = given.few_safe(count), given.exemplars(count)
        layer = self.layer
        if layer is None:
            layer = sensitive_layer(given, given.few_safe(self.probes, "probes"))
        parts = (given.noisy, unsafe, safe)
        # The first hidden state is the embedding.
        states = [hidden_states(given, part, ["last"], [layer + 1])[0][:, 0] for part in parts]
        return judged(top_difference(*states), self.name)


def top_difference(rows: FloatArray, unsafe: FloatArray, safe: FloatArray) -> FloatArray:
    """Mean of each row's 100 largest ``cos(row, unsafe_j) - cos(row, safe_j)``, shape (N,)."""
    pairs = min(len(unsafe), len(safe))
    found = unit(rows) @ unit(unsafe[:pairs]).T - unit(rows) @ unit(safe[:pairs]).T
    return np.sort(found, axis=1)[:, -_MOST:].mean(axis=1)


def sensitive_layer(given: Given, probes: Sequence[EncodedRow]) -> int:
    """The layer whose scaling changes the losses of ``probes`` most, summed over `FACTORS`.

    Raises:
        ModelError: the model has no list of layers that is known here.
    """
    model = given.bench.model.in_state(given.bench.base)
    as_given = _losses(given, model, probes)
    changes: list[float] = []
    for layer in layers_of(model):
        change = 0.0
        for factor in FACTORS:
            with scaled(layer, factor):
                change += float(np.abs(_losses(given, model, probes) - as_given).mean())
        changes.append(change)
    return int(np.argmax(changes))


def layers_of(model: Any) -> list[Any]:
    """The decoder layers, in order."""
    import torch

    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise ModelError(
        f"{type(model).__name__} has no list of {count} layers, so that LARF can't search for one. "
        "Expected a decoder of layers. Name the layer: larf:layer=10"
    )


@contextmanager
def scaled(layer: Any, factor: float) -> Generator[None]:
    """Every weight matrix of a layer multiplied by ``factor`` while it lasts; then as before."""
    import torch

    weights = [own for own in layer.parameters() if own.ndim > 1]
    copies = [own.detach().clone() for own in weights]
    with torch.no_grad():
        for own in weights:
            own.mul_(factor)
        try:
            yield
        finally:
            for own, copy in zip(weights, copies, strict=True):
                own.copy_(copy)


def _losses(given: Given, model: Any, rows: Sequence[EncodedRow]) -> FloatArray:
    from forgetfilter.model.passes.forward import completion_losses
    from forgetfilter.progress import Progress

    given.passes.read(len(rows))
    limits = (given.bench.max_batch_tokens, Progress(is_silent=True), "larf")
    return completion_losses(model, rows, *limits).loss_sum
