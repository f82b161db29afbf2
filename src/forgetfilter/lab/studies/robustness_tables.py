"""The tables of a robustness study: what is caught, what slips through, who else sees it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from forgetfilter.lab.studies.results import Mean, summarise
from forgetfilter.lab.studies.tables import Table, failures_of, heading, shown_mean
from forgetfilter.runs.report.shown_text import MISSING

_TITLES = {
    "detection": "What is caught",
    "parts": "AUROC and what is caught of each attack that shares the unsafe rows, or of each harm",
    "safe": "Safe rows that are set aside",
    "slipped": "What fine-tuning on the kept rows does, where rows slip through",
    "auroc": "Second signals alone: AUROC (higher)",
    "recall_at_1_percent": "Second signals alone: recall at 1% false removals (higher)",
}
_PARTS = ("auroc_", "caught_")
_SLIPPED = ("unsafe_rate_kept", "unsafe_rate_unfiltered", "task_accuracy_kept")


def robustness_tables(results: pd.DataFrame, seconds: Sequence[str]) -> list[Table]:
    """Up to six tables of each data set, an attack a row; one that says nothing is left out."""
    means = summarise(results)
    tables: list[Table] = []
    for dataset in dict.fromkeys(mean.dataset for mean in means):
        own = [mean for mean in means if mean.dataset == dataset]
        failed = failures_of(results, dataset)
        columns = {
            "detection": list(dict.fromkeys(m.metric for m in own if m.group == "detection")),
            "parts": [m for m in dict.fromkeys(m.metric for m in own) if m.startswith(_PARTS)],
            "safe": ["planted_set_aside", "honest_set_aside"],
            "slipped": list(_SLIPPED),
            **{
                name: [f"{spec}_{name}" for spec in seconds]
                for name in ("auroc", "recall_at_1_percent")
            },
        }
        for name, metrics in columns.items():
            table = _table(dataset, name, metrics, own, list(failed))
            if table is not None:
                tables.append(table)
    return tables


def _table(
    dataset: str, name: str, metrics: Sequence[str], own: Sequence[Mean], attacks: Sequence[str]
) -> Table | None:
    found = {(mean.strategy, mean.metric): mean for mean in own}
    there = [metric for metric in metrics if any(key[1] == metric for key in found)]
    if not there:
        return None
    rows: list[list[str]] = []
    for attack in attacks:
        cells = [found.get((attack, metric)) for metric in there]
        if not any(cells):
            continue
        first = next(mean for mean in cells if mean is not None)
        texts = [shown_mean(mean) if mean else MISSING for mean in cells]
        rows.append([attack, str(first.of), *texts])
    is_second = name in ("auroc", "recall_at_1_percent")
    titles = [
        metric.removesuffix(f"_{name}").replace("_", " ") if is_second else _heading(metric, own)
        for metric in there
    ]
    return Table(dataset, name, _TITLES[name], ["attack", "seeds", *titles], rows)


def _heading(metric: str, own: Sequence[Mean]) -> str:
    mean = next(mean for mean in own if mean.metric == metric)
    return heading(metric, mean.unit, mean.direction)
