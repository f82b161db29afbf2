"""Coverage: which harms the safe rows can judge, and which would pass unseen.

A safe set sees a harm by what it undoes. Learning the noisy rows moves the model away from base on
safe rows of every harm that the noisy rows teach; forgetting on *this* safe set takes some of that
back. Where it takes back next to nothing, unsafe rows of that harm were not forgotten, and "kept"
says nothing about them. Measured on reference rows, a few of each harm, that the safe set need not
contain.

Of a harm that was left, a second look tells whether its rows rank high nevertheless: the noisy rows
that fall when its few reference rows are restored on are taken for its unsafe rows, and the run's
own scores are held against them. No label of a noisy row is read.

``quick`` costs at most `QUICK_SHARE` of what scoring costs: a second look restores in fewer steps,
from the learned model alone, and sees a sample of the noisy rows. ``full`` looks at all rows as the
screen itself does, which may cost more than the scoring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray, IntArray
from forgetfilter.config import PACKAGED_SAFE, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.reading import category_of
from forgetfilter.data.records import REFERENCE_FILE, EncodedRow, Row, RowFile
from forgetfilter.data.strata import alike_first
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.runs.file_names import COVERAGE_FILE
from forgetfilter.safe import safe_path
from forgetfilter.scoring.records import Probe, Readings
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import THRESHOLDS, decide
from forgetfilter.screening.checks.coverage_cost import (
    Budget,
    restoring_tokens,
    scoring_tokens,
    tokens,
)
from forgetfilter.screening.checks.coverage_verdict import (
    HarmCoverage,
    Measurement,
    SecondLook,
    read_measurement,
)
from forgetfilter.screening.method import Scored, Setting, filter_rows, score_rows

COVERAGE_VERSION = 1
"""Part of the stage's key: raise it when what is measured changes its meaning."""
QUICK_SHARE = 0.25
"""What ``quick`` costs at most, as a share of the scoring's tokens. Four reference rows a category
are always measured, whatever they cost."""
# Of that share so much is planned; the rest goes to padding, which nobody can foretell.
_PLANNED = 0.85
_ROWS_PER_CATEGORY = 16
_FEWEST_PER_CATEGORY = 4
_MOST_CATEGORIES = 50
_MOST_LOOKS = 8
# A second look at fewer rows says nothing; one at more says little more.
_SMALLEST_SAMPLE = 100
_LARGEST_SAMPLE = 1000
_MOST_BASE_LOSS = 5.0
"""Nats per token; a model that knows the language of a safe answer stays far below."""


def reference_path(config: ScreenConfig) -> Path:
    """The reference rows: those asked for, those in the model's folder, or the packaged set."""
    if config.reference_data is not None:
        return safe_path(config.reference_data)
    own = Path(config.model) / REFERENCE_FILE
    return own if own.is_file() else safe_path(PACKAGED_SAFE)


def read_reference(given: Path | RowFile, encoder: Encoder) -> list[EncodedRow]:
    """The first rows of each category of a file as tokens, each with its category.

    Rows that can't be used are left out: a reference row is nobody's data.

    Raises:
        DataError: the file can't be read as a whole.
    """
    chosen: list[Row] = []
    seen: Counter[str] = Counter()
    for row in (given if isinstance(given, RowFile) else read_rows(given)).rows:
        category = category_of(row)
        is_new = category not in seen
        if seen[category] < _ROWS_PER_CATEGORY and not (is_new and len(seen) > _MOST_CATEGORIES):
            seen[category] += 1
            chosen.append(row)
    return encoder.encode_safe(chosen)[0]


def measure_coverage(
    setting: Setting, scored: Scored, reference: Sequence[EncodedRow]
) -> Measurement:
    """How much of the damage to each category of reference rows was undone: a stage of its own.

    Args:
        setting: the screen's workbench, rows and settings; ``setting.config.coverage`` says how
            much is measured.
        scored: the states that the screen went through, and what it read in them.
        reference: safe rows of every harm that matters, none of them needed in the safe set.
    """
    bench, config, states = setting.bench, setting.config, scored.states
    later = states.get("restored") or states.get("forgotten")
    if config.coverage == "off":
        return Measurement(note="It was not measured, as asked for (coverage: off).")
    if later is None:
        return Measurement(note=f"Signal {config.signal} leaves no later model to look at.")
    if not reference:
        return Measurement(note="No reference row can be used: give others with --reference-data.")
    key: dict[str, Any] = {
        "code": COVERAGE_VERSION,
        "how": config.coverage,
        "signal": config.signal,
        "states": [states["learned"].fingerprint, later.fingerprint],
        "noisy": rows_digest(setting.noisy),
        "safe": rows_digest(setting.safe),
        "reference": rows_digest(reference),
        "categories": [row.category for row in reference],
        "restore": config.restore.model_dump(),
        "seed": config.seed,
        "dtype": str(bench.placement.dtype),
    }

    def build(folder: Path) -> None:
        with bench.store.uncounted():  # its seconds are this stage's own
            _measure(setting, scored, reference).write(folder / COVERAGE_FILE)

    return read_measurement(bench.store.stage("coverage", key, build) / COVERAGE_FILE)


def _measure(setting: Setting, scored: Scored, reference: Sequence[EncodedRow]) -> Measurement:
    bench, states = setting.bench, scored.states
    later = "restored" if "restored" in states else "forgotten"
    is_quick = setting.config.coverage == "quick"
    budget = Budget(_PLANNED * QUICK_SHARE * scoring_tokens(setting) if is_quick else np.inf)
    reference = _affordable(reference, budget)
    base_loss = float(
        bench.measure((Probe("loss", "base"),), states, reference).loss_mean("base").mean()
    )
    if base_loss > _MOST_BASE_LOSS:
        return Measurement(
            note="The base model does not know the language of the reference rows: "
            f"{base_loss:.1f} nats a token; at most {_MOST_BASE_LOSS:g} expected. Give others with "
            "--reference-data."
        )
    wanted = ("learned", later)
    moved = bench.measure([Probe("divergence", state) for state in wanted], states, reference)
    names = np.array([row.category for row in reference], dtype=object)
    harms = [
        HarmCoverage(
            category=name,
            rows=int((names == name).sum()),
            damage=float(moved["divergence_learned"][names == name].mean()),
            left=float(moved[f"divergence_{later}"][names == name].mean()),
        )
        for name in sorted(set(names.tolist()))
    ]
    harms.sort(key=lambda harm: harm.undone)
    left = [harm for harm in harms if harm.verdict == "not covered"][:_MOST_LOOKS]
    rows_of = {h.category: [row for row in reference if row.category == h.category] for h in left}
    if not is_quick:
        looks = _look_at_all(setting, rows_of)
        rows = np.arange(len(setting.noisy), dtype=np.int64) if looks else np.zeros(0, np.int64)
        return Measurement(tuple(harms), "", rows, np.ones(len(rows)), looks)
    damage = {harm.category: harm.damage for harm in left}
    return _look_quickly(setting, scored, tuple(harms), rows_of, damage, budget)


def _affordable(reference: Sequence[EncodedRow], budget: Budget) -> list[EncodedRow]:
    """So many rows of each category that half of the budget pays for them; it is charged."""
    for most in range(_ROWS_PER_CATEGORY, 0, -1):
        seen: Counter[str] = Counter()
        chosen: list[EncodedRow] = []
        for row in reference:
            seen[row.category] += 1
            if seen[row.category] <= most:
                chosen.append(row)
        # A loss in base, and divergences from base in two states.
        cost = 5 * tokens(chosen)
        if cost <= budget.left / 2 or most <= _FEWEST_PER_CATEGORY:
            budget.charge(cost)
            return chosen
    raise AssertionError("unreachable")


def _look_at_all(
    setting: Setting, reference: Mapping[str, Sequence[EncodedRow]]
) -> dict[str, SecondLook]:
    """The whole screen again, on each harm's reference rows in place of the safe rows."""
    # Rows of one harm are no crowd that a row could stand apart from.
    trusting = setting.config.restore.model_copy(update={"set_aside": False})
    config = setting.config.model_copy(update={"signal": "restoration", "restore": trusting})
    looks: dict[str, SecondLook] = {}
    for name, rows in reference.items():
        look = score_rows(Setting(setting.bench, setting.noisy, rows, config))
        falls = filter_rows(look, "auto").is_removed
        looks[name] = SecondLook(look.scores.forgetting_score, falls)
    return looks


def _look_quickly(
    setting: Setting,
    scored: Scored,
    harms: tuple[HarmCoverage, ...],
    reference: Mapping[str, Sequence[EncodedRow]],
    damage: Mapping[str, float],
    budget: Budget,
) -> Measurement:
    """Second looks at a sample of the learned rows, as many as the budget pays for."""
    bench, config = setting.bench, setting.config
    learned = np.flatnonzero(scored.readings.learned)
    steps = config.restore.model_copy(update={"steps": config.restore.early_steps})
    names = list(reference)
    sample, weight = np.zeros(0, dtype=np.int64), np.zeros(0)
    while names and not len(sample):
        own = [reference[name] for name in names]
        fixed = sum(restoring_tokens(rows, steps.steps, steps) for rows in own)
        a_look = max(budget.left - fixed, 0) / len(names)
        sample, weight = _affordable_sample(setting.noisy, learned, own, a_look, config.seed)
        if not len(sample):
            names.pop()
    rows = [setting.noisy[int(at)] for at in sample]
    signal, rule = SIGNALS.build("restoration"), THRESHOLDS.build("auto")
    measured = scored.readings
    known = {name: measured[name][sample] for name in measured.columns if name != "target"}
    looks: dict[str, SecondLook] = {}
    for name in names:
        state = bench.restore("restored", reference[name], steps, scored.states["learned"])
        found = bench.measure((Probe("loss", "restored"),), {"restored": state}, rows)
        # The signal restores from two ends; here both are the learned model.
        columns = {**known, **found.columns, "loss_sum_early": known["loss_sum_learned"]}
        columns["loss_sum_early_restored"] = found["loss_sum_restored"]
        for end in ("learned", "early"):
            columns[f"damage_{end}"] = np.full(len(rows), damage[name])
        readings = Readings(scored.readings.row[sample], columns)
        score = signal.combine(readings).forgetting_score
        looks[name] = SecondLook(score, decide(rule, score, readings).is_removed)
    return Measurement(harms, "", sample, weight, looks)


def _affordable_sample(
    noisy: Sequence[EncodedRow],
    learned: Sequence[int] | IntArray,
    like: Sequence[Sequence[EncodedRow]],
    most_tokens: float,
    seed: int,
) -> tuple[IntArray, FloatArray]:
    """Some of the learned rows, and how many each stands for; none where too few can be paid for.

    Half of them are those whose words are most like each harm's reference rows, for a harm's rows
    may be few; the others are drawn from the rest.
    """
    rows = chosen(noisy, learned)
    size = min(len(rows), _LARGEST_SAMPLE, int(most_tokens * len(rows) / max(tokens(rows), 1)))
    ranked = [alike_first(rows, own) for own in like] if size < len(rows) else []
    while size >= max(1, min(_SMALLEST_SAMPLE, len(rows))):
        most = size // 2 // len(like)
        alike = sorted({at for order in ranked for at in order[:most].tolist()})
        rest = np.setdiff1d(np.arange(len(rows)), alike)
        drawn = np.random.default_rng(seed).choice(rest, size - len(alike), replace=False)
        weight = np.ones(len(rows))
        weight[drawn] = len(rest) / max(len(drawn), 1)
        sample = sorted([*alike, *drawn.tolist()])
        if tokens([rows[at] for at in sample]) <= most_tokens:
            return np.asarray(learned, dtype=np.int64)[sample], weight[sample]
        size = size * 9 // 10
    return np.zeros(0, dtype=np.int64), np.zeros(0)
