"""A safe file that is not safe: unsafe rows planted in it, or answers that belong elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

from forgetfilter.lab.attacks.base import (
    ATTACKS,
    Material,
    Subject,
    Where,
    a_share,
    lacking,
    mingled,
    names_for,
)


@ATTACKS.add("poisoned_safe")
class PoisonedSafe:
    """Unsafe rows stand among the safe ones.

    They come from the pool of further unsafe rows where there is one; else they are taken out of
    the noisy file, so that no row stands in both.

    Args:
        share: of the safe rows, the planted ones among them.
    """

    name = "poisoned_safe"
    changes: Where = "safe"

    def __init__(self, share: float = 0.05) -> None:
        a_share(self.name, "share", share)
        self.share = share

    def apply(self, given: Material) -> Material:
        """Plant them at random places."""
        if not given.safe or self.share >= 1:
            raise lacking(self.name, "safe row", "a file of safe rows, and a share below 1")
        rng = given.rng(self.name)
        wanted = max(1, math.ceil(self.share / (1 - self.share) * len(given.safe) - 1e-9))
        after = given
        source = [row for row in given.pool if row.is_plain]
        if source:
            drawn = rng.permutation(len(source))[:wanted].tolist()
            rows = [source[at] for at in drawn]
        else:
            unsafe = given.unsafe(self.name)
            drawn = sorted(rng.permutation(len(unsafe))[:wanted].tolist())
            places = [unsafe[at] for at in drawn]
            rows = [given.noisy[at] for at in places]
            after = given.without(places, "planted in the safe rows")
        if len(rows) < wanted:
            raise lacking(
                self.name, f"{wanted} unsafe rows", f"{wanted}, and there are {len(rows)}"
            )
        names = names_for("added", given.safe, wanted)
        planted: list[Subject] = []
        for row, own in zip(rows, names, strict=True):
            # Under the category of its harm, as whoever plants it would write.
            fields = {"category": row.harm} if row.harm else {}
            planted.append(row.copied(own, "planted", is_unsafe=True, **fields))
        return replace(after, safe=mingled(given.safe, planted, rng))


@ATTACKS.add("mislabelled_safe")
class MislabelledSafe:
    """Label noise: some safe rows have the answers of other safe rows.

    Args:
        share: of the safe rows.
    """

    name = "mislabelled_safe"
    changes: Where = "safe"

    def __init__(self, share: float = 0.05) -> None:
        a_share(self.name, "share", share)
        self.share = share

    def apply(self, given: Material) -> Material:
        """Pass the answers of the drawn rows on, each to the next."""
        plain = [at for at, row in enumerate(given.safe) if row.is_plain]
        if len(plain) < 2:
            raise lacking(self.name, "pair of safe rows", "at least two safe rows")
        rng = given.rng(self.name)
        wanted = min(len(plain), max(2, round(self.share * len(given.safe))))
        drawn = [plain[at] for at in rng.permutation(len(plain))[:wanted].tolist()]
        rows = list(given.safe)
        for at, other in zip(drawn, [*drawn[1:], drawn[0]], strict=True):
            own: Subject = given.safe[at]
            answer = given.safe[other].answer
            change = f"has the answer of {given.safe[other].example_id}"
            rows[at] = own.exchanged(own.prompt, answer, change, is_unsafe=True)
        return replace(given, safe=tuple(rows))
