"""The names of all files in a run folder, in one place."""

from __future__ import annotations

from pathlib import Path

LOCK_FILE = ".lock"
CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"
STAGES_FOLDER = "stages"
LOCKS_FOLDER = ".locks"
"""Below the stages: a lock file for each."""
PENDING_FOLDER = ".deciding"
"""A decision that is committed and not yet written."""

INPUT_FILE = "input.jsonl"
INPUTS_FILE = "inputs.json"
"""What was screened and how it is read, where that is not one file of JSON Lines."""
KEPT_FILE = "kept.jsonl"
REMOVED_FILE = "removed.jsonl"
REJECTED_FILE = "rejected.jsonl"
UNDECIDED_FILE = "undecided.jsonl"
"""In place of kept and removed rows, where nothing is decided."""
SCORES_FILE = "scores.parquet"
READINGS_FILE = "readings.parquet"
EVIDENCE_FILE = "evidence.parquet"
COVERAGE_FILE = "coverage.json"
HARMS_FILE = "harms.parquet"
"""The safe rows that each row is most like, and the harm that they are about."""
SAFE_ROWS_FILE = "safe_rows.json"
"""What those safe rows say."""
SUMMARY_FILE = "summary.json"
EVALUATION_FILE = "evaluation.json"
"""Only a run with a known ground truth has it."""
REPORT_FILE = "report.html"
FLAGGED_FILE = "flagged.jsonl"
"""All readable rows with their score and decision, where ``action`` is flag."""
WEIGHTED_FILE = "weighted.jsonl"
"""All readable rows with a weight, where ``action`` is weight."""
MASKED_FILE = "masked.jsonl"
"""All readable rows with the characters that carry no loss, where ``action`` is mask."""
MASKS_FILE = "masks.parquet"
"""The same as tokens of the model's own vocabulary."""
TOKENS_FILE = "tokens.parquet"
"""How much each token was forgotten, from which masks are made; there where ``action`` is mask."""
DECISIONS_FILE = "decisions.jsonl"
"""What people decided of single rows. No output of a screen: nothing replaces or deletes it."""
DECISIONS_LOCK_FILE = ".decisions.lock"
REPORT_JSON_FILE = "report.json"
REPORT_ROWS_FOLDER = "report_rows"
"""What a report of many rows loads when it is asked for; small reports have none."""
DATASET_CARD_FILE = "dataset_card.md"

RUN_OUTPUTS = frozenset(
    {
        INPUT_FILE,
        INPUTS_FILE,
        KEPT_FILE,
        REMOVED_FILE,
        REJECTED_FILE,
        UNDECIDED_FILE,
        SCORES_FILE,
        READINGS_FILE,
        EVIDENCE_FILE,
        COVERAGE_FILE,
        HARMS_FILE,
        SAFE_ROWS_FILE,
        SUMMARY_FILE,
        EVALUATION_FILE,
        REPORT_FILE,
        FLAGGED_FILE,
        WEIGHTED_FILE,
        MASKED_FILE,
        MASKS_FILE,
        TOKENS_FILE,
        REPORT_JSON_FILE,
        REPORT_ROWS_FOLDER,
        DATASET_CARD_FILE,
    }
)
"""The files (and one folder) of a screening run, beside those that every run folder has."""


def rows_file(run: Path, decision: str) -> Path:
    """Where a run's rows with a decision (kept, removed or undecided) are written."""
    return run / f"{decision}.jsonl"
