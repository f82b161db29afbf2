"""screen, finetune, report, gc: the method and what comes after."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetfilter.cli.fail_on import STATUS, Condition, add_fail_on, failed, parse_conditions
from forgetfilter.cli.kinds import (
    CHECKPOINT_HELP,
    Parser,
    column_map,
    signal_names,
    threshold_names,
)
from forgetfilter.cli.launched import reading_by
from forgetfilter.progress import tell
from forgetfilter.text import printable

_ACTIONS = {"weight": "weights", "mask": "what carries no loss"}

_SCREEN_FLAGS: dict[str, tuple[str, Any]] = {
    "--preset": ("settings to start from: default, or paper (arXiv 2312.12736)", str),
    "--signal": ("forgetting signal (default: contradiction)", str),
    "--threshold": (
        "threshold rule, such as phi:0.1 (default: the signal's own); reviewed decides finished "
        "runs alone, with filter",
        str,
    ),
    "--coverage": (
        "which harms the safe rows can judge: quick (default, at most a quarter of the scoring's "
        "cost), full, or off",
        str,
    ),
    "--action": (
        "write all rows beside kept and removed ones: remove (default: don't), flag, weight, mask",
        str,
    ),
    "--seed": ("seeds adapters, order and dropout", int),
    "--device": ("auto, cpu, cuda or mps", str),
    "--dtype": ("auto, float32 or bfloat16", str),
    "--max-length-tokens": ("reject longer rows (default: the model's context)", int),
    "--checkpoint-minutes": (CHECKPOINT_HELP, float),
}


def add(commands: Any) -> None:
    """The commands of this group."""
    screen = commands.add_parser("screen", help="score a file's rows and remove suspected ones")
    screen.add_argument(
        "noisy_data",
        nargs="*",
        metavar="FILE",
        help="what to screen: JSON Lines, a JSON array, CSV, TSV, Parquet, Arrow (also .gz or "
        ".zst), a saved data set, a pattern, or hub:owner/name[@revision][:split]",
    )
    add_reading(screen)
    screen.add_argument("--model", metavar="DIR_OR_ID", help="causal language model; or FILE.gguf")
    screen.add_argument(
        "--safe-data",
        metavar="SAFE.jsonl",
        help="rows known to be safe (default: the packaged general-purpose set, in English)",
    )
    screen.add_argument(
        "--trusted-data",
        action="append",
        metavar="HARMLESS.jsonl",
        help="rows of your own that are known to be harmless: screened along, always kept, and the "
        "cut is set so that such a row would go with a probability of at most 1%% "
        "(--threshold conformal:rate=0.01); may be given several times",
    )
    screen.add_argument(
        "--reference-data",
        metavar="REFERENCE.jsonl",
        help="safe rows with a category each: says which harms the safe rows can judge",
    )
    screen.add_argument(
        "--learned-from",
        metavar="RECORDED",
        help="take the place of the learn phase: a training of your own, recorded by the callback "
        "record_training; for signals of one learned model",
    )
    screen.add_argument("--output-dir", metavar="RUN", help="run folder")
    screen.add_argument(
        "--trust-remote-code",
        action="store_const",
        const=True,
        help="run Python code that the model's repository brings along",
    )
    screen.add_argument(
        "--second-opinion",
        nargs="?",
        const="words",
        metavar="CLASSIFIER[:LABEL]",
        help="a text classifier's score beside ours: words (the packaged scorer of toxicity, the "
        "default where none is named), or a folder or hub id; or known_unsafe:FILE, the likeness "
        "to rows known to be unsafe; name the rows before this flag",
    )
    screen.add_argument(
        "--joint",
        type=float,
        metavar="WEIGHT",
        help="cut the forgetting score plus this many nats per root token times the second "
        "opinion (default: 0, it decides nothing; 0.6 was measured to be good, and 1 with "
        "known_unsafe on real text)",
    )
    screen.add_argument(
        "--describe-harm",
        metavar="SENTENCE",
        help="a harm named in words: how far each answer goes that way stands in a column of its "
        "own, and decides nothing; a sentence that is true of a harmful answer, or a JSON Lines "
        "file of contrasts (harmful, harmless)",
    )
    screen.add_argument(
        "--engine",
        metavar="ray[:N]",
        help="read the rows with N workers of a Ray cluster (RAY_ADDRESS; default: one here, with "
        "a worker a GPU or CPU); what trains stays in this process",
    )
    add_screen_flags(screen)
    add_fail_on(screen)
    screen.set_defaults(run=_screen)

    finetune = commands.add_parser("finetune", help="fine-tune the base model on the kept rows")
    finetune.add_argument("run_dir", metavar="RUN")
    finetune.add_argument("--output-dir", required=True, metavar="ADAPTER")
    finetune.add_argument("--overwrite", action="store_true", help="replace another adapter")
    finetune.add_argument("--checkpoint-minutes", type=float, help=CHECKPOINT_HELP)
    finetune.set_defaults(run=_finetune)

    report = commands.add_parser("report", help="write a run's report.html again")
    report.add_argument("run_dir", metavar="RUN")
    report.set_defaults(run=_report)

    convert = commands.add_parser(
        "convert",
        help="make a file that can't be read (UTF-16, trailing commas, …) into a new one that can",
    )
    convert.add_argument("file", metavar="FILE")
    convert.add_argument("output", metavar="NEW", help="the new file; never written over")
    convert.add_argument(
        "--guard-formulas",
        action="store_true",
        help="instead, copy a CSV or TSV file such that spreadsheets run none of its cells",
    )
    convert.set_defaults(run=_convert)

    gc = commands.add_parser("gc", help="free the stages that a run's decision doesn't use")
    gc.add_argument("run_dir", metavar="RUN")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be freed")
    gc.set_defaults(run=_gc)


def add_reading(parser: Parser) -> None:
    """How the rows are to be read."""
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="row format, such as chat, alpaca or sharegpt (default: whichever fits each row; a "
        "wrong name lists them all)",
    )
    parser.add_argument(
        "--column-map",
        action="append",
        default=[],
        type=column_map,
        metavar="NAME=COLUMN,…",
        help="what the file calls its columns, such as prompt=frage,completion=antwort; NAME= "
        "for a column that is not to be read",
    )
    parser.add_argument(
        "--dataset-info",
        metavar="FILE:NAME",
        help="read as this entry of LLaMA-Factory's dataset_info.json says",
    )
    parser.add_argument(
        "--axolotl",
        metavar="FILE[:N]",
        help="read as entry N (default 0) of this axolotl file's datasets says",
    )


def add_screen_flags(parser: Parser) -> None:
    """Add the settings that `screen` and the demonstration share; each overrides the YAML file."""
    for flag, (text, kind) in _SCREEN_FLAGS.items():
        parser.add_argument(flag, type=kind, help=text)
    parser.list_in_help("--signal", signal_names)
    parser.list_in_help("--threshold", threshold_names)
    parser.add_argument("--config", metavar="FILE.yaml", help="settings to read first")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, for example learn.num_train_epochs=5",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the outputs of a run that differs"
    )
    add_force(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add the flag that decides in spite of severe findings."""
    parser.add_argument(
        "--force",
        action="store_const",
        const=True,
        help="decide although a severe finding says that the scores can't be trusted",
    )


def screen_layers(options: argparse.Namespace) -> tuple[dict[str, Any], ...]:
    """YAML file, then ``--set``, then flags: later ones win."""
    from forgetfilter.config import load_yaml, parse_assignments

    names = ["noisy_data", "model", "safe_data", "reference_data", "learned_from", "output_dir"]
    names += ["trusted_data", "describe_harm"]
    names += ["trust_remote_code", "force", "second_opinion", "joint"]
    names += [flag.removeprefix("--").replace("-", "_") for flag in _SCREEN_FLAGS]
    flags = {n: getattr(options, n) for n in names if getattr(options, n, None) is not None}
    if "noisy_data" in flags:
        given = flags.pop("noisy_data")
        flags |= {"noisy_data": given[0] if len(given) == 1 else given} if given else {}
    reading = reading_of_flags(options)
    layers = [load_yaml(options.config)] if options.config else []
    return (*layers, parse_assignments(options.set), {**flags, "reading": reading})


def reading_of_flags(options: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_reading` say, as settings of ``reading``."""
    reading: dict[str, Any] = {
        name: value
        for name in ("format", "dataset_info", "axolotl")
        if (value := getattr(options, name, None)) is not None
    }
    maps = getattr(options, "column_map", [])
    if maps:
        reading["columns"] = {own: theirs for each in maps for own, theirs in each.items()}
    return reading


def _screen(options: argparse.Namespace) -> int:
    from forgetfilter.config import ScreenConfig, layered, resolve
    from forgetfilter.progress import Progress
    from forgetfilter.scoring.thresholds import choose_rule
    from forgetfilter.scoring.token_mask import check_maskable
    from forgetfilter.screening.annotations.described_harm import check_description
    from forgetfilter.screening.annotations.second_opinion import check_name, check_second_opinion
    from forgetfilter.screening.inputs.opening import check_input, noisy_data_of
    from forgetfilter.screening.inputs.recorded import with_recording

    conditions = parse_conditions(options.fail_on)
    check_name(options.second_opinion)  # before the rows that it may have taken are missed
    layers = screen_layers(options)
    config = resolve(ScreenConfig, *layers, noisy_data_of(layered(*layers)))
    # A wrong name, a rule that doesn't fit or a file that can't be read is refused before seconds
    # go into importing torch.
    choose_rule(config.signal, config.threshold, has_trusted=config.trusted_data is not None)
    with_recording(config)
    check_second_opinion(config)
    check_description(config)
    if config.action == "mask":
        check_maskable(config.signal)
    check_input(config)
    with reading_by(options.engine):
        from forgetfilter.screening.screen import screen

        result = screen(config, Progress(is_silent=options.quiet), overwrite=options.overwrite)
    summary = result.summary
    if result.was_finished:
        tell(f"{result.output_dir} was finished before; nothing changed.")
        if summary["decided_by"] == "filter":
            rule = summary["threshold"]["rule"]
            tell(f"`forgetfilter filter` has decided it again since, by {rule}.")
    if result.was_decided_again:
        tell("Decided again from the stored scores; no model was loaded.")
    print_counts(summary, result.output_dir)
    return status_of(conditions, summary)


def _finetune(options: argparse.Namespace) -> int:
    from forgetfilter.screening.finetune import finetune

    result = finetune(
        options.run_dir,
        options.output_dir,
        overwrite=options.overwrite,
        checkpoint_minutes=options.checkpoint_minutes,
    )
    which = "rows, some of them masked" if result.is_masked else "kept rows"
    tell(f"Fine-tuned on {result.rows:,} {which}. Adapter: {result.adapter}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from forgetfilter.runs.report.page import render_report
    from forgetfilter.screening.deciding import decide

    with decide.finished_run(options.run_dir) as folder:
        if decide.apply_decisions(folder.path):
            print_counts(decide.read_summary(folder.path), folder.path)
        tell(render_report(folder.path))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from forgetfilter.data.containers.convert import convert_file
    from forgetfilter.data.spreadsheets import guard_formulas

    if options.guard_formulas:
        cells = guard_formulas(Path(options.file), Path(options.output))
        tell(f"{cells:,} cells guarded: {options.output}")
        return 0
    rows = convert_file(Path(options.file), Path(options.output))
    tell(f"{f'{rows:,} rows: ' if rows else ''}{options.output}")
    return 0


def _gc(options: argparse.Namespace) -> int:
    from forgetfilter.screening.deciding.stage_gc import free_stages

    freed = free_stages(options.run_dir, is_dry_run=options.dry_run)
    done = "Would free" if options.dry_run else "Freed"
    for name in freed.names:
        tell(f"  {name}")
    stages = "stage" if len(freed.names) == 1 else "stages"
    tell(
        f"{done} {len(freed.names)} {stages}, {freed.size / 1e6:,.1f} MB. "
        f"In use by the present decision: {freed.used}."
    )
    return 0


def _of_sample(summary: dict[str, Any]) -> str:
    """What the learned share is of, where that is not all rows."""
    drawn = summary.get("learned_rows")
    return "" if drawn is None else f"of the {drawn:,} drawn for the learn phase "


def print_counts(summary: dict[str, Any], run: Path) -> None:
    """Print what a decision came to, and its findings on the error stream."""
    from forgetfilter.runs.report.headline import formulas_line, verdict_line
    from forgetfilter.runs.schema import Summary

    for finding in summary.get("findings", []):
        said = f"{finding['severity']}: {finding['name']}: {finding['message']}"
        tell(f"forgetfilter: {said}", is_error=True)
    threshold = summary["threshold"]
    readable, undecided = summary["rows"] - summary["rejected"], summary.get("undecided", 0)
    left = f"{undecided:,} undecided, " if undecided else ""
    tell(
        f"{summary['rows']:,} rows: {summary['kept']:,} kept, {summary['removed']:,} removed, "
        f"{left}{summary['rejected']:,} rejected ({summary['signal']}, {threshold['rule']}); "
        f"{summary.get('judged', readable):,} of {readable:,} could be judged, "
        f"{summary['learned_share']:.0%} {_of_sample(summary)}were learned."
    )
    overruled = summary.get("overruled") or {}
    if overruled.get("keep") or overruled.get("remove"):
        tell(
            f"Reviewers decided {overruled['keep'] + overruled['remove']:,} rows: "
            f"{overruled['kept_instead']:,} kept and {overruled['removed_instead']:,} removed "
            "against the rule."
        )
    if overruled.get("elsewhere"):
        tell(f"{overruled['elsewhere']:,} decided rows are not among the rows that were scored.")
    if second := summary.get("second_opinion"):
        tell(
            f"Second opinion ({printable(second['classifier'], 200)}): {second['both']:,} rows "
            f"suspected by both, {second['only_forgetting']:,} by forgetting alone, "
            f"{second['only_second_opinion']:,} by the second opinion alone."
            + (f" Joint weight {summary['joint']:g}." if summary.get("joint") else "")
        )
    if harm := summary.get("described_harm"):
        tell(
            f"Described harm ({printable(harm['text'], 200)}): the model tells it apart in "
            f"{harm['told_apart']:.0%} of held-out answers (chance is 50%). It decides nothing."
        )
    if name := summary.get("action_file"):
        told = _ACTIONS.get(summary["action"], "score and decision")
        tell(f"All readable rows with {told}: {run / name}")
    known = Summary.model_validate(summary)
    if said := formulas_line(known):
        tell(said)
    if said := verdict_line(known):
        tell(f"Verdict: {said}")
    tell(f"Report: {run / 'report.html'}")


def status_of(conditions: Sequence[Condition], summary: dict[str, Any]) -> int:
    """The exit status of a decision: that of --fail-on where one of its conditions holds."""
    found = failed(conditions, summary)
    for condition in found:
        tell(f"forgetfilter: --fail-on {condition.text} holds.", is_error=True)
    return STATUS if found else 0
