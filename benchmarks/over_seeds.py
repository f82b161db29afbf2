r"""Means over seeds of one metric of a kept results file, in every group that has it.

    python benchmarks/over_seeds.py docs/study/realtext_compare.parquet \
        --metric refusal_rate_opening_minus_none
    python benchmarks/over_seeds.py docs/study/testbed_curves.parquet --metric auroc --curve model \
        --first large --second small

Prints a Markdown table: mean [95% t interval over seeds], in the metric's own unit; with
``--first`` and ``--second`` the difference between two strategies, or two places of a curve, of the
same seed.
"""

from __future__ import annotations

import argparse

import pandas as pd

from forgetfilter.metrics.rates import mean_over_seeds

GROUPS = ("dataset", "strategy", "boundary", "line", "setting")
"""Columns that tell groups apart, of which each kind of study has some."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results")
    parser.add_argument("--metric", required=True)
    parser.add_argument("--curve", help="of a curves file")
    parser.add_argument("--first")
    parser.add_argument("--second")
    options = parser.parse_args()
    frame = pd.read_parquet(options.results)
    frame = frame[(frame["metric"] == options.metric) & frame["value"].notna()]
    if options.curve:
        frame = frame[frame["curve"] == options.curve]
    groups = [name for name in GROUPS if name in frame]
    if options.first:
        varied = "setting" if "setting" in frame else "strategy"
        groups.remove(varied)
        seeds = frame.pivot_table(index=[*groups, "seed"], columns=varied, values="value")
        found = seeds[options.first] - seeds[options.second]
        frame = found.rename("value").reset_index()
    print(f"| {' | '.join(groups)} | seeds | {options.metric} |\n|{'---|' * (len(groups) + 2)}")
    for names, own in frame.groupby(groups, sort=False):
        mean = mean_over_seeds(own["value"].tolist())
        shown = f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]"
        print(f"| {' | '.join(str(name) for name in names)} | {len(own)} | {shown} |")


if __name__ == "__main__":
    main()
