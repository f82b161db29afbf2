"""A study's plots as SVG, drawn by matplotlib (the extra ``lab``).

The same numbers give the same bytes: ids are salted, and no date is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from io import BytesIO
from typing import TYPE_CHECKING, Any, ParamSpec

from forgetfilter.errors import MissingExtraError
from forgetfilter.lab.studies.results import Mean
from forgetfilter.lab.studies.tables import Station, heading, is_share
from forgetfilter.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_P = ParamSpec("_P")

_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "forgetfilter",
    # Names of strategies are written by whoever wrote the settings: a dollar sign is a dollar sign.
    "text.parse_math": False,
}
_COLOURS = ("#2f86c3", "#dd6b1f", "#1f9d76", "#a35bb5", "#a8860f", "#c8436f")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")
_WIDTH, _HEIGHT, _LEGEND_LINE = 7.0, 3.6, 0.18
"""Inches; the legend adds to the height."""
_SPREAD = 0.5
"""Share of a station's width over which the lines are spread side by side."""
_LONGEST_NAME = 70


@dataclass(frozen=True)
class Plot:
    """One plot of one data set."""

    title: str
    """What it shows, in words, for those who don't see it."""
    svg: str
    """An ``<svg>`` element, which may be a file of its own."""

    @property
    def inline(self) -> str:
        """The element as it is in an HTML page, whose parser knows the namespaces."""
        return re.sub(r' xmlns(:\w+)?="[^"]*"', "", self.svg)


def without_plots() -> str | None:
    """Why there are no plots, in words; None where there can be."""
    try:
        _matplotlib()
    except MissingExtraError as error:
        return str(error)
    return None


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingExtraError(
            "matplotlib is not installed. Expected it for the plots of a study. Install it with "
            "pip install 'forgetfilter[lab]' and repeat the command: finished cells are not run "
            "again."
        ) from None
    return matplotlib


def _styled(draw: Callable[_P, Plot | None]) -> Callable[_P, Plot | None]:
    """Draw in our style, whatever that of the program around it."""

    @wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Plot | None:
        with _matplotlib().rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def scatter(means: Sequence[Mean], x: str, y: str) -> Plot | None:
    """Two metrics against each other, a point per strategy; None where no strategy has both.

    Args:
        means: of one data set.
        x: the metric that goes to the right.
        y: the metric that goes up.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    across, up = _by_strategy(means, x), _by_strategy(means, y)
    both = [name for name in across if name in up]
    if not both:
        return None
    plot = _Drawing(len(both), both)
    for at, name in enumerate(both):
        right, high = _scaled(across[name]), _scaled(up[name])
        plot.axes.errorbar(
            [right[0]],
            [high[0]],
            xerr=_bars([right]),
            yerr=_bars([high]),
            fmt=_MARKERS[at % len(_MARKERS)],
            color=_COLOURS[at % len(_COLOURS)],
            elinewidth=1,
            label=_label(name),
        )
    plot.axes.set_xlabel(_title(across[both[0]]))
    plot.axes.set_ylabel(_title(up[both[0]]))
    return plot.finish(f"{_title(up[both[0]])} against {_title(across[both[0]])}")


@_styled
def lines(stations: Sequence[Station], metric: str, along: str) -> Plot | None:
    """A metric at each station, a line per strategy; None where no strategy has it.

    Lines are drawn a little beside each other, so that no interval hides another. A line
    that does not come through a station goes straight on.

    Args:
        stations: from left to right, each with its means.
        metric: what goes up.
        along: what the stations are, in words.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    found = [_by_strategy(station.means, metric) for station in stations]
    names = list(dict.fromkeys(name for means in found for name in means))
    if not names:
        return None
    plot = _Drawing(len(names), names)
    for at, name in enumerate(names):
        beside = _SPREAD * ((at + 0.5) / len(names) - 0.5)
        own = [(place, means[name]) for place, means in enumerate(found) if name in means]
        values = [_scaled(mean) for _, mean in own]
        plot.axes.errorbar(
            [place + beside for place, _ in own],
            [value for value, _, _ in values],
            yerr=_bars(values),
            fmt=_MARKERS[at % len(_MARKERS)],
            linestyle=_DASHES[at % len(_DASHES)],
            color=_COLOURS[at % len(_COLOURS)],
            markersize=4,
            elinewidth=1,
            label=_label(name),
        )
    title = _title(next(mean for means in found for mean in means.values()))
    plot.axes.set_xticks(range(len(stations)), [_label(station.name) for station in stations])
    plot.axes.grid(visible=False, axis="x")
    plot.axes.set_xlabel(along)
    plot.axes.set_ylabel(title)
    return plot.finish(f"{title}, by {along}")


@_styled
def bars(means: Sequence[Mean], metric: str) -> Plot | None:
    """A metric as horizontal bars, one per strategy; None where no strategy has it.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    found = _by_strategy(means, metric)
    if not found:
        return None
    plot = _Drawing(0, list(found), height=0.8 + 0.25 * len(found))
    values = [_scaled(mean) for mean in found.values()]
    plot.axes.barh(
        range(len(values)),
        [value for value, _, _ in values],
        xerr=_bars(values),
        color=_COLOURS[0],
        ecolor="black",
    )
    plot.axes.set_yticks(range(len(values)), [_label(name) for name in found])
    plot.axes.invert_yaxis()
    plot.axes.grid(visible=False, axis="y")
    title = _title(next(iter(found.values())))
    plot.axes.set_xlabel(title)
    return plot.finish(title)


class _Drawing:
    """One figure with one pair of axes, and the legend of ``entries`` lines below them."""

    def __init__(self, entries: int, names: Sequence[str], height: float = _HEIGHT) -> None:
        from matplotlib.figure import Figure

        is_short = all(len(name) <= _LONGEST_NAME // 2 for name in names)
        self.columns = 2 if is_short else 1
        rows = math.ceil(entries / self.columns)
        size = (_WIDTH, height + _LEGEND_LINE * rows)
        self.figure: Figure = Figure(size, layout="constrained")
        self.axes: Axes = self.figure.add_subplot()

    def finish(self, title: str) -> Plot:
        """The figure as SVG."""
        kept = BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        if self.axes.get_legend_handles_labels()[0]:
            self.figure.legend(
                loc="outside lower left", ncols=self.columns, frameon=False, fontsize=8
            )
        self.figure.savefig(kept, format="svg", metadata=nothing)
        return Plot(title, _element(kept.getvalue().decode(), title))


def _element(svg: str, title: str) -> str:
    """The SVG element without the prolog of a file, and without ids that nothing refers to.

    Several of them may be in one page, in which an id counts once.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r' id="[\w.]+_\d+"', "", body)
    words = printable(title, 300).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return body.replace("<svg", f'<svg class="plot" role="img" aria-label="{words}"', 1)


def _by_strategy(means: Sequence[Mean], metric: str) -> Mapping[str, Mean]:
    """The finite means of a metric by strategy; a mean without an interval is its own."""
    found: dict[str, Mean] = {}
    for mean in means:
        if mean.metric == metric and math.isfinite(mean.value):
            is_known = math.isfinite(mean.low) and math.isfinite(mean.high)
            found[mean.strategy] = (
                mean if is_known else replace(mean, low=mean.value, high=mean.value)
            )
    return found


def _scaled(mean: Mean) -> tuple[float, float, float]:
    """Value and interval, shares as percentages."""
    scale = 100 if is_share(mean.unit) else 1
    return scale * mean.value, scale * mean.low, scale * mean.high


def _bars(values: Sequence[tuple[float, float, float]]) -> list[list[float]]:
    """How far the intervals reach below and above the values."""
    below = [max(value - low, 0.0) for value, low, _ in values]
    return [below, [max(high - value, 0.0) for value, _, high in values]]


def _title(mean: Mean) -> str:
    return heading(mean.metric, mean.unit, mean.direction)


def _label(name: str) -> str:
    # matplotlib leaves labels that begin with an underscore out of the legend.
    return printable(name, _LONGEST_NAME).lstrip("_") or "–"
