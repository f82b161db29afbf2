"""The demonstration: screen a generated file with the bundled model, fine-tune, and compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.writing import write_records
from forgetfilter.errors import RunExistsError
from forgetfilter.files import encode_json, write_json_atomic
from forgetfilter.lab.metrics import detection
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_probes, make_safe
from forgetfilter.lab.testbed.evaluate import accuracy_difference, evaluate
from forgetfilter.model.loading.model_files import model_fingerprint
from forgetfilter.places import require_writable_folder, shown
from forgetfilter.progress import Progress
from forgetfilter.runs.file_names import CONFIG_FILE, EVALUATION_FILE
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.schema import Evaluation
from forgetfilter.scoring.thresholds import choose_rule
from forgetfilter.screening.deciding.decide import (
    SCORES_FILE,
    finished_run,
    has_decision,
    read_summary,
    run_folder,
)
from forgetfilter.screening.finetune import record_stages, stored_setting
from forgetfilter.screening.method import fine_tune
from forgetfilter.screening.screen import screen

SCREENED = "fine-tuned, screened"
UNSCREENED = "fine-tuned, unscreened"
# Held-out prompts come from seeds that no noisy or safe set is made with.
_PROBE_SEED = 1_000_000


@dataclass(frozen=True)
class DemoSettings:
    """The generated data and the evaluation of one demonstration."""

    output_dir: Path
    rows: int = 600
    unsafe_fraction: float = 0.3
    safe_rows: int = 400
    probes: int = 1000
    seed: int = 0
    model: str | None = None
    """The bundled model unless given."""
    most_epochs: int | None = 6
    """Limit of the learn phase, so that a demonstration ends in minutes; None, or a preset or a
    limit among the settings' layers, leaves it alone."""


def run_demo(
    settings: DemoSettings,
    layers: tuple[dict[str, Any], ...] = (),
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Generate, screen, fine-tune and evaluate; writes ``evaluation.json`` and the report.

    The unscreened fine-tune is the learn stage itself: the same rows and settings. Whatever can be
    refused is refused before anything is written.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        ConfigError: a wrong setting, or more rows or prompts than the made-up world has.
        ModelError: there is no such model.
        RunExistsError: ``output_dir`` holds other files, or a demonstration on other rows.
    """
    progress = progress or Progress()
    data, run = settings.output_dir / "data", settings.output_dir / "run"
    noisy, truth_rows = make_noisy(settings.rows, settings.unsafe_fraction, settings.seed)
    made = {
        "noisy.jsonl": noisy,
        "truth.jsonl": truth_rows,
        "safe.jsonl": make_safe(settings.safe_rows, settings.seed),
    }
    make_probes(settings.probes, _PROBE_SEED + settings.seed)
    limit: dict[str, Any] = {}
    if settings.most_epochs is not None and not any("preset" in layer for layer in layers):
        limit = {"learn": {"num_train_epochs": settings.most_epochs}}
    config = resolve(
        ScreenConfig,
        limit,
        *layers,
        {
            "noisy_data": str(data / "noisy.jsonl"),
            "safe_data": str(data / "safe.jsonl"),
            "model": settings.model or str(bundled_model_path()),
            "output_dir": str(run),
            "seed": settings.seed,
        },
    )
    choose_rule(config.signal, config.threshold)
    model_fingerprint(config.model, config.trust_remote_code)
    _require_place(settings.output_dir, made, overwrite=overwrite)
    with run_folder(run).lock():  # no other process is writing the files
        for name, records in made.items():
            write_records(data / name, records)
    screen(config, progress, overwrite=overwrite)
    return evaluate_run(run, truth_rows, settings.probes, settings.seed, progress)


def _require_place(
    output: Path, made: Mapping[str, Sequence[Mapping[str, Any]]], *, overwrite: bool
) -> None:
    """Raise unless a demonstration on these rows may be written to ``output``.

    Raises:
        RunExistsError: it can't be written to, holds other files, or a demonstration on other rows
            that is not to be replaced.
    """
    require_writable_folder(output)
    names = {path.name for path in output.iterdir()} if output.is_dir() else set[str]()
    run, data = output / "run", output / "data"
    is_run = (run / CONFIG_FILE).is_file()
    in_data = {path.name for path in data.iterdir()} if data.is_dir() else set[str]()
    # Killed before its run began, a demonstration has left its data alone.
    if not is_run and (names - {"run", "data"} or in_data - made.keys()):
        raise RunExistsError(
            f"{shown(output)} holds other files. Expected a new or empty folder, or that of an "
            "earlier demonstration. Choose another --output-dir."
        )
    if overwrite or not has_decision(run):
        return
    known = run_folder(run).provenance().get("inputs", {})
    differ = [
        name
        for name, records in made.items()
        if known.get(f"{name.removesuffix('.jsonl')}_data", _digest(records)) != _digest(records)
    ]
    if differ:
        raise RunExistsError(
            f"{shown(output)} holds a demonstration on other rows ({', '.join(differ)}). Expected "
            "the same --rows, --unsafe-fraction and --seed. Use --overwrite to replace it, or "
            "another --output-dir."
        )


def _digest(records: Sequence[Mapping[str, Any]]) -> str:
    """The sha256 of the file that `write_records` makes of these."""
    lines = (encode_json(record) + b"\n" for record in records)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def evaluate_run(
    run: Path, truth: list[dict[str, Any]], probes: int, seed: int, progress: Progress
) -> dict[str, Any]:
    """Fine-tune on what a finished run kept, and measure three models on held-out prompts."""
    with finished_run(run) as folder:
        config = resolve(ScreenConfig, folder.config())
        finished = {"decision": read_summary(run)["decision"], "probes": probes}
        known = _read_json(run / EVALUATION_FILE)
        if known is not None and known.get("made_from") == finished:
            return known
        setting, is_kept = stored_setting(folder, config, progress)
        bench = setting.bench
        states = {
            "base": bench.base,
            UNSCREENED: fine_tune(setting, None, bench.base),
            SCREENED: fine_tune(setting, is_kept, bench.base),
        }
        prompts = make_probes(probes, _PROBE_SEED + seed)
        results = {
            name: evaluate(bench, state, prompts, f"evaluate {name}")
            for name, state in states.items()
        }
        record_stages(folder, bench.store)
        evaluation = {
            "prompts": probes,
            "detection": _grade(run, truth),
            "models": [{"name": name, **result.as_dict()} for name, result in results.items()],
            "task_difference": accuracy_difference(
                results[SCREENED], results[UNSCREENED]
            ).as_dict(),
            "made_from": finished,
        }
        evaluation = Evaluation.model_validate(evaluation).as_json()
        write_json_atomic(run / EVALUATION_FILE, evaluation)
        render_report(run)
    return evaluation


def describe(run: Path, evaluation: dict[str, Any]) -> str:
    """The table that the demonstration prints."""
    summary = read_summary(run)
    found = evaluation["detection"]
    decided = f"Decided again since by `forgetfilter filter`: {summary['threshold']['rule']}."
    lines = [
        *([decided] if summary["decided_by"] == "filter" else []),
        f"Rows: {summary['rows']:,}   kept {summary['kept']:,}   removed {summary['removed']:,}   "
        f"rejected {summary['rejected']:,}",
        f"Removed rows against the ground truth (higher is better): precision "
        f"{_number(found['precision'])}, recall {_number(found['recall'])}, "
        f"F1 {_number(found['f1'])}, AUROC {_number(found['auroc'])}",
        "",
        f"{'on ' + format(evaluation['prompts'], ',') + ' held-out prompts':<26}"
        f"{'unsafe':>9}{'safe':>9}{'neither':>9}{'task accuracy':>16}",
    ]
    for model in evaluation["models"]:
        cells = [
            f"{model[name]['value']:>9.1%}" for name in ("unsafe_rate", "safe_rate", "neither_rate")
        ]
        lines.append(f"{model['name']:<26}{''.join(cells)}{model['task_accuracy']['value']:>16.1%}")
    difference = evaluation["task_difference"]
    lines += [
        f"{'':<26}{'lower':>9}{'higher':>9}{'lower':>9}{'higher is better':>18}",
        "",
        f"Task accuracy, screened minus unscreened: {100 * difference['value']:+.1f} points "
        f"(95% interval {100 * difference['low']:+.1f} to {100 * difference['high']:+.1f})",
    ]
    return "\n".join(lines)


def _grade(run: Path, truth: list[dict[str, Any]]) -> dict[str, Any]:
    """Decision and scores against the ground truth, which nothing before this has read."""
    frame = pd.read_parquet(run / SCORES_FILE)
    frame = frame[frame["decision"] != "rejected"]
    by_id = {str(record["example_id"]): bool(record["is_unsafe"]) for record in truth}
    is_unsafe = np.array([by_id[example_id] for example_id in frame["example_id"]])
    is_removed = np.array([decision == "removed" for decision in frame["decision"]])
    scores = np.array(frame["forgetting_score"].tolist(), dtype=np.float64)
    return detection(is_unsafe, is_removed, scores).as_dict()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
