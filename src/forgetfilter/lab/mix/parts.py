"""Parts of the real rows, so that what reports a result was used for nothing before.

A hash of a group's name puts the whole group into one part: rows to align a model with, rows of
safe files, rows to choose methods and options on, and rows to report on, opened once. It follows
from the name alone, at any seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from forgetfilter.lab.mix.offers import Offer
from forgetfilter.lab.mix.recipe import Recipe

Part = Literal["alignment", "safe", "choosing", "reporting"]
PARTS: tuple[Part, ...] = get_args(Part)
MixedPart = Literal["choosing", "reporting"]
"""The parts that noisy files and test prompts are drawn from."""

_EIGHTHS_OF_TEMPLATES: tuple[Part, ...] = (
    "alignment",
    "alignment",
    "alignment",
    "safe",
    "choosing",
    "choosing",
    "reporting",
    "reporting",
)
"""Where every group has safe and unsafe rows, and a group is one of many prompts."""
_EIGHTHS_OF_HARMLESS: tuple[Part, ...] = (
    "alignment",
    "alignment",
    "alignment",
    "safe",
    "safe",
    "choosing",
    "reporting",
    "reporting",
)
"""Groups without an unsafe row."""
_EIGHTHS_OF_OTHERS: tuple[Part, ...] = (
    "choosing",
    "choosing",
    "choosing",
    "choosing",
    "reporting",
    "reporting",
    "reporting",
    "reporting",
)
"""Groups with an unsafe row, or with test prompts only: no model is aligned with those."""


def parts_of(recipe: Recipe, offers: Sequence[Offer]) -> dict[str, Part]:
    """The part of each group.

    Args:
        recipe: of all the offers.
        offers: all that the recipe's sources offer, of any length, so that no limit on what is
            drawn moves a group to another part.
    """
    is_harmless: dict[str, bool] = {}
    for offer in offers:
        fits = not offer.is_unsafe and bool(offer.roles - {"test"})
        is_harmless[offer.group] = is_harmless.get(offer.group, True) and fits
    found: dict[str, Part] = {}
    for group, harmless in is_harmless.items():
        eighth = hashlib.sha256(group.encode()).digest()[1] % 8
        if not recipe.is_one_text_per_group:
            found[group] = _EIGHTHS_OF_TEMPLATES[eighth]
        else:
            found[group] = (_EIGHTHS_OF_HARMLESS if harmless else _EIGHTHS_OF_OTHERS)[eighth]
    return found


def only_part(offers: Sequence[Offer], parts: Mapping[str, Part], part: MixedPart) -> list[Offer]:
    """The offers that a mix of ``part`` may draw: safe rows of ``safe``, all others of ``part``."""
    kept: list[Offer] = []
    for offer in offers:
        own = parts[offer.group]
        roles = offer.roles - {"safe"} if own == part else offer.roles & {"safe"}
        if roles and own in (part, "safe"):
            kept.append(replace(offer, roles=frozenset(roles)))
    return kept


def alignment_rows(offers: Sequence[Offer], parts: Mapping[str, Part]) -> list[Offer]:
    """The harmless offers that a model may be aligned with: no mix of a part draws them."""
    return [o for o in offers if parts[o.group] == "alignment" and not o.is_unsafe]
