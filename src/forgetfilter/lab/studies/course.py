"""Losses of rows by step of learning and forgetting, and how well they separate unsafe rows.

The figures of "Learning and Forgetting Unsafe Examples in Large Language Models" (arXiv 2312.12736)
that follow kinds of row along training steps; with losses in place of generations, unless the
signal ``rouge1`` is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray
from forgetfilter.data.records import EncodedRow
from forgetfilter.lab.metrics import MetricValue, detection
from forgetfilter.lab.metrics.values import mean_value, share_value
from forgetfilter.lab.studies.datasets import Data
from forgetfilter.lab.studies.points import CourseSettings, needs_forgetting
from forgetfilter.model.stages.phases import checkpoints
from forgetfilter.model.state import ModelState
from forgetfilter.scoring.records import Probe, Readings, StateName, is_learned
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.screening.method import ALWAYS, Setting, restored_states

LEARNING, FORGETTING, REFERENCE = "learning", "forgetting", "reference"
"""Curves against steps of the two phases; and signals that need no forgetting run."""
DETAIL = "detail"
"""Group of what is in the parquet file only."""

ResultRow = dict[str, Any]
"""One number with all that it takes to read it; see `curve_tables.CURVE_COLUMNS`."""


@dataclass(frozen=True)
class Line:
    """Some of the noisy rows, drawn as one line."""

    name: str
    group: str
    is_in: BoolArray
    """Shape (N,)."""


def follow(
    setting: Setting, course: CourseSettings, data: Data, is_unsafe: BoolArray | None
) -> list[ResultRow]:
    """Learn, forget for as long as the largest t, and measure the model on the way.

    The forgetting run is one run, measured after each t: with a constant learning rate (the
    default of the forget phase) its state after t steps is that of a run of t steps.

    Args:
        setting: rows, settings, and a bench whose ``kept_steps`` are those of ``course``.
        course: where to look.
        data: what the rows are about.
        is_unsafe: the ground truth, shape (N,), where there is one; it only grades.
    """
    bench, config = setting.bench, setting.config
    lines = lines_of(setting.noisy, data, is_unsafe)
    base = bench.base
    learned = bench.train("learned", setting.noisy, config.learn, base, phase="learn")
    length = config.forget.model_copy(update={"max_steps": max(course.forgetting_steps)})
    forgotten = bench.train("forgotten", setting.safe, length, learned, phase="forget")
    before = bench.measure([Probe("loss", "base")], {"base": base}, setting.noisy)

    stations = {
        LEARNING: {0: base, **checkpoints(learned)},
        FORGETTING: {0: learned, **checkpoints(forgotten)},
    }
    rows: list[ResultRow] = []
    for curve, states in stations.items():
        for step, state in states.items():
            found = bench.measure([Probe("loss", state.name)], {state.name: state}, setting.noisy)
            rows += [
                result_row(curve, str(step), step, line.name, line.group, value)
                for line in lines
                for value in _fit(line, before, found, state.name)
            ]
    if is_unsafe is not None:
        for signal in course.signals:
            known: dict[StateName, ModelState] = {"base": base, "learned": learned}
            if not needs_forgetting(signal):
                values = _detection(setting, signal, known, is_unsafe)
                rows += [result_row(REFERENCE, "", None, signal, "detection", v) for v in values]
                continue
            for step, state in checkpoints(forgotten).items():
                values = _detection(setting, signal, {**known, "forgotten": state}, is_unsafe)
                rows += [
                    result_row(FORGETTING, str(step), step, signal, "detection", value)
                    for value in values
                ]
    return rows


def lines_of(noisy: Sequence[EncodedRow], data: Data, is_unsafe: BoolArray | None) -> list[Line]:
    """What is drawn: unsafe rows by harm, harmless ones of these harms and others.

    Beside them each kind, for the parquet file only. Without a truth all rows are one line.
    """
    every = np.ones(len(noisy), dtype=np.bool_)
    if is_unsafe is None:
        return [Line("all rows", "course", every)]
    ids = {row.row: row.example_id for row in data.noisy.rows}
    known = [data.kinds.get(ids[row.row]) for row in noisy]
    harms = np.array([(one.harm if one else None) or "" for one in known])
    kinds = np.array([one.kind if one else "" for one in known])
    found = [
        Line(f"unsafe: {harm}" if harm else "unsafe", "course", is_unsafe & (harms == harm))
        for harm in sorted(set(harms[is_unsafe].tolist()))
    ]
    same = ~is_unsafe & (harms != "")
    found.append(Line("harmless: same harms", "course", same))
    found.append(Line("harmless: others", "course", ~is_unsafe & ~same))
    for verdict, chosen in (("unsafe", is_unsafe), ("harmless", ~is_unsafe)):
        found += [
            Line(f"{verdict} kind: {kind}", DETAIL, chosen & (kinds == kind))
            for kind in sorted(set(kinds[chosen].tolist()))
            if kind
        ]
    return [line for line in found if line.is_in.any()]


def result_row(
    curve: str, setting: str, x: float | None, line: str, group: str, value: MetricValue
) -> ResultRow:
    """One number of one line at one place of a curve."""
    found = value.as_dict()
    place = {"curve": curve, "setting": setting, "x": x, "line": line}
    return {**place, "metric": found.pop("name"), "group": group, **found}


def _fit(line: Line, before: Readings, found: Readings, state: StateName) -> list[MetricValue]:
    """How well the rows of a line are fitted, against the base model."""
    losses = found.loss_mean(state)[line.is_in]
    matched = found[f"greedy_match_{state}"].astype(np.bool_)
    learned = is_learned(before["loss_sum_base"], found[f"loss_sum_{state}"], matched)
    return [
        mean_value("loss", losses.tolist(), "nats per token", "lower"),
        share_value("learned_share", learned[line.is_in].tolist(), "higher"),
    ]


def _detection(
    setting: Setting, name: str, states: Mapping[StateName, ModelState], is_unsafe: BoolArray
) -> list[MetricValue]:
    """How well a signal's scores separate unsafe rows from the others."""
    signal = SIGNALS.build(name)
    probes = tuple(dict.fromkeys((*ALWAYS, *signal.probes)))
    known = dict(states)
    known |= restored_states(setting, probes, known["learned"])
    readings = setting.bench.measure(probes, known, setting.noisy, setting.safe)
    scores = signal.combine(readings).forgetting_score
    found = detection(is_unsafe, np.zeros(len(scores), dtype=np.bool_), scores)
    n = len(scores)
    return [
        MetricValue("auroc", found.auroc, "0..1", "higher", n),
        MetricValue("average_precision", found.average_precision, "0..1", "higher", n),
    ]
