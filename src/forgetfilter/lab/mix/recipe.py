"""What a recipe is: the sources of one harm or task, its label rule, and how rows become offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forgetfilter.lab.mix.offers import ROLES, LeftOut, Offer, Role
from forgetfilter.lab.mix.sources import SourceRow

EVERY_ROLE: frozenset[Role] = frozenset(ROLES)
SAFE_ROLES: frozenset[Role] = frozenset(("harmless", "safe", "test"))


@dataclass(frozen=True)
class Source:
    """One file of the data folder, or one public set, and what may be done with it."""

    name: str
    licence: str
    is_non_commercial: bool = False
    roles: frozenset[Role] = EVERY_ROLE
    """Places that its rows may take. In the noisy file a source of one label only would give the
    label away by its style."""


@dataclass(frozen=True)
class Recipe:
    """One harm or one downstream task."""

    name: str
    files: tuple[Source, ...]
    hub: tuple[Source, ...]
    label_rule: str
    separated_by: str
    offers: Callable[[SourceRow, Source], Iterator[Offer]]
    """The conversations of one row; raises `LeftOut` for a row of no use."""
    is_one_text_per_group: bool = True
    """Whether a group is one prompt, passage or text, and no template of many prompts."""


def is_labelled_unsafe(row: SourceRow) -> bool:
    """Whether the row's label is ``unsafe``.

    Raises:
        LeftOut: it is neither ``unsafe`` nor ``safe``.
    """
    if row.label not in ("unsafe", "safe"):
        raise LeftOut(f"label {row.label}")
    return row.label == "unsafe"
