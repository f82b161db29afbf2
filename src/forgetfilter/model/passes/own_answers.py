"""What a model would answer itself: its hidden states while it begins an answer, greedily."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from forgetfilter.model.loading.model_files import configured_context_tokens
from forgetfilter.model.passes.forward import RowBatch, stop_ids
from forgetfilter.model.processes.joining import together

OWN_TOKENS = 8
"""So many tokens settle what kind of answer it is: whether it complies, declines, does a task."""


@torch.no_grad()
def own_states(model: Any, batch: RowBatch) -> tuple[tuple[Tensor, ...], Tensor]:
    """The states at which ``model`` predicts the first tokens of its own answers.

    Every row of ``batch`` is a prompt; its answer is carried on greedily for eight tokens, or as
    far as the context reaches, and ends early at any end-of-turn mark, which counts.

    Returns:
        The hidden states of each layer, embeddings first, (B, P, H) with at most eight positions,
        and which of these belong to the answer, (B, P) bool.
    """
    lengths = batch.attention_mask.sum(dim=1, keepdim=True)  # (B, 1)
    longest = batch.input_ids.shape[1]
    places = torch.arange(longest, device=lengths.device)
    # Generation wants padding on the left.
    shifted = (places - (longest - lengths)) % longest  # (B, T)
    group = together()
    said = model.generate(
        input_ids=batch.input_ids.gather(1, shifted),
        attention_mask=batch.attention_mask.gather(1, shifted),
        max_new_tokens=max(1, min(OWN_TOKENS, configured_context_tokens(model.config) - longest)),
        return_dict_in_generate=True,
        output_hidden_states=True,
        synced_gpus=group is not None and group.is_parted,
    )
    tokens = said.sequences[:, longest:]  # (B, P)
    layers = zip(*said.hidden_states, strict=True)
    states = tuple(torch.cat([step[:, -1:] for step in own], dim=1) for own in layers)
    stops = torch.tensor(sorted(stop_ids(model)), device=tokens.device, dtype=tokens.dtype)
    is_stop = torch.isin(tokens, stops).int()
    return states, is_stop.cumsum(dim=1) - is_stop == 0
