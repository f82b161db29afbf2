"""A harm that the safe rows lack: nothing says how such a request is answered safely."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from forgetfilter.errors import ConfigError
from forgetfilter.lab.attacks.base import ATTACKS, Material, Where, lacking


@ATTACKS.add("missing_harm")
class MissingHarm:
    """The safe rows of one category are left out, and only unsafe rows of that harm stay.

    Args:
        harm: the category; where none is given, the one with the most unsafe rows.
        alone: whether the unsafe rows of the other harms are left out too.
    """

    name = "missing_harm"
    changes: Where = "safe"

    def __init__(self, harm: str = "", alone: bool = True) -> None:
        self.harm, self.alone = harm, alone

    def apply(self, given: Material) -> Material:
        """Leave them out."""
        if not given.safe:
            raise lacking(self.name, "safe row", "a file of safe rows with categories")
        unsafe = given.unsafe(self.name)
        known = {row.harm for row in given.safe}
        counts = Counter(given.noisy[at].harm for at in unsafe if given.noisy[at].harm in known)
        harm = self.harm or (counts.most_common(1)[0][0] if counts else None)
        gone = [row for row in given.safe if row.harm == harm]
        if harm is None or not gone or len(gone) == len(given.safe):
            raise ConfigError(
                f"The attack {self.name!r} would leave out {len(gone)} of {len(given.safe)} safe "
                f"rows, of the category {harm!r}. Expected a category that some safe rows have and "
                f"others have not. Name one: {self.name}:harm=NAME"
            )
        kept = tuple(row for row in given.safe if row.harm != harm)
        out = tuple(replace(row, change="left out of the safe rows") for row in gone)
        after = replace(given, safe=kept, left_out=(*given.left_out, *out))
        if not self.alone:
            return after
        return after.without([at for at in unsafe if given.noisy[at].harm != harm])
