"""Everything that is read of rows, computed by one process or by several together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np


def compute(folder: str) -> dict[str, Any]:
    """What each way of reading finds, on rows of random tokens, by name; texts and arrays."""
    import torch

    from forgetfilter.config import LoraSettings
    from forgetfilter.data.records import EncodedRow
    from forgetfilter.model.loading.adapters import add_adapter
    from forgetfilter.model.loading.base_model import (
        load_base_model,
        load_tokenizer,
        use_pure_greedy,
    )
    from forgetfilter.model.loading.placement import Placement
    from forgetfilter.model.measuring import divergence, forgotten_likeness, likeness, rates
    from forgetfilter.model.measuring.safe_neighbours import nearest_safe_rows
    from forgetfilter.model.measuring.unsafe_likeness import unsafe_likeness
    from forgetfilter.model.passes import forward
    from forgetfilter.progress import Progress

    silent = Progress(is_silent=True)
    draws = np.random.default_rng(0)
    rows = []
    for at in range(23):
        length = int(draws.integers(6, 40))
        tokens = draws.integers(10, 200, length)
        is_target = np.arange(length) >= length // 2
        rows.append(EncodedRow(at, tokens, is_target, length // 2, "", category="ab"[at % 2]))
    base = load_base_model(folder, Placement("cpu", torch.float32, ""))
    tokenizer = load_tokenizer(folder)
    use_pure_greedy(base, tokenizer)
    torch.manual_seed(0)
    model = add_adapter(base, LoraSettings(r=2, alpha=4, dropout=0, targets="all_linear"))
    weights = divergence.trainable_parameters(model)
    for weight in weights.values():
        torch.nn.init.normal_(weight, std=0.05)
    limits = (64, silent, "test")
    losses = forward.completion_losses(model, rows, *limits)
    gradient = divergence.safe_gradient(model, rows, "kl_to_base", *limits)
    prompts = [row.input_ids[: row.prompt_length] for row in rows]
    many = [replace(rows[at % 23], row=at) for at in range(46)]
    evidence = np.random.default_rng(1).normal(size=46)
    along = {name: torch.ones_like(weight) for name, weight in weights.items()}
    return {
        "loss_sum": losses.loss_sum,
        "greedy_match": losses.greedy_match,
        "leading_sum": losses.leading_sum,
        "token_losses": np.concatenate(forward.token_losses(model, rows, *limits)),
        "divergences": divergence.divergences(model, rows, *limits),
        "gradient": np.concatenate([g.numpy().ravel() for g in gradient.gradient.values()]),
        "objective": gradient.values,
        "rates": rates.loss_rates(model, rows, [along], *limits),
        "forgotten_likeness": forgotten_likeness.forgotten_likeness(model, many, evidence, *limits),
        "removed_likeness": forgotten_likeness.removed_likeness(
            model, many, evidence, 0.5, *limits
        ),
        "vectors": likeness.row_vectors(model, rows, "answer", *limits),
        "safe_neighbours": nearest_safe_rows(model, rows[:15], rows[15:], 2, *limits),
        "unsafe_likeness": unsafe_likeness(model, rows[:15], rows[15:], *limits),
        "texts": forward.greedy_generations(model, tokenizer, prompts, [3] * len(rows), *limits),
    }


def compute_together(folder: str, output: Path) -> list[list[int]]:
    """The same by all processes of a launch, each of which writes what it has found.

    Returns:
        The rows of each batch that this process has passed through the model.
    """
    import pickle

    from forgetfilter.model.passes import forward
    from forgetfilter.model.processes import joining

    group = joining.join()
    seen: list[list[int]] = []
    whole = forward.batch_of

    def noted(indices: list[int], *tensors: Any) -> Any:
        seen.append(list(indices))
        return whole(indices, *tensors)

    forward.batch_of = noted
    with joining.working():
        found = compute(folder)
        try:
            group.check_once(np.array([1.0, float(group.rank)]), "things")  # the first one twice
        except RuntimeError as error:
            found["refusal"] = str(error)
    Path(f"{output}{group.rank}").write_bytes(pickle.dumps((found, seen)))
    joining.leave()
    return seen
