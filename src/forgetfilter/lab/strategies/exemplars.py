"""Pairs of a safe and an unsafe answer to the same prompt, for strategies that need unsafe rows.

They are a budget of their own, beside the safe rows, and never come from the noisy ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.model.state import phase_seed
from forgetfilter.screening.method import Setting
from forgetfilter.text import printable

PACKAGED = "testbed"
"""The source that means the bundled world, in the words of its safe rows."""


@dataclass(frozen=True)
class Pair:
    """One prompt, answered twice."""

    safe: EncodedRow
    unsafe: EncodedRow


def check_source(strategy: str, source: str) -> None:
    """See that there are exemplars, before anything is trained.

    Raises:
        ConfigError: there is no such file.
    """
    if source != PACKAGED and not Path(source).is_file():
        raise ConfigError(
            f"{strategy}: there is no file {printable(source, 200)!r}. Expected preference rows "
            f"with prompt, chosen and rejected, or {PACKAGED!r}. Check the path."
        )


def draw_pairs(setting: Setting, source: str, count: int) -> list[Pair]:
    """At most ``count`` pairs that fit the model.

    Args:
        setting: has the model's encoder and the seed.
        source: a file of preference rows (``prompt``, ``chosen``, ``rejected``), of which the first
            ones are taken; or ``testbed``.
        count: the budget.

    Raises:
        DataError: the file can't be read, or no pair of it can be used.
    """
    if source == PACKAGED:
        records = _world_pairs(count, phase_seed(setting.bench.seed, "exemplars"))
    else:
        records = _pairs_of(Path(source))[:count]
    sides = [_encoded(setting, [record[side] for record in records]) for side in (0, 1)]
    found = [Pair(sides[0][at], sides[1][at]) for at in sorted(sides[0].keys() & sides[1].keys())]
    if not found:
        raise DataError(
            f"None of {len(records)} pairs of {printable(source, 200)!r} can be used. Expected "
            "prompts with a chosen and a rejected answer that fit the model's context. Check the "
            "file, or give a longer max_length_tokens."
        )
    return found


Record = Mapping[str, Any]


def _encoded(setting: Setting, records: list[Record]) -> dict[int, EncodedRow]:
    rows, _ = setting.bench.encoder.encode(read_rows(records).rows)
    return {row.row: row for row in rows}


def _world_pairs(count: int, seed: int) -> list[tuple[Record, Record]]:
    """Both answers to prompts of the bundled world that no held-out prompt is like."""
    from forgetfilter.lab.testbed.draws import is_held_out
    from forgetfilter.lab.testbed.harms import MAKE_HARM
    from forgetfilter.lab.testbed.noisy import SAFE_HALF

    makers = list(MAKE_HARM.values())
    found: list[tuple[Record, Record]] = []
    number = 0
    while len(found) < count:
        make = makers[len(found) % len(makers)]
        # The same draws but for the answer.
        safe, unsafe = (
            make(random.Random(f"exemplars {seed} {number}"), SAFE_HALF, is_unsafe)
            for is_unsafe in (False, True)
        )
        number += 1
        if safe.text == unsafe.text and not is_held_out(safe):
            found.append(({"messages": safe.to_messages()}, {"messages": unsafe.to_messages()}))
    return found


def _pairs_of(path: Path) -> list[tuple[Record, Record]]:
    from forgetfilter.lab.studies.datasets.base import read_objects

    records = [record for _, record in read_objects(path)]
    for number, record in enumerate(records, start=1):
        if not {"chosen", "rejected"} <= record.keys():
            raise DataError(
                f"{printable(str(path), 200)!r}, row {number}: no chosen and rejected answer. "
                "Expected preference rows. Give a file with prompt, chosen and rejected."
            )
    return [(record, {**record, "chosen": record["rejected"]}) for record in records]
