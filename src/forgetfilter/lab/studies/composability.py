"""How two strategies go together: order-free error and order sensitivity.

"Composable Interventions for Language Models" (arXiv 2407.06483). For an error e, which is 1 minus
the value where higher is better: the order-free error of A and B is ``min(e(A then B), e(B then
A))``, and their order sensitivity ``|e(A then B) - e(B then A)|``. Lower is better for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pandas as pd
from pydantic import Field

from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies import check_spec
from forgetfilter.lab.studies.cells import Cell
from forgetfilter.lab.studies.compare import CompareStudy
from forgetfilter.lab.studies.datasets import DataSet
from forgetfilter.lab.studies.grid import Comparison, run_grid
from forgetfilter.lab.studies.results import COLUMNS, frame_of, records_of, summarise
from forgetfilter.lab.studies.settings import CompareConfig, screen_config
from forgetfilter.lab.studies.tables import Station, Table, along, tables_of
from forgetfilter.progress import Progress

OFE, OS = "order_free_error", "order_sensitivity"


class ComposabilityConfig(CompareConfig):
    """Pairs of strategies, alone and in either order."""

    strategies: list[str] = Field(
        default=["none"], description="others that are run beside the pairs, for comparison"
    )
    pairs: list[tuple[str, str]] = Field(min_length=1, description="each two names with options")

    @property
    def specs(self) -> list[str]:
        """Every strategy of a pair alone, and both orders of every pair."""
        singles = [one for pair in self.pairs for one in pair]
        chains = [f"{a}+{b}" for pair in self.pairs for a, b in (pair, pair[::-1])]
        return list(dict.fromkeys([*self.strategies, *singles, *chains]))

    def check(self) -> None:
        """Every chain is one, and no pair is given twice."""
        both = [tuple(sorted(pair)) for pair in self.pairs]
        if len(set(both)) < len(both) or any(a == b for a, b in both):
            raise ConfigError(
                "pairs: a pair is given twice, or is one strategy twice. Expected two strategies "
                "each, and each two once. Remove one."
            )
        screen = screen_config(self, 0)
        for spec in self.specs:
            check_spec(spec, screen)


def compose(
    config: ComposabilityConfig, progress: Progress | None = None, *, overwrite: bool = False
) -> Comparison:
    """Run all pairs; write ``results.parquet``, ``table.md`` and ``compose.html``.

    Raises what `run_grid` raises.
    """
    return run_grid(_Compose(config), config, progress, overwrite=overwrite)


class _Compose(CompareStudy):
    name = "compose"
    page_file = "compose.html"
    free = frozenset({"pairs"})
    inputs = MappingProxyType({"study": "compose"})

    def __init__(self, config: ComposabilityConfig) -> None:
        self.config = config

    def collect(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """As a comparison's, and beside it the two measures of each pair as ``A & B``."""
        found = super().collect(cells)
        rows = measures(records_of(found), self.config.pairs)
        return frame_of([*records_of(found), *rows], COLUMNS)

    def tables(self, datasets: Sequence[DataSet], results: pd.DataFrame) -> list[Table]:
        """The measures of each pair, and then a comparison's tables."""
        names = [f"{a} & {b}" for a, b in self.config.pairs]
        is_pair = results["strategy"].isin(names)
        found: list[Table] = []
        for dataset in datasets:
            own = summarise(results.loc[is_pair & (results["dataset"] == dataset.name)])
            station = Station("mean over seeds", own)
            for metric in dict.fromkeys(mean.metric for mean in own):
                rows = dict.fromkeys(names, "")
                table = along(dataset.name, metric, [station], rows, "pair")
                if table is not None:
                    found.append(replace(table, title=table.title.replace(":", " of ")))
        return [*found, *tables_of(results.loc[~is_pair])]


def measures(
    rows: Sequence[dict[str, Any]], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Order-free error and order sensitivity of each pair, for each seed and criterion.

    The criteria are the first metric of safety and that of utility, both shares.
    """
    values = {
        (row["dataset"], row["seed"], row["strategy"], row["metric"]): row
        for row in rows
        if "share" in str(row["unit"]) and not str(row["unit"]).startswith("difference")
    }
    criteria = dict.fromkeys(
        metric
        for group in ("safety", "utility")
        for metric in [next((r["metric"] for r in values.values() if r["group"] == group), None)]
        if metric is not None
    )
    places = dict.fromkeys((row["dataset"], row["seed"]) for row in rows)
    found: list[dict[str, Any]] = []
    for dataset, seed in places:
        for a, b in pairs:
            for metric in criteria:
                both = [
                    values.get((dataset, seed, f"{x}+{y}", metric)) for x, y in ((a, b), (b, a))
                ]
                if both[0] is None or both[1] is None:
                    continue
                first, second = (_error(row) for row in both if row is not None)
                named = {"strategy": f"{a} & {b}", "dataset": dataset, "seed": seed}
                for name, value in ((OFE, min(first, second)), (OS, abs(first - second))):
                    found.append(
                        {
                            **named,
                            "metric": f"{name}:{metric}",
                            "group": "composability",
                            "value": value,
                            "low": math.nan,
                            "high": math.nan,
                            "unit": "share, 0..1",
                            "direction": "lower",
                            "n": both[0]["n"],
                        }
                    )
    return found


def _error(row: dict[str, Any]) -> float:
    value = float(row["value"])
    return 1 - value if row["direction"] == "higher" else value
