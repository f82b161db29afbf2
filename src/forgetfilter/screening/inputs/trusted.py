"""Rows that are known to be harmless: which ones they are, and whether they are enough."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace
from typing import Any, cast

import numpy as np

from forgetfilter.arrays import BoolArray
from forgetfilter.data.records import RowFile
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.records import TRUSTED, Readings
from forgetfilter.scoring.thresholds import THRESHOLDS
from forgetfilter.screening.method import Scored, Setting


def trusted_rows(file: RowFile) -> BoolArray:
    """Which rows of an input, readable or not, come from ``trusted_data``; shape (rows,)."""
    marks = [source.is_trusted for source in file.sources]
    return np.repeat(np.array(marks, dtype=np.bool_), np.array(file.counts, dtype=np.int64))


def with_trusted(scored: Scored, file: RowFile) -> Scored:
    """The same with the column ``is_trusted`` among its readings, where some row is trusted."""
    trusted = trusted_rows(file)
    if not trusted.any():
        return scored
    own = scored.readings
    columns = ChainMap({TRUSTED: trusted[own.row]}, cast(Any, own.columns))
    return replace(scored, readings=Readings(own.row, columns))


def check_trusted(setting: Setting, file: RowFile, rule: str) -> None:
    """Refuse too few trusted rows for the rule before anything is trained.

    Raises:
        ConfigError: with so few the rule would remove nothing, whatever the scores are.
    """
    needed = getattr(THRESHOLDS.build(rule), "rows_needed", 0)
    trusted = trusted_rows(file)
    count = sum(bool(trusted[row.row]) for row in setting.noisy) if trusted.any() else 0
    if count >= needed:
        return
    if not trusted.any():
        raise ConfigError(
            f"The rule {rule} compares rows with rows that are known to be harmless, and none were "
            f"given. Expected at least {needed:,}. Give them with --trusted-data, or name another "
            "rule."
        )
    if not count:
        raise ConfigError(
            f"None of the rows of trusted_data can be used, and the rule {rule} compares rows with "
            f"them. Expected at least {needed:,}. See why with `forgetfilter validate`, mend or "
            "replace them, or name another rule."
        )
    raise ConfigError(
        f"trusted_data has {count:,} rows that can be used; the rule {rule} can remove no row with "
        f"fewer than {needed:,}. Expected more of them, or a higher rate. Add rows, or name one "
        f"that they are enough for: --threshold conformal:rate={_rate_for(count)}"
    )


def _rate_for(count: int) -> float:
    """The smallest rate of two digits for which ``count`` rows are enough."""
    rates = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    return next((rate for rate in rates if count + 1 >= 1 / rate), rates[-1])
