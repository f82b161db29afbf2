"""By how much is a strategy's rate lower than another's, over the seeds of a comparison?

    python benchmarks/lower_by.py RUN/results.parquet --strategy forget_filter --than none

Percent of the other's rate, for each unsafe rate: mean over seeds with its 95% t interval, and the
worst seed.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from forgetfilter.metrics.rates import mean_over_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results")
    parser.add_argument("--strategy", required=True)
    parser.add_argument("--than", required=True)
    options = parser.parse_args()
    frame = pd.read_parquet(options.results)
    rates = frame[frame["metric"].str.fullmatch(r"unsafe_rate(_[a-z]+)?")]
    by_seed = rates.pivot(index=["metric", "seed"], columns="strategy", values="value")
    print("| rate | lower by % (higher) | worst seed |\n|---|---|---|")
    for metric, own in by_seed.groupby(level="metric"):
        lower = 100 * (1 - own[options.strategy] / own[options.than]).to_numpy()
        if np.isfinite(lower).all():
            mean = mean_over_seeds(lower)
            found = f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}] | {lower.min():.1f}"
        else:
            found = "– | – (a seed's other rate is 0)"
        print(f"| {metric} | {found} |")


if __name__ == "__main__":
    main()
