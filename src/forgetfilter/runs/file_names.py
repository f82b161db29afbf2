"""The names of all files in a run folder, in one place."""

from __future__ import annotations

LOCK_FILE = ".lock"
CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"
STAGES_FOLDER = "stages"

INPUT_FILE = "input.jsonl"
KEPT_FILE = "kept.jsonl"
REMOVED_FILE = "removed.jsonl"
REJECTED_FILE = "rejected.jsonl"
UNDECIDED_FILE = "undecided.jsonl"
"""In place of kept and removed rows, where nothing is decided."""
SCORES_FILE = "scores.parquet"
READINGS_FILE = "readings.parquet"
EVIDENCE_FILE = "evidence.parquet"
COVERAGE_FILE = "coverage.json"
SUMMARY_FILE = "summary.json"
EVALUATION_FILE = "evaluation.json"
"""Only a run with a known ground truth has it."""
REPORT_FILE = "report.html"
REPORT_JSON_FILE = "report.json"
REPORT_ROWS_FOLDER = "report_rows"
"""What a report of many rows loads when it is asked for; small reports have none."""
DATASET_CARD_FILE = "dataset_card.md"

RUN_OUTPUTS = frozenset(
    {
        INPUT_FILE,
        KEPT_FILE,
        REMOVED_FILE,
        REJECTED_FILE,
        UNDECIDED_FILE,
        SCORES_FILE,
        READINGS_FILE,
        EVIDENCE_FILE,
        COVERAGE_FILE,
        SUMMARY_FILE,
        EVALUATION_FILE,
        REPORT_FILE,
        REPORT_JSON_FILE,
        REPORT_ROWS_FOLDER,
        DATASET_CARD_FILE,
    }
)
"""The files (and one folder) of a screening run, beside those that every run folder has."""
