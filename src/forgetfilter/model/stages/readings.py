"""What is measured of every row in a state of the model: one stage for each probe.

A stage is filled in shards as the readings come, so that a killed pass goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.arrays import Int32Array
from forgetfilter.data.records import LEADING_DECAY, EncodedRow
from forgetfilter.data.strata import damage_rows
from forgetfilter.model.measuring.divergence import divergences
from forgetfilter.model.measuring.forgotten_likeness import forgotten_likeness, removed_likeness
from forgetfilter.model.measuring.likeness import (
    nearest_rows,
    own_likeness,
    safe_likeness,
)
from forgetfilter.model.measuring.rates import (
    loss_rates,
    read_descents,
    read_facts,
    write_directions,
)
from forgetfilter.model.measuring.safe_neighbours import nearest_safe_rows
from forgetfilter.model.measuring.text_likeness import text_likeness
from forgetfilter.model.measuring.unsafe_likeness import unsafe_likeness
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.model.passes.own_answers import OWN_TOKENS
from forgetfilter.model.passes.shards import Shards
from forgetfilter.model.processes.joining import joined
from forgetfilter.model.stages.keys import (
    CODE_VERSION,
    FORGOTTEN_LIKENESS_VERSION,
    LIKENESS_VERSION,
    rows_digest,
)
from forgetfilter.model.stages.measured_columns import MeasuredColumns
from forgetfilter.model.state import ModelState
from forgetfilter.model.team.leading import everywhere
from forgetfilter.model.team.on_ray import cluster
from forgetfilter.progress import Progress
from forgetfilter.runs.file_names import READINGS_FILE
from forgetfilter.runs.parquet_parts import (
    Column,
    columns_of,
    slices_of,
    write_parquet,
    write_parts,
)
from forgetfilter.scoring.records import NEIGHBOURS, Probe, Readings, StateName, with_evidence
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS, decide

if TYPE_CHECKING:
    from forgetfilter.model.workbench import Workbench

_LIKENESSES = {
    "likeness": safe_likeness,
    "own_likeness": own_likeness,
    "unsafe_likeness": unsafe_likeness,
}
"""By kind of probe: what holds rows against the safe rows, or against those in their place."""


def measure(
    bench: Workbench,
    probes: Iterable[Probe],
    states: Mapping[StateName, ModelState],
    rows: Sequence[EncodedRow],
    safe: Sequence[EncodedRow] = (),
    known: Mapping[str, Column] = MappingProxyType({}),
) -> Readings:
    """Measure each probe on every row; see `Workbench.measure`."""
    columns = MeasuredColumns(rows, bench.guessing)
    columns.add(known)
    digest = rows_digest(rows)
    numbers = np.fromiter((row.row for row in rows), np.int64, len(rows))
    for probe in probes:
        if probe.kind == "loss" and f"loss_sum_{probe.state}" in known:
            continue
        state = states[probe.state]
        if probe.kind == "damage":
            if not safe:
                raise ValueError(f"{probe} needs safe rows")
            few = damage_rows(safe, bench.seed)
            found = _measure_one(bench, probe, state, few, rows_digest(few))[probe.name]
            columns.add_constant(probe.name, float(found.mean()))
            continue
        if probe.kind == "safe_neighbours":
            columns.add(_measure_safe_neighbours(bench, probe, state, rows, digest, safe))
        elif probe.kind in ("forgotten_likeness", "removed_likeness"):
            told = Readings(numbers, columns)
            columns.add(_measure_by_evidence(bench, probe, state, rows, digest, told))
        elif probe.kind == "rate":
            columns.add(_measure_rate(bench, probe, state, rows, digest, safe))
        else:
            columns.add(_measure_one(bench, probe, state, rows, digest, safe))
    return Readings(row=numbers, columns=columns)


def _limits(bench: Workbench, probe: Probe, stage: Path) -> tuple[int, Progress, str, Shards]:
    """How a pass over rows is cut up, where it reports, and what it keeps on its way.

    A pass that several processes share keeps nothing on its way: each has read other rows.
    """
    shards = Shards()
    if joined() is None and cluster() is None:
        shards = Shards(stage, probe.name, bench.checkpoint_minutes, bench.progress)
    return bench.max_batch_tokens, bench.progress, probe.name, shards


def _measure_one(
    bench: Workbench,
    probe: Probe,
    state: ModelState,
    rows: Sequence[EncodedRow],
    digest: str,
    safe: Sequence[EncodedRow] = (),
) -> Mapping[str, Column]:
    """One probe as a stage of its own: columns in, columns out through one parquet file."""
    import pandas as pd

    key = {
        "code": CODE_VERSION,
        "state": state.fingerprint,
        "rows": digest,
        **bench.numerics(),
        "max_new_tokens": bench.max_new_tokens if probe.kind == "generation" else None,
    }
    if probe.kind == "loss":
        key["leading"] = LEADING_DECAY
    if probe.kind in ("neighbours", "text_likeness", *_LIKENESSES):
        key["likeness"] = LIKENESS_VERSION
    if probe.kind in ("own_likeness", "text_likeness"):
        key["tokens"] = OWN_TOKENS
    if probe.kind in ("text_likeness", *_LIKENESSES):
        if not safe:
            raise ValueError(f"{probe} needs rows to compare with")
        key["safe"] = rows_digest(safe)

    def build(folder: Path) -> None:
        limits = _limits(bench, probe, folder)
        if probe.kind == "loss":
            values = everywhere(bench, "to_read", state, completion_losses, rows, *limits)
            frame = pd.DataFrame(values.columns(probe.state), copy=False)
        elif probe.kind in ("divergence", "damage"):
            values = everywhere(bench, "in_state", state, divergences, rows, *limits)
            frame = pd.DataFrame({probe.name: values}, copy=False)
        elif probe.kind == "neighbours":
            more = (rows, NEIGHBOURS, *limits)
            found = everywhere(bench, "to_read", state, nearest_rows, *more)
            _write_numbers(folder, f"neighbour_{{}}_{probe.state}", rows, found)
            return
        elif probe.kind == "text_likeness":
            values = everywhere(bench, "to_read", state, text_likeness, rows, safe, *limits)
            named = {f"{of}_{probe.name}": found for of, found in values._asdict().items()}
            frame = pd.DataFrame(named, copy=False)
        elif likeness := _LIKENESSES.get(probe.kind):
            values = everywhere(bench, "to_read", state, likeness, rows, safe, *limits)
            frame = pd.DataFrame({probe.name: values}, copy=False)
        else:
            texts = bench.answers(state, rows, *limits[2:])
            frame = pd.DataFrame({f"generation_{probe.state}": texts})
        write_parquet(folder / READINGS_FILE, frame)

    folder = bench.store.stage(f"measure_{probe.name}", key, build)
    return columns_of(folder / READINGS_FILE)


def _measure_by_evidence(
    bench: Workbench,
    probe: Probe,
    state: ModelState,
    rows: Sequence[EncodedRow],
    digest: str,
    told: Readings,
) -> Mapping[str, Column]:
    """How like each row is to those that a signal finds forgotten most, as one stage."""
    import pandas as pd

    signal = SIGNALS.build(probe.evidence)
    scores = signal.combine(told)
    evidence = scores.forgetting_score
    key: dict[str, Any] = {
        "code": CODE_VERSION,
        "forgotten_likeness": FORGOTTEN_LIKENESS_VERSION,
        "state": state.fingerprint,
        "rows": digest,
        "evidence": hashlib.sha256(evidence.tobytes()).hexdigest(),
        **bench.numerics(),
    }
    likeness, more = forgotten_likeness, ()
    if probe.kind == "removed_likeness":
        rule = THRESHOLDS.build(str(signal.default_rule))
        own = decide(rule, evidence, with_evidence(told, scores), needs_learned=False)
        likeness, more = removed_likeness, (own.cut.value,)
        key["cut"] = own.cut.value

    def build(folder: Path) -> None:
        limits = _limits(bench, probe, folder)
        found = everywhere(bench, "to_read", state, likeness, rows, evidence, *more, *limits)
        write_parquet(folder / READINGS_FILE, pd.DataFrame({probe.name: found}))

    folder = bench.store.stage(f"measure_{probe.name}", key, build)
    return columns_of(folder / READINGS_FILE)


def _measure_safe_neighbours(
    bench: Workbench,
    probe: Probe,
    state: ModelState,
    rows: Sequence[EncodedRow],
    digest: str,
    safe: Sequence[EncodedRow],
) -> Mapping[str, Column]:
    """The safe rows that are most like each row, as one stage."""

    if not safe:
        raise ValueError(f"{probe} needs safe rows")
    key = {
        "code": CODE_VERSION,
        "state": state.fingerprint,
        "rows": digest,
        "safe": rows_digest(safe),
        "categories": [row.category for row in safe],
        **bench.numerics(),
    }

    def build(folder: Path) -> None:
        more = (rows, safe, NEIGHBOURS, *_limits(bench, probe, folder))
        found = everywhere(bench, "to_read", state, nearest_safe_rows, *more)
        _write_numbers(folder, f"safe_neighbour_{{}}_{probe.state}", safe, found)

    return columns_of(bench.store.stage(f"measure_{probe.name}", key, build) / READINGS_FILE)


def _write_numbers(
    folder: Path, name: str, others: Sequence[EncodedRow], found: Int32Array
) -> None:
    """Write what the rows at the places ``found``, shape (N, k), are numbered: k columns."""
    import pandas as pd

    numbers = np.fromiter((row.row for row in others), np.int64, len(others))
    names = [name.format(k) for k in range(found.shape[1])]
    frames = (
        pd.DataFrame(dict(zip(names, numbers[found[own]].T, strict=True)))
        for own in slices_of(len(found))
    )
    write_parts(folder / READINGS_FILE, frames)


def _measure_rate(
    bench: Workbench,
    probe: Probe,
    state: ModelState,
    rows: Sequence[EncodedRow],
    digest: str,
    safe: Sequence[EncodedRow],
) -> dict[str, np.ndarray[Any, Any]]:
    """Rates of change along each safe direction: one stage for those, one for the rates."""
    import pandas as pd

    folder = _directions(bench, probe, state, safe)
    found = read_facts(folder)
    names = [f"{probe.name}_{group}" for group in range(len(found))]
    key = {
        "code": CODE_VERSION,
        "directions": folder.name,
        "rows": digest,
        "method": "row gradients",
    }

    def build(stage: Path) -> None:
        more = (read_descents(folder), *_limits(bench, probe, stage))
        rates = everywhere(bench, "trainable_state", state, loss_rates, rows, *more)
        frame = pd.DataFrame(dict(zip(names, rates, strict=True)))
        write_parquet(stage / READINGS_FILE, frame)

    stage = bench.store.stage(f"measure_{probe.name}", key, build)
    frame = pd.read_parquet(stage / READINGS_FILE)
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name, facts in zip(names, found, strict=True):
        columns[name] = frame[name].to_numpy()
        columns[name.replace("rate", "step", 1)] = np.full(len(rows), facts["restoring_step"])
    return columns


def _directions(
    bench: Workbench, probe: Probe, state: ModelState, safe: Sequence[EncodedRow]
) -> Path:
    """The stage that holds the gradients of ``probe.objective`` over groups of safe rows."""
    objective = probe.objective
    if objective is None or not safe or state.adapter is None:
        raise ValueError(f"{probe} needs an objective, safe rows, and a state with an adapter")
    key = {
        "code": CODE_VERSION,
        "state": state.fingerprint,
        "safe": rows_digest(safe),
        "objective": objective,
        "groups": probe.groups,
        **bench.numerics(),
    }

    def build(folder: Path) -> None:
        model = bench.model.in_state(state, is_trainable=True)
        limits = (bench.max_batch_tokens, bench.progress, f"direction_{objective}")
        write_directions(folder, model, safe, objective, probe.groups, *limits)

    return bench.store.stage(f"direction_{objective}_{probe.state}", key, build)
