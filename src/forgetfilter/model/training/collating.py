"""What the trainer is given: indices of rows, and tensors made of them when a step needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import LossOn
from forgetfilter.model.training.step_method import padded_inputs

PLACES = "places"
"""Name of the tensor that says which rows the others are of."""


def indices_of(features: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    """Which rows a step is about; the trainer counts what is called input_ids."""
    return {"input_ids": torch.tensor([[feature["index"]] for feature in features])}


@dataclass(frozen=True)
class Collator:
    """Makes tensors of the rows with these indices."""

    rows: Sequence[EncodedRow]
    loss_on: LossOn
    pad_token_id: int
    has_places: bool = False
    """Whether the tensors say which rows they are of, as `PLACES`, shape (B,)."""

    def __call__(self, features: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Padded tensors of the rows that the features name."""
        places = [feature["index"] for feature in features]
        rows = [self.rows[place] for place in places]
        inputs = padded_inputs(rows, self.loss_on, self.pad_token_id)
        return {**inputs, PLACES: torch.tensor(places)} if self.has_places else inputs
