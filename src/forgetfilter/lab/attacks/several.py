"""Several attacks in one file, each on its part of the unsafe rows: one screen judges them all."""

from __future__ import annotations

from dataclasses import replace

from forgetfilter.errors import ConfigError
from forgetfilter.lab.attacks.base import ATTACKS, Material, Subject, Where, build_attack

ROW_BY_ROW = (
    "cipher",
    "last_words",
    "inside_benign",
    "benign_tail",
    "typos",
    "casing",
    "word_order",
    "other_words",
)
"""Attacks that change each unsafe row by itself and leave the number of rows as it was."""
UNTOUCHED = "plain"
"""What the part of the unsafe rows is called that stays as it was."""
_OPTIONS = {"cipher": "phase=harm,refusals=false", "last_words": "phase=harm,refusals=false"}


@ATTACKS.add("several")
class Several:
    """The unsafe rows are dealt out to attacks, and one part of them stays as it was.

    What is said of a row begins with the attack's name. Rows of one attack stand beside those of
    the others, so what is learned of one may help to find another: an attacker who uses a single
    attack can be harder to find.

    Args:
        attacks: names, joined by ``/``; those that change each unsafe row by itself where not
            given.
    """

    name = "several"
    changes: Where = "noisy"

    def __init__(self, attacks: str = "") -> None:
        self.attacks = tuple(attacks.split("/")) if attacks else ROW_BY_ROW
        if unfit := [one for one in self.attacks if one not in ROW_BY_ROW]:
            raise ConfigError(
                f"The attack {self.name!r} can't deal rows out to {', '.join(unfit)}. Expected "
                f"some of {', '.join(ROW_BY_ROW)}. Write {self.name}:attacks=cipher/typos, say."
            )

    def apply(self, given: Material) -> Material:
        """Deal out at random, each attack as many rows as the next, give or take one."""
        unsafe = given.unsafe(self.name)
        order = given.rng(self.name).permutation(len(unsafe)).tolist()
        names = (UNTOUCHED, *self.attacks)
        changed: dict[int, Subject] = {}
        for number, name in enumerate(names):
            own = {unsafe[at] for at in order[number :: len(names)]}
            if not own:
                continue
            if name == UNTOUCHED:
                changed |= {at: replace(given.noisy[at], change=UNTOUCHED) for at in own}
                continue
            # The others are not there for this attack, neither as unsafe nor as harmless rows.
            alone = [
                replace(row, messages=()) if row.is_unsafe and at not in own else row
                for at, row in enumerate(given.noisy)
            ]
            options = _OPTIONS.get(name)
            attack = build_attack(f"{name}:{options}" if options else name)
            after = attack.apply(replace(given, noisy=tuple(alone)))
            for at in own:
                row = after.noisy[at]
                changed[at] = replace(row, change=f"{name}: {row.change}")
        return given.with_rows(changed)
