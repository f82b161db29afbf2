"""How often people agreed with the rule, on the rows that they reviewed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from forgetfilter.runs.decisions import Decided
from forgetfilter.scoring.intervals import wilson

MEANT = {"keep": "kept", "remove": "removed"}
"""What a rule would have to decide to agree."""


def agreement(rule: Sequence[str], decided: Decided) -> dict[str, Any]:
    """How often people agreed with the rule, on the rows that they kept or removed.

    ``precision``: of the reviewed rows that the rule removed, the share that people removed too.
    ``missed``: of those that it kept, the share that people removed. Each with Wilson's interval,
    which holds for all such rows only where the reviewed ones are a random sample of them.
    """
    counts = Counter(
        (str(rule[row]), made.decision)
        for row, made in decided.latest.items()
        if made.decision in MEANT
    )
    found = {
        name: wilson(counts[of, "remove"], counts[of, "remove"] + counts[of, "keep"])
        for name, of in (("precision", "removed"), ("missed", "kept"))
    }
    return {name: asdict(share) for name, share in found.items()}
