"""Several attacks in one file, each on its part of the unsafe rows: one screen judges them all."""

from __future__ import annotations

from dataclasses import replace

from forgetfilter.errors import ConfigError
from forgetfilter.lab.attacks.base import (
    ATTACKS,
    Attack,
    Material,
    Subject,
    Where,
    build_attack,
    needs_model,
)

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
BY_REPLACING = ("near_duplicates", "identity", "erode_refusals", "optimised")
"""Attacks that leave unsafe rows out and put others in their place, or need a model."""
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
        fit = (*ROW_BY_ROW, *BY_REPLACING)
        if unfit := [one for one in self.attacks if one not in fit]:
            raise ConfigError(
                f"The attack {self.name!r} can't deal rows out to {', '.join(unfit)}. Expected "
                f"some of {', '.join(fit)}. Write {self.name}:attacks=cipher/typos, say."
            )
        if repeated := {one for one in self.attacks if self.attacks.count(one) > 1}:
            raise ConfigError(
                f"The attack {self.name!r} names {', '.join(sorted(repeated))} more than once. "
                "Expected each once. Leave the second out."
            )
        self.needs_model = any(needs_model(self._part(one)) for one in self.attacks)

    def apply(self, given: Material) -> Material:
        """Deal out at random, each attack as many rows as the next, give or take one."""
        unsafe = given.unsafe(self.name)
        order = given.rng(self.name).permutation(len(unsafe)).tolist()
        ids = [given.noisy[unsafe[at]].example_id for at in order]
        step = 1 + len(self.attacks)
        plain = set(ids[::step])
        after = replace(
            given,
            noisy=tuple(
                replace(row, change=UNTOUCHED) if row.example_id in plain else row
                for row in given.noisy
            ),
        )
        changed = set(plain)
        for number, name in enumerate(self.attacks, start=1):
            if own := set(ids[number::step]):
                after = self._attacked(name, after, own, changed)
        return after

    def _attacked(self, name: str, given: Material, own: set[str], changed: set[str]) -> Material:
        """One attack on its own rows; adds the names of the rows that it leaves to ``changed``."""
        before = {row.example_id: row for row in given.noisy}
        # The others are not there for this attack, neither as unsafe nor as harmless rows.
        hidden = {
            at: row
            for at, row in before.items()
            if at not in own and (row.is_unsafe or at in changed)
        }
        alone = tuple(
            replace(row, messages=()) if row.example_id in hidden else row for row in given.noisy
        )
        after = self._part(name).apply(replace(given, noisy=alone))
        rows: list[Subject] = []
        for row in after.noisy:
            at = row.example_id
            if at in hidden:
                rows.append(hidden[at])
            elif at in own or row is not before.get(at):
                changed.add(at)
                rows.append(replace(row, change=f"{name}: {row.change}"))
            else:
                rows.append(row)
        return replace(after, noisy=tuple(rows))

    @staticmethod
    def _part(name: str) -> Attack:
        options = _OPTIONS.get(name)
        return build_attack(f"{name}:{options}" if options else name)
