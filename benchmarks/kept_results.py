r"""Kept results of a study as tables, as figures, or as one metric over seeds.

    python benchmarks/kept_results.py tables docs/lab/study/testbed_compare.parquet
    python benchmarks/kept_results.py figures docs/lab/study/*.parquet
    python benchmarks/kept_results.py metric docs/lab/study/testbed_curves.parquet --metric auroc \
        --curve model --first large --second small
    python benchmarks/kept_results.py lower docs/lab/study/testbed_compare.parquet \
        --first forget_filter --second none

`tables` prints what the study's command had printed; `figures` writes an SVG file for each plot
beside the results (with the extra lab). `metric` prints the mean of one metric in every group that
has it, with --first and --second the difference of two strategies, or of two places of a curve, of
the same seed. `lower` says by how many percent of the second strategy's rate the first one's is
lower. Means are over seeds, with 95% intervals that stay within the metric's range.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from forgetfilter.files import write_bytes_atomic
from forgetfilter.lab.metrics import mean_over_seeds
from forgetfilter.lab.studies import boundaries, curve_tables
from forgetfilter.lab.studies.datasets import WorldRows
from forgetfilter.lab.studies.plots import Plot, lines, scatter
from forgetfilter.lab.studies.results import summarise
from forgetfilter.lab.studies.tables import is_share, markdown, shown, tables_of

COMPARED = (("unsafe_rate", "task_accuracy"),)
AT_BOUNDARIES = ("unsafe_rate", "task_accuracy")
ALONG_CURVES = (
    "learning_loss",
    "forgetting_loss",
    "forgetting_auroc",
    "threshold_f1",
    "safe_rows_auroc",
    "unsafe_fraction_auroc",
    "model_auroc",
)
"""The figures that are kept; a study's own page has more."""
GROUPS = ("dataset", "strategy", "boundary", "line", "setting")
"""Columns that tell groups apart, of which each kind of study has some."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("tables", "figures", "metric", "lower"))
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.parquet")
    parser.add_argument("--metric")
    parser.add_argument("--curve", help="of a curves file")
    parser.add_argument("--first")
    parser.add_argument("--second")
    options = parser.parse_args()
    for path in options.results:
        results = pd.read_parquet(path)
        if options.what == "tables":
            print(tables(results))
        elif options.what == "figures":
            for name, plot in figures(results):
                target = path.with_name(f"{path.stem}_{name}.svg")
                write_bytes_atomic(target, plot.svg.encode())
                print(target)
        elif options.what == "metric":
            print(over_seeds(results, options))
        else:
            print(lower_by(results, options.first, options.second))


def tables(results: pd.DataFrame) -> str:
    """As the study's command printed them; the columns tell the kind of study."""
    if not {"boundary", "curve"}.intersection(results):
        return markdown(results, tables_of(results))
    kind = boundaries if "boundary" in results else curve_tables
    datasets = [WorldRows(name=str(name)) for name in results["dataset"].unique()]
    return markdown(results, kind.tables_of(datasets, results))


def figures(results: pd.DataFrame) -> Iterator[tuple[str, Plot]]:
    """Names and plots of what is drawn of a kept study, which has one data set."""
    (dataset,) = results["dataset"].unique()
    if "boundary" in results:
        stations = boundaries.stations_of(results, dataset)
        found = [(name, lines(stations, name, boundaries.ALONG)) for name in AT_BOUNDARIES]
    elif "curve" in results:
        every = curve_tables.plots_of(results, dataset)
        found = [(name, plot) for name, plot in every if name in ALONG_CURVES]
    else:
        means = summarise(results)
        found = [(up, scatter(means, across, up)) for across, up in COMPARED]
    yield from ((name, plot) for name, plot in found if plot is not None)


def over_seeds(results: pd.DataFrame, options: argparse.Namespace) -> str:
    """One metric of every group, or the difference of two."""
    frame = results[(results["metric"] == options.metric) & results["value"].notna()]
    if options.curve:
        frame = frame[frame["curve"] == options.curve]
    unit = str(frame["unit"].iloc[0])
    groups = [name for name in GROUPS if name in frame]
    if options.first:
        varied = "setting" if "setting" in frame else "strategy"
        groups.remove(varied)
        seeds = frame.pivot_table(index=[*groups, "seed"], columns=varied, values="value")
        found = (seeds[options.first] - seeds[options.second]).rename("value").dropna()
        frame, unit = found.reset_index().assign(n=0), f"difference; {unit}"
    rows = [[*groups, "seeds", f"{options.metric}{' %' if is_share(unit) else ''}"]]
    for names, own in frame.groupby(groups, sort=False):
        mean = mean_over_seeds(own["value"].tolist(), unit, int(own["n"].sum()))
        rows.append([*map(str, names), str(len(own)), shown(mean.value, mean.low, mean.high, unit)])
    return as_markdown(rows)


def lower_by(results: pd.DataFrame, first: str, second: str) -> str:
    """By how many percent of another's a strategy's unsafe rates are lower.

    The interval is that of the ratio, a positive quantity.
    """
    rates = results[results["metric"].str.fullmatch(r"unsafe_rate(_[a-z]+)?")]
    by_seed = rates.pivot(index=["metric", "seed"], columns="strategy", values="value")
    rows = [["rate", "lower by % (higher)", "worst seed"]]
    for metric, own in by_seed.groupby(level="metric"):
        if (own[second] == 0).any():
            rows.append([str(metric), "–", "– (a seed's other rate is 0)"])
            continue
        ratios = (own[first] / own[second]).tolist()
        mean = mean_over_seeds(ratios, "ratio")
        low, high = 100 * (1 - mean.high), 100 * (1 - mean.low)
        spread = f" [{low:.1f}, {high:.1f}]" if low < high else ""
        worst = 100 * (1 - max(ratios))
        rows.append([str(metric), f"{100 * (1 - mean.value):.1f}{spread}", f"{worst:.1f}"])
    return as_markdown(rows)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    lines_ = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines_[0], "|---" * len(rows[0]) + "|", *lines_[1:]])


if __name__ == "__main__":
    main()
