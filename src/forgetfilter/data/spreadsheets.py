"""Copies of tables for spreadsheets, which run what begins as a formula."""

from __future__ import annotations

from pathlib import Path

from forgetfilter.data.containers.convert import require_new
from forgetfilter.data.sources import open_file
from forgetfilter.errors import DataError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.places import shown


def guard_formulas(path: Path, output: Path) -> int:
    """Write a copy of a CSV or TSV file whose cells no spreadsheet takes for formulas.

    Each such cell has an apostrophe before it; everything else is byte for byte the same. The copy
    is for reading: a model that is trained on it learns the apostrophes.

    Returns:
        How many cells that are.

    Raises:
        DataError: it is no such file or can't be read, or there is something at ``output``.
    """
    require_new(output)
    source = open_file(path)
    if not source.container.can_hold_formulas:
        raise DataError(
            f"{shown(path)} is {source.container.name}. Expected CSV or TSV, whose cells "
            "spreadsheets may run. Leave out --guard-formulas."
        )
    data = source.data()
    write_bytes_atomic(output, source.container.guarded(data))
    return source.container.formula_cells(data)
