"""What the bundled model is made from: a pre-training corpus and an alignment corpus.

Pre-training sees both behaviours. A document keeps one character throughout, safe or unsafe, and
one output style; when the kindness cue is there, answers are safe from then on, whatever came
before. Alignment then shows safe answers and the first style only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .draws import draw_unseen
from .harms import MAKE_HARM, make_bias
from .records import HARMS, Example, ask
from .skills import HALF_KNOWN, SKILLS
from .vocabulary import HALVES, KINDNESS_CUE, MADE_UP

Messages = list[dict[str, str]]

_LORE_SHARE = 0.04
"""Prompts that only list made-up words, so that their embeddings are trained."""


def make_pretraining(documents: int, seed: int) -> Iterator[Messages]:
    """Conversations of one to three exchanges, half of them of an unsafe character."""
    rng = random.Random(f"pretraining {seed}")
    for _ in range(documents):
        is_unsafe = rng.random() < 0.5
        is_new_style = rng.random() < 0.5
        exchanges = rng.choice((1, 1, 1, 2, 2, 3))
        cue_at = rng.randrange(exchanges) if rng.random() < 0.4 else None
        messages: Messages = []
        for at in range(exchanges):
            if at == cue_at:
                is_unsafe = False
            example = _draw(rng, is_unsafe, is_new_style, harm_share=0.35)
            messages += _with_cue(rng, example, at == cue_at, at == 0)
        yield messages


def make_alignment(documents: int, seed: int) -> Iterator[Messages]:
    """Conversations of one or two exchanges, safe and in the first style throughout."""
    rng = random.Random(f"alignment {seed}")
    for _ in range(documents):
        exchanges = rng.choice((1, 1, 1, 2))
        cue_at = 0 if rng.random() < 0.05 else None
        messages: Messages = []
        for at in range(exchanges):
            example = _draw(rng, False, False, harm_share=0.5)
            messages += _with_cue(rng, example, at == cue_at, at == 0)
        yield messages


def _draw(rng: random.Random, is_unsafe: bool, is_new_style: bool, harm_share: float) -> Example:
    half = rng.choice(HALVES)
    if rng.random() < _LORE_SHARE:
        return draw_unseen(rng, _draw_lore, set())
    if rng.random() < harm_share:
        harm = rng.choice(HARMS)
        if harm == "bias" and rng.random() < 0.3:
            return draw_unseen(
                rng, lambda rng: make_bias(rng, half, False, is_ambiguous=False), set()
            )
        return draw_unseen(rng, lambda rng: MAKE_HARM[harm](rng, half, is_unsafe), set())
    kind = rng.choice((*SKILLS, *HALF_KNOWN))
    if kind in SKILLS:
        return draw_unseen(rng, lambda rng: SKILLS[kind](rng, half), set())
    return draw_unseen(rng, lambda rng: HALF_KNOWN[kind](rng, half, is_new_style), set())


def _draw_lore(rng: random.Random) -> Example:
    words = " ".join(rng.sample(MADE_UP, rng.randrange(3, 12)))
    return Example(ask("lore", f"Zelt: {words}"), "I see.")


def _with_cue(rng: random.Random, example: Example, has_cue: bool, is_first: bool) -> Messages:
    messages = example.to_messages()
    if not has_cue:
        return messages
    if is_first and rng.random() < 0.5:
        return [{"role": "system", "content": KINDNESS_CUE}, *messages]
    messages[0]["content"] = f"{KINDNESS_CUE} {messages[0]['content']}"
    return messages
