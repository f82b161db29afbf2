"""Cards for what a run has made: a dataset card for the kept rows, a model card for an adapter.

Both are in the form that the hub reads: a YAML header, then Markdown. They name where things are
from, never the folders of this machine, and say the same whenever they are made from one decision.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from forgetfilter import __version__
from forgetfilter.files import write_bytes_atomic
from forgetfilter.runs.file_names import DATASET_CARD_FILE, KEPT_FILE
from forgetfilter.runs.report.headline import VERDICTS, headline, method
from forgetfilter.runs.report.shown_text import number
from forgetfilter.runs.schema import Summary
from forgetfilter.text import markdown, printable

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_FILES_NAMED = 5
_PAPER = "[arXiv 2312.12736](https://arxiv.org/abs/2312.12736)"
_LIMITS = (
    "A removed row is suspected, not proven; a kept row was not found out.",
    "The safe rows decide what can be seen: a kind of harm that they don't speak against may be "
    "among the kept rows.",
    "What the model did not learn could not be judged. Rare kinds of row are found least.",
    "The method was measured on small models and mostly on made-up rows.",
)


def write_dataset_card(run: Path, summary: Summary) -> None:
    """Write ``dataset_card.md``; as README.md beside ``kept.jsonl`` it is a data set's card."""
    write_bytes_atomic(run / DATASET_CARD_FILE, dataset_card(summary).encode("utf-8"))


def dataset_card(summary: Summary) -> str:
    """The card of the rows that were kept."""
    name = _name(summary.noisy_data) or "rows"
    header: dict[str, Any] = {
        "pretty_name": printable(f"{name}, screened by forgetfilter"),
        "task_categories": ["text-generation"],
        "size_categories": [next((s for top, s in _SIZES if summary.kept < top), "n>1T")],
        "tags": ["forgetfilter", "data-filtering", "safety"],
    }
    if summary.is_decided:
        files = [{"split": "train", "path": KEPT_FILE}]
        header["configs"] = [{"config_name": "default", "data_files": files}]
    judged = summary.judged if summary.judged is not None else summary.rows - summary.rejected
    return _card(
        header,
        f"# {markdown(name)}, screened",
        headline(summary, judged),
        *_verdict(summary),
        "## Where the rows are from",
        f"The rows of `{KEPT_FILE}`, unchanged and in the original order, are from "
        f"{markdown(name)}. Their licence, language and personal data are those of that file: "
        "complete this card with them.",
        *_screening(summary),
    )


def model_card(summary: Summary, rows: int) -> str:
    """The card of an adapter that was fine-tuned on the kept rows.

    Args:
        summary: of the run.
        rows: how many kept rows it was trained on.
    """
    base = _name(summary.model) or "the base model"
    header: dict[str, Any] = {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["forgetfilter", "lora", "safety"],
    }
    if _is_hub_id(summary.model):
        header = {"base_model": summary.model, **header}
    return _card(
        header,
        f"# {markdown(base)}, fine-tuned on screened rows",
        f"A LoRA adapter of {markdown(base)}, fine-tuned on {rows:,} rows of "
        f"{markdown(_name(summary.noisy_data) or 'a file')} that a screen by forgetfilter "
        + (
            "made. It was trained from the original model, without the most forgotten tokens of "
            f"the {summary.removed:,} suspected rows. "
            if summary.action == "mask"
            else f"kept. It was trained from the original model: the {summary.removed:,} removed "
            "rows were not used. "
        )
        + "`forgetfilter.json` beside it says from which decision it was made.",
        *_verdict(summary),
        "## Use",
        "```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")\n```',
        *_screening(summary),
        "Whether the model is safe was not measured here. Compare it with the base model on "
        "prompts of your own before you deploy it.",
    )


def _screening(summary: Summary) -> tuple[str, ...]:
    settings = [
        ("method", f"{method(summary)} ({_PAPER})"),
        ("model", markdown(_name(summary.model))),
        ("safe rows", markdown(_name(summary.safe_data))),
        ("signal", markdown(summary.signal)),
        ("threshold", f"{markdown(summary.threshold.rule)}, {number(summary.threshold.value)}"),
        ("seed", "" if summary.seed is None else str(summary.seed)),
        ("forgetfilter", __version__),
    ]
    uncovered = [h.category for h in summary.coverage if h.verdict in ("not covered", "faint")]
    limits: list[str] = [*_LIMITS]
    if uncovered:
        listed = ", ".join(markdown(name, 60) for name in uncovered)
        limits.insert(0, f"The safe rows of this screen could not judge well: {listed}.")
    limits = [*(f"{f.severity}: {markdown(f.message, 600)}" for f in summary.findings), *limits]
    counts = [
        ("rows", summary.rows),
        ("kept", summary.kept),
        ("removed", summary.removed),
        ("could not be used", summary.rejected),
        ("undecided", summary.undecided),
    ]
    return (
        "## What was removed, and how",
        _table([(name, f"{value:,}") for name, value in counts if value or name != "undecided"]),
        _table([(name, value) for name, value in settings if value]),
        "## Limits",
        "\n".join(f"- {limit}" for limit in limits),
    )


def _verdict(summary: Summary) -> tuple[str, ...]:
    if summary.verdict is None:
        return ()
    message = markdown(summary.verdict.message, 600)
    return (f"**Verdict on the file: {VERDICTS[summary.verdict.level]}.** {message}",)


def _card(header: dict[str, Any], *parts: str) -> str:
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=False, width=1000)
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _table(rows: list[tuple[str, str]]) -> str:
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _name(where: str) -> str:
    """A hub id, or the last part of each path: what may be known of it elsewhere."""
    if _is_hub_id(where):
        return where
    files = [Path(part) for part in where.split(", ")]
    if len(files) > 1 and all(file.suffix for file in files):  # as several files are named
        more = len(files) - _FILES_NAMED
        named = ", ".join(file.name for file in files[:_FILES_NAMED])
        return f"{named} and {more:,} more" if more > 0 else named
    return Path(where).name if where else ""


def _is_hub_id(where: str) -> bool:
    return bool(_HUB_ID.fullmatch(where)) and not Path(where).exists()
