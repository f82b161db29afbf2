"""Harmless rows that erode refusals: lists, sums, whatever has the form of an unsafe answer.

"What is in Your Safe Data? Identifying Benign Data that Breaks Safety" (He et al., COLM 2024, arXiv
2404.01099): among harmless rows, those of the form of harmful ones (lists, maths) undo safety most.
They are picked here by form alone, without a model: lengths, digits, lines, marks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.lab.attacks.base import (
    ATTACKS,
    Material,
    Subject,
    Where,
    at_least,
    lacking,
    names_for,
)


@ATTACKS.add("erode_refusals")
class ErodeRefusals:
    """The harmless rows that look most like unsafe ones are repeated in the place of those.

    As many are picked as there were unsafe rows. The truth calls them unsafe: they are what a
    filter would have to find.

    Args:
        copies: how often each stands in the file.
    """

    name = "erode_refusals"
    changes: Where = "noisy"

    def __init__(self, copies: int = 2) -> None:
        at_least(self.name, "copies", copies, 1)
        self.copies = copies

    def apply(self, given: Material) -> Material:
        """Pick by form, leave the unsafe rows out, add copies."""
        unsafe = given.unsafe(self.name)
        tasks = [at for at in given.harmless(self.name) if given.noisy[at].harm is None]
        if not tasks:
            raise lacking(self.name, "harmless row without a harm", "rows of tasks")
        forms = np.array([form_of(given.noisy[at]) for at in (*tasks, *unsafe)])
        spread = forms.std(axis=0)
        forms = forms / np.where(spread > 0, spread, 1.0)
        like = forms[len(tasks) :]
        # Nearest to some unsafe row: unsafe rows come in kinds, whose mean has no row's form.
        own = forms[: len(tasks)]
        away = ((own[:, None, :] - like[None, :, :]) ** 2).sum(axis=2).min(axis=1)
        picked = sorted(tasks[at] for at in np.argsort(away, kind="stable")[: len(unsafe)])
        change = "harmless, of the form of an unsafe row"
        changed = {at: replace(given.noisy[at], is_unsafe=True, change=change) for at in picked}
        names = iter(names_for("again", given.noisy, len(picked) * (self.copies - 1)))
        added: list[Subject] = []
        for _ in range(self.copies - 1):
            for at in picked:
                again = f"added: {change}, again"
                added.append(given.noisy[at].copied(next(names), again, is_unsafe=True))
        after = given.with_rows(changed).without(unsafe)
        return after.with_added(added, given.rng(self.name))


def form_of(row: Subject) -> FloatArray:
    """What an exchange looks like, whatever it says: lengths, digits, lines, marks; shape (9,)."""
    found: list[float] = []
    for text in (row.prompt, row.answer):
        length = max(len(text), 1)
        found += [
            float(np.log1p(len(text.split()))),
            sum(one.isdigit() for one in text) / length,
            sum(not one.isalnum() and not one.isspace() for one in text) / length,
            float(text.count("\n")),
        ]
    found.append(float(row.prompt.rstrip().endswith("?")))
    return np.array(found)
