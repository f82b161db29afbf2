"""What a model would answer itself: its hidden states while it begins an answer, greedily."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.model_files import configured_context_tokens
from forgetfilter.model.passes.forward import RowBatch, stop_ids
from forgetfilter.model.processes.joining import together

OWN_TOKENS = 8
"""So many tokens settle what kind of answer it is: whether it complies, declines, does a task."""
_SHARED_BY = 0.9
"""Of the prompts: a few of another form must not change what all answers are read in."""


@torch.no_grad()
def own_states(model: Any, batch: RowBatch) -> tuple[tuple[Tensor, ...], Tensor]:
    """The states at which ``model`` predicts the first tokens of its own answers.

    Every row of ``batch`` is a prompt; its answer is carried on greedily for eight tokens, or as
    far as the context reaches, and ends early at any end-of-turn mark, which counts.

    Returns:
        The hidden states of each layer, embeddings first, (B, P, H) with at most eight positions,
        and which of these belong to the answer, (B, P) bool.
    """
    said, _, is_said = _begun(model, batch, output_hidden_states=True)
    layers = zip(*said.hidden_states, strict=True)
    return tuple(torch.cat([step[:, -1:] for step in own], dim=1) for own in layers), is_said


@torch.no_grad()
def own_tokens(model: Any, batch: RowBatch) -> tuple[Tensor, Tensor]:
    """The first tokens of the answers that `own_states` follows.

    Returns:
        The tokens, (B, P), and which of them belong to the answer, (B, P) bool.
    """
    _, tokens, is_said = _begun(model, batch)
    return tokens, is_said


def shared_frame(rows: Sequence[EncodedRow]) -> list[int]:
    """With which tokens nine tenths of the prompts of ``rows`` begin, and with which they end.

    Where a chat template was used, its marks: together an empty prompt.
    """
    prompts = [row.input_ids[: max(1, row.prompt_length)].tolist() for row in rows]
    needed = _SHARED_BY * len(prompts)
    start, alike = _shared(prompts, needed)
    end, _ = _shared([prompt[len(start) :][::-1] for prompt in alike], needed)
    return [*start, *reversed(end)]


def _shared(sequences: list[list[int]], needed: float) -> tuple[list[int], list[list[int]]]:
    """The tokens with which at least ``needed`` sequences begin, and those sequences."""
    begun: list[int] = []
    while True:
        at = len(begun)
        following = Counter(tokens[at] for tokens in sequences if len(tokens) > at)
        token, count = following.most_common(1)[0] if following else (0, 0)
        if not count or count < needed:
            return begun, sequences
        begun.append(token)
        sequences = [tokens for tokens in sequences if len(tokens) > at and tokens[at] == token]


def _begun(model: Any, batch: RowBatch, **wanted: bool) -> tuple[Any, Tensor, Tensor]:
    """What generation gave; the tokens of the answers begun, (B, P), and which of these count."""
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
        synced_gpus=group is not None and group.is_parted,
        **wanted,
    )
    tokens = said.sequences[:, longest:]  # (B, P)
    stops = torch.tensor(sorted(stop_ids(model)), device=tokens.device, dtype=tokens.dtype)
    is_stop = torch.isin(tokens, stops).int()
    return said, tokens, is_stop.cumsum(dim=1) - is_stop == 0
