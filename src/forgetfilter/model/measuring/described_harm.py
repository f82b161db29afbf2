"""A harm named in words as a direction of hidden states, and how far each row's answer goes there.

After "Persona Vectors: Monitoring and Controlling Character Traits in Language Models" (arXiv
2507.21509): the model answers prompts once told to do what is described and once told not to; the
direction goes from the mean state over the answers of the second kind to that of the first. A row
is measured by the projection of the mean state over its answer, less that of the state before its
answer, which stands for the model's own answer: an approximation that spares a generation a row.
Chosen here: the texts that tell the model what to do stand in front of the prompt, since not every
template has a system turn; and the layer is the one whose direction, made from half of the
prompts, parts the answers to the other half best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import EncodedRow, Message
from forgetfilter.errors import DataError
from forgetfilter.finite import check_finite
from forgetfilter.model.passes.forward import greedy_generations
from forgetfilter.model.passes.hidden_states import hidden_states

if TYPE_CHECKING:
    from forgetfilter.model.workbench import Workbench

Contrast = tuple[str, str]
"""What tells the model to do what is described, and what tells it not to."""

PROMPTS = 16
"""So many prompts are answered at most, each twice for every contrast."""
_ANSWER_TOKENS = 32


@dataclass(frozen=True)
class HarmDirection:
    """The direction of what was described."""

    layer: int
    """Of the hidden states, 0 being the embedding."""
    along: FloatArray
    """At length 1, shape (H,)."""
    gap: float
    """How far the two kinds of answers lie apart along it."""
    told_apart: float
    """Share of the pairs of answers to prompts that it was not made from in which the one of the
    first kind lies further along it; 0.5 is chance."""
    pairs: int
    """How many pairs there are."""


def harm_direction(
    bench: Workbench, contrasts: Sequence[Contrast], prompts: Sequence[Sequence[Message]]
) -> HarmDirection:
    """The direction in the base model.

    Args:
        bench: has the model.
        contrasts: at least one.
        prompts: conversations before an answer; `PROMPTS` of them that leave room are used, from
            all over the sequence.

    Raises:
        DataError: not two of them leave room for an answer.
    """
    encoder = bench.encoder
    room = encoder.max_length_tokens - _ANSWER_TOKENS
    sides: tuple[list[list[int]], list[list[int]]] = ([], [])
    used = 0
    step = max(1, len(prompts) // PROMPTS)
    for at in sorted(range(len(prompts)), key=lambda at: (at % step != 0, at)):
        if used == PROMPTS:
            break
        told = [
            [encoder.encode_prompt(_told(prompts[at], text)) for text in one] for one in contrasts
        ]
        if all(len(ids) <= room for one in told for ids in one):
            used += 1
            for own, others in told:
                sides[0].append(own)
                sides[1].append(others)
    if used < 2:
        raise DataError(
            f"Of {len(prompts)} prompts of safe rows {used} leave room for what describes the harm "
            f"and an answer of {_ANSWER_TOKENS} tokens in {encoder.max_length_tokens}. Expected "
            "two at least. Describe it in fewer words, or add safe rows with short prompts."
        )
    model = bench.model.to_read(bench.base)
    answers = greedy_generations(
        model,
        bench.tokenizer,
        [*sides[0], *sides[1]],
        [_ANSWER_TOKENS] * (len(sides[0]) + len(sides[1])),
        bench.max_batch_tokens,
        bench.progress,
        "described harm",
    )
    rows = [
        _answered(bench, ids, text)
        for ids, text in zip((*sides[0], *sides[1]), answers, strict=True)
    ]
    (states,) = hidden_states(model, rows, ["answer"], bench.max_batch_tokens)
    half = len(sides[0])
    return direction_of(states[:half], states[half:], len(contrasts))


def direction_of(told: FloatArray, told_not: FloatArray, contrasts: int) -> HarmDirection:
    """The direction from the second states to the first, at the layer that parts them best.

    Args:
        told: states, (pairs, layers, H), of which each ``contrasts`` in a row belong to a prompt.
        told_not: the other one of each pair.
        contrasts: how many pairs each prompt has.
    """
    is_even = np.arange(len(told)) // contrasts % 2 == 0
    best: tuple[float, int, float] = (-np.inf, 0, 0.5)
    for layer in range(min(1, told.shape[1] - 1), told.shape[1]):
        first, second = told[:, layer], told_not[:, layer]
        apart = np.zeros(len(first))
        for own in (is_even, ~is_even):
            along = _unit((first[own] - second[own]).mean(axis=0))
            apart[~own] = (first[~own] - second[~own]) @ along
        ratio = float(apart.mean()) / max(float(apart.std()), 1e-12)
        best = max(best, (ratio, -layer, float((apart > 0).mean() + 0.5 * (apart == 0).mean())))
    layer = -best[1]
    between = (told[:, layer] - told_not[:, layer]).mean(axis=0)
    gap = float(np.linalg.norm(between))
    return HarmDirection(layer, _unit(between), gap, best[2], len(told))


def along_harm(
    bench: Workbench, direction: HarmDirection, rows: Sequence[EncodedRow]
) -> FloatArray:
    """How far each row's answer goes, shape (N,), in gaps of the direction: 1 is as far as being
    told to do what is described takes the model, rather than being told not to.

    Raises:
        ModelError: a value is NaN or infinite.
    """
    model = bench.model.to_read(bench.base)
    limits = (bench.max_batch_tokens, [direction.layer])
    answers, before = hidden_states(model, rows, ["answer", "prompt_end"], *limits)
    found = (answers[:, 0] - before[:, 0]) @ direction.along / max(direction.gap, 1e-12)
    check_finite(found, "projection on the described harm", "described harm")
    return np.asarray(found)


def _told(prompt: Sequence[Message], text: str) -> list[Message]:
    """``prompt`` with a text in front of its first user turn."""
    at = next((i for i, turn in enumerate(prompt) if turn.role == "user"), None)
    if at is None:
        return [Message("user", text), *prompt]
    own = Message("user", f"{text} {prompt[at].content}")
    return [*prompt[:at], own, *prompt[at + 1 :]]


def _answered(bench: Workbench, prompt: Sequence[int], answer: str) -> EncodedRow:
    """A prompt with an answer; where it is empty, the token before it stands for it."""
    ids: list[int] = bench.tokenizer(answer, add_special_tokens=False)["input_ids"]
    is_target = np.zeros(len(prompt) + len(ids), dtype=np.bool_)
    is_target[len(prompt) if ids else -1 :] = True
    return EncodedRow(0, np.array([*prompt, *ids]), is_target, len(prompt), answer)


def _unit(vector: FloatArray) -> FloatArray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
