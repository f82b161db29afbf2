"""What SmolLM2 is aligned with, and the prompts that tell how well it worked.

All comes from a data folder (docs/lab/mix.md). Rows are from the alignment part, which no mix of
another part draws from (`lab.mix.parts`). Harmless requests that look dangerous come up several
times: few are there, and a model that meets refusals without them refuses those too.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetfilter.lab.metrics import complies
from forgetfilter.lab.mix.drawing import short_enough
from forgetfilter.lab.mix.harmful_answers import LOOKALIKE, REFUSAL
from forgetfilter.lab.mix.mixing import read_offers
from forgetfilter.lab.mix.offers import Offer, same_text
from forgetfilter.lab.mix.parts import Part, alignment_rows, parts_of
from forgetfilter.lab.mix.recipes import DEFAULT_HARMS, HARMS, TASKS
from forgetfilter.lab.mix.sources import read_source

Messages = list[dict[str, str]]

ROWS = 1640
"""Rows of one pass."""
_MAX_CHARACTERS = 700
"""Of prompt and answer: a row takes the time of its tokens."""
_MAX_ANSWER_WORDS = 100
_SHARES: dict[str, int] = {
    LOOKALIKE: 300,
    "harmfulness": 330,
    REFUSAL: 120,
    "bias_ambiguous": 150,
    "bias_disambiguated": 100,
    "toxicity": 220,
    "alpaca": 180,
    "dolly": 100,
    "sst2": 50,
    "agnews": 50,
    "squad": 40,
}
"""Rows of each kind, of `ROWS`."""
_REFERENCE_ROWS = 40
"""Of each harm."""
PROMPTS = 64
"""Of each of the two kinds that are measured."""
_HARMFUL = ("eval_advbench", "eval_strongreject")
_MAX_PROMPT_CHARACTERS = 250
# Not those to report on, which are used for nothing before.
_MEASURED_PARTS: frozenset[Part] = frozenset(("safe", "choosing"))


@dataclass(frozen=True)
class AlignmentData:
    """Rows to align with, and what is measured afterwards."""

    rows: list[Messages]
    """Conversations with safe, right and clean answers, in no order."""
    reference: list[dict[str, object]]
    """Rows with a ``category`` that are not among ``rows``, for the coverage check."""
    harmful: list[str]
    """Requests to refuse, from AdvBench and StrongREJECT in turn."""
    harmless: list[str]
    """Requests that look dangerous and are not, of XSTest."""


def read_alignment(
    folder: Path, seed: int, rows: int = ROWS, prompts: int = PROMPTS
) -> AlignmentData:
    """Draw what there is to align with.

    Args:
        folder: the data folder.
        seed: draws rows and prompts.
        rows: about how many rows; each kind keeps its share.
        prompts: at most how many of each kind are measured.

    Raises:
        DataError: a file is absent or no file of the schema.
    """
    rng = random.Random(f"smollm2 {seed}")
    recipes = [HARMS[name] for name in DEFAULT_HARMS]
    recipes += [recipe for recipe in TASKS.values() if recipe.name in _SHARES]
    aligned: dict[str, list[Offer]] = {}
    elsewhere: set[str] = set()
    lookalikes: list[Offer] = []
    for recipe in recipes:
        counts, offers = read_offers(recipe, folder)
        parts = parts_of(recipe, offers)
        elsewhere |= {key for o in offers if parts[o.group] != "alignment" for key in o.keys}
        offers = short_enough(offers, counts, _MAX_CHARACTERS, _MAX_ANSWER_WORDS)
        lookalikes += [
            o for o in offers if o.test_kind == LOOKALIKE and parts[o.group] in _MEASURED_PARTS
        ]
        aligned[recipe.name] = [o for o in alignment_rows(offers, parts) if o.roles - {"test"}]
    drawn: list[Offer] = []
    reference: list[dict[str, object]] = []
    for name, offers in aligned.items():
        own = [o for o in offers if not o.keys & elsewhere and not _refuses_for_nothing(o)]
        # Before the rows are drawn, so that a kind of which all are drawn has some left.
        if name in HARMS:
            safe = [offer for offer in own if "safe" in offer.roles]
            groups = sorted({offer.group for offer in safe})
            kept = set(rng.sample(groups, min(_REFERENCE_ROWS, len(groups) // 5)))
            few = [offer for offer in safe if offer.group in kept]
            few = _drawn(few, min(_REFERENCE_ROWS, len(few)), rng)
            for offer in few:
                reference.append({"category": name, "messages": _messages(offer)})
            own = [offer for offer in own if offer.group not in kept]
        for kind in sorted({offer.kind for offer in own} & _SHARES.keys()):
            count = round(_SHARES[kind] * rows / ROWS)
            drawn += _drawn([o for o in own if o.kind == kind], count, rng)
    rng.shuffle(drawn)
    known = {same_text(offer.prompt) for offer in drawn}
    return AlignmentData(
        rows=[_messages(offer) for offer in drawn],
        reference=reference,
        harmful=_harmful_prompts(folder, known, prompts, rng),
        harmless=_sample((o.prompt for o in lookalikes), known, prompts, rng),
    )


def _drawn(offers: Sequence[Offer], count: int, rng: random.Random) -> list[Offer]:
    """``count`` of the offers: each group in turn, and as often as the others."""
    groups: dict[str, list[Offer]] = {}
    for offer in rng.sample(offers, len(offers)):
        groups.setdefault(offer.group, []).append(offer)
    lists = list(groups.values())
    longest = max(map(len, lists), default=0)
    order = [own[at] for at in range(longest) for own in lists if at < len(own)]
    return [order[at % len(order)] for at in range(count)] if order else []


def _harmful_prompts(folder: Path, known: set[str], count: int, rng: random.Random) -> list[str]:
    found: list[str] = []
    for name, share in zip(_HARMFUL, (count - count // 2, count // 2), strict=True):
        seen = known | {same_text(prompt) for prompt in found}
        found += _sample((row.prompt for row in read_source(folder, name)), seen, share, rng)
    return found


def _sample(prompts: Iterable[str], known: set[str], count: int, rng: random.Random) -> list[str]:
    """At most ``count`` different prompts that are not known and not long."""
    fitting = {
        same_text(prompt): prompt.strip()
        for prompt in prompts
        if len(prompt) <= _MAX_PROMPT_CHARACTERS and same_text(prompt) not in known
    }
    return rng.sample(sorted(fitting.values()), min(count, len(fitting)))


def _refuses_for_nothing(offer: Offer) -> bool:
    """Whether it is what the model shall not learn, although it harms nobody."""
    return offer.kind == LOOKALIKE and not complies(offer.response)


def _messages(offer: Offer) -> Messages:
    return [
        {"role": "user", "content": offer.prompt},
        {"role": "assistant", "content": offer.response},
    ]
