"""The figures of docs/study.md, from the results that are kept beside it.

    python benchmarks/study_figures.py docs/study/testbed_interleave.parquet

Draws what the studies' own pages draw, each plot as one SVG file beside its results file.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path

import pandas as pd

from forgetfilter.files import write_bytes_atomic
from forgetfilter.report import page_environment
from forgetfilter.studies import boundaries, curve_tables
from forgetfilter.studies.lines import lines
from forgetfilter.studies.plots import scatter
from forgetfilter.studies.results import summarise

COMPARED = (("unsafe_rate", "task_accuracy"),)
AT_BOUNDARIES = ("unsafe_rate", "task_accuracy")
ALONG_CURVES = (
    ("learning", "loss"),
    ("forgetting", "loss"),
    ("forgetting", "auroc"),
    ("threshold", "f1"),
    ("safe_rows", "auroc"),
    ("unsafe_fraction", "auroc"),
    ("model", "auroc"),
)
_HEIGHT, _LINE = 380, 18
"""Pixels of a plot, and of a line of its key."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.parquet")
    for path in parser.parse_args().results:
        results = pd.read_parquet(path)
        datasets = results["dataset"].unique()
        for dataset in datasets:
            stem = path.stem if len(datasets) == 1 else f"{path.stem}_{dataset}"
            for name, figure in figures(results, dataset):
                target = path.with_name(f"{stem}_{name}.svg")
                write_bytes_atomic(target, figure.encode())
                print(target)


def figures(results: pd.DataFrame, dataset: str) -> Iterator[tuple[str, str]]:
    """Names and SVG text of what is known of a data set; the columns tell the kind of study."""
    macros = page_environment().get_template("study_plots.html").module
    if "boundary" in results:
        stations = [(one.name, one.means) for one in boundaries.stations_of(results, dataset)]
        for metric in AT_BOUNDARIES:
            if drawn := lines(stations, metric):
                yield metric, standalone(macros.line_plot(drawn), drawn.y_title)
    elif "curve" in results:
        for curve, metric in ALONG_CURVES:
            found = curve_tables.stations_of(results, dataset, curve)
            if drawn := lines([(one.name, one.means) for one in found], metric):
                yield f"{curve}_{metric}", standalone(macros.line_plot(drawn), drawn.y_title)
    else:
        own = summarise(results.loc[results["dataset"] == dataset])
        for x, y in COMPARED:
            if drawn := scatter(own, x, y):
                yield y, standalone(macros.scatter_plot(drawn), drawn.y_title)


def standalone(panel: str, title: str) -> str:
    """A panel of a page as one SVG file: its plot with the title above and the key below."""
    templates = files("forgetfilter") / "templates"
    colours = (templates / "report.css").read_text().partition("* {")[0]
    style = f"{colours}{(templates / 'compare.css').read_text()}svg {{ font-family: sans-serif; }}"
    plot = re.search(r"(<svg[^>]*>)(.*)</svg>", panel, re.DOTALL)
    key = re.findall(r"<li(?: class=\"(line-\d)\")?><bdi>(.*?)</bdi>", panel)
    assert plot is not None
    height = _HEIGHT + 24 + _LINE * len(key)
    opening = plot[1].replace(f"0 0 640 {_HEIGHT}", f"0 -20 640 {height}")
    opening = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    entries = "".join(
        f'<g class="{hue}"><circle cx="62" cy="{at - 4}" r="4"/>'
        f'<text x="74" y="{at}">{number}. {name}</text></g>'
        for number, (hue, name) in enumerate(key, start=1)
        for at in [_HEIGHT + _LINE * number]
    )
    return (
        f"{opening}<style>{escape(style, quote=False)}</style>"
        f'<rect x="0" y="-20" width="640" height="{height}" fill="var(--surface)"/>'
        f'<text x="56" y="0">{escape(title)}</text>{plot[2]}{entries}</svg>'
    )


if __name__ == "__main__":
    main()
