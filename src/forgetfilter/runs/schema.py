"""The one schema of a finished run's files: who writes one and who reads it use the same names.

Fields are in the order in which they are written. A field that was never set is not written, so
that a run of an earlier version, decided again, says no more than is known of it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCORED_QUANTITIES = ("base", "before", "after", "forgetting_score")
OPINION_COLUMNS = ("second_opinion", "joint_score", "described_harm")
"""A classifier's score of each row, where one was asked for; what is cut, where the two are added;
and how far a row's answer goes the way of a harm that was named in words."""
WHO_COLUMNS = ("decided_by", "rule_decision")
"""Who decided a row, ``rule`` or ``reviewer``, and what the rule alone would have made of it."""
SCORE_COLUMNS = ("row", "example_id", *SCORED_QUANTITIES, "learned", "decision", "reason")
ORIGIN_COLUMNS = ("source", "line", "own_id")
"""Where a row comes from: file, line, and what the file calls it, which others may share."""
WRITTEN_COLUMNS = (*SCORE_COLUMNS, *WHO_COLUMNS, *ORIGIN_COLUMNS, *OPINION_COLUMNS)
"""``scores.parquet``: one line for each row of the input. Runs of earlier versions have only the
first of them."""

HARM_COLUMN = "harm"
"""In ``scores.parquet``: what the safe rows that a removed row pulls against are about."""
UNSCORED_COLUMN = "unscored"
"""In ``scores.parquet``: what of a row its template leaves out, names joined by commas."""
TOLD_COLUMNS = (HARM_COLUMN, UNSCORED_COLUMN)
"""After `WRITTEN_COLUMNS`: what rows can be told apart by."""

SAFE_NEIGHBOUR_COLUMNS = tuple(f"safe_{k}" for k in range(4))
"""``harms.parquet``, beside ``row`` and ``harm``: numbers of the nearest safe rows."""

SIZE_COLUMNS = ("prompt_tokens", "completion_tokens")
"""``readings.parquet`` has them beside ``row``, ``example_id`` and whatever the signal reads."""

EVIDENCE_TEXTS = ("earlier", "learned_text", "forgotten_text")
EVIDENCE_WORDS = ("pieces", "rises")
EVIDENCE_COLUMNS = ("row", *EVIDENCE_TEXTS, *EVIDENCE_WORDS)
"""``evidence.parquet``: one line for each row that the report shows; without the columns on words
where the signal has no later model."""


class Record(BaseModel):
    """A JSON object of a run's file. What another version has written into it stays in it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def as_json(self) -> dict[str, Any]:
        """What is written: the fields that were set, in the schema's order."""
        return self.model_dump(exclude_unset=True)


class Threshold(Record):
    """The rule that was asked for, and the score where it cut."""

    rule: str
    value: float | None = None


class HarmCoverage(Record):
    """What the safe rows have undone of the damage to one category of reference rows."""

    category: str
    rows: int
    damage: float
    left: float
    undone: float
    fallen: int | None = None
    auroc: float | None = None
    verdict: str


class Used(Record):
    """How many rows were used, of how many."""

    used: int
    of: int


class SafeRows(Used):
    """How many of the usable safe rows the scores rest on."""

    by_category: dict[str, Used] = Field(default_factory=dict[str, Used])
    set_aside: list[int] = Field(default_factory=list[int])
    """Lines of the safe file that were not used because restoring undoes them, furthest first."""


class Finding(Record):
    """One reason not to trust the scores, or to trust them less."""

    name: str
    """What was found, as an identifier that never changes."""
    severity: Literal["severe", "warning"]
    """``severe``: nothing is decided unless forced; ``warning``: read the report first."""
    message: str
    """What was found, what is expected, what to do."""
    value: float | None = None
    """The figure that the check is about."""


class Opinion(Record):
    """A second opinion, and how far it and the forgetting scores agree on the readable rows."""

    classifier: str
    """``words``, a folder or hub id, or ``known_unsafe:`` and a file or run."""
    kind: str = "classifier"
    """Or ``known_unsafe``: the likeness to rows that are known to be unsafe."""
    label: str = ""
    """Of what it gives the probability; of likeness, to how many rows."""
    fingerprint: str = ""
    above: float = 0.5
    """What counts as suspected."""
    cut: float | None = None
    """Where the rule cuts the forgetting scores alone."""
    both: int = 0
    """Rows that both suspect."""
    only_forgetting: int = 0
    only_second_opinion: int = 0
    neither: int = 0


class DescribedHarm(Record):
    """A harm that was named in words, and how well the model tells it from its opposite."""

    text: str
    """The sentence, or the file of contrasts."""
    layer: int = 0
    """Of the hidden states, 0 being the embedding."""
    told_apart: float = 0.5
    """Share of held-out pairs of answers that are told apart; 0.5 is chance."""
    pairs: int = 0


class Overruled(Record):
    """What people decided of single rows, as far as this decision honours it."""

    digest: str = ""
    """Names what was decided; differs once there are decisions that are not honoured yet."""
    keep: int = 0
    remove: int = 0
    unsure: int = 0
    """Rows by what their latest decision says; ``unsure`` lets the rule decide."""
    kept_instead: int = 0
    """Rows that the rule would have removed."""
    removed_instead: int = 0
    """Rows that the rule would have kept."""
    entries: int = 0
    """Lines of the journal that this was read from."""
    elsewhere: int = 0
    """Decided rows of an earlier input that this one doesn't hold, or that it rejects."""


class Verdict(Record):
    """What a screen says of the file as a whole."""

    level: Literal["none", "some", "many", "cannot_tell"]
    """How many unsafe rows the file has, as far as its scores tell."""
    reason: str
    """Why this level, as an identifier that never changes."""
    message: str
    """The same in words."""
    clean_rows: int | None = None
    """Rows of clean files on which this very signal and rule were measured."""
    clean_removed: int | None = None
    """How many of them were removed: false alarms."""
    clean_files: str | None = None
    """Which files those were, in words."""


class Summary(Record):
    """``summary.json``: counts and settings of a finished run.

    ``decision`` is the fingerprint of the decision, and ``made_from`` the one for which coverage
    and evidence were made.
    """

    signal: str
    unit: str = ""
    needs_learned: bool = True
    """Whether rows that were not learned are kept, whatever they say."""
    decided_by: str = "screen"
    seed: int | None = None
    seconds: dict[str, float] = Field(default_factory=dict[str, float])
    stages: list[str] = Field(default_factory=list[str])
    model: str = ""
    noisy_data: str = ""
    safe_data: str = ""
    safe_rows: SafeRows | None = None
    generation: dict[str, Any] = Field(default_factory=dict[str, Any])
    preset: str = ""
    placement: str = ""
    template: str = ""
    unscored: dict[str, int] = Field(default_factory=dict[str, int])
    """How many scored rows have text that the template leaves out, by what it is."""
    coverage: list[HarmCoverage] = Field(default_factory=list[HarmCoverage])
    coverage_note: str = ""
    coverage_sample: int = 0
    wholesale_damage: float | None = None
    rows: int
    kept: int
    removed: int
    undecided: int = 0
    """All readable rows, where a severe finding has kept anything from being decided."""
    rejected: int
    outputs: dict[str, str] = Field(default_factory=dict[str, str])
    """The file, or folder, that holds the rows of each decision in the input's own container."""
    threshold: Threshold
    expected_false_removals: float | None = None
    threshold_notes: dict[str, Any] = Field(default_factory=dict[str, Any])
    learned_share: float | None = None
    """Of the rows that the learn phase was given."""
    learned_rows: int | None = None
    """How many those are, drawn by the seed (``learn.max_rows``); None: all readable rows."""
    formulas: dict[str, int] = Field(default_factory=dict[str, int])
    """Versions of the formulas of the ``signal`` and the ``rule``; see `scoring.formulas`."""
    judged: int | None = None
    """How many rows could be judged: the readable ones, or of them those that were learned, where
    the signal needs that."""
    verdict: Verdict | None = None
    decision: str | None = None
    made_from: dict[str, str] = Field(default_factory=dict[str, str])
    findings: list[Finding] = Field(default_factory=list[Finding])
    is_decided: bool = True
    action: str = "remove"
    """What was written beside kept and removed rows: see ``ScreenConfig.action``."""
    action_file: str = ""
    """The file with all readable rows that ``action`` asks for, in the input's own container."""
    formula_cells: int = 0
    """Cells of CSV and TSV files that spreadsheets would run; they are written as they are."""
    overruled: Overruled | None = None
    second_opinion: Opinion | None = None
    """Where one was asked for."""
    described_harm: DescribedHarm | None = None
    """Where one was named; it decides nothing."""
    joint: float = 0.0
    """Nats per root token that a second opinion of 1 adds to what is cut; 0: it decides nothing."""
    file_digests: dict[str, str] = Field(default_factory=dict[str, str])
    """sha256 of the files of kept and of removed rows as written, by path: tells an edit."""
    written: dict[str, str] = Field(default_factory=dict[str, str])
    """sha256 of the other files that the decision wrote, by path: tells damage."""


class Interval(Record):
    """A measured value with its 95% interval; a share is between 0 and 1."""

    name: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    direction: str = ""
    n: int | None = None


class Detection(Record):
    """How well the decisions match a known ground truth; higher is better throughout."""

    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    auroc: float | None = None
    average_precision: float | None = None


class Behaviour(Record):
    """What one model did on the held-out prompts."""

    name: str
    unsafe_rate: Interval = Interval()
    safe_rate: Interval = Interval()
    neither_rate: Interval = Interval()
    task_accuracy: Interval = Interval()
    unsafe_by_harm: dict[str, float | None] = Field(default_factory=dict[str, float | None])
    accuracy_by_kind: dict[str, float | None] = Field(default_factory=dict[str, float | None])


class MadeFrom(Record):
    """What an evaluation was made from."""

    decision: str | None = None
    probes: int | None = None


class Evaluation(Record):
    """``evaluation.json``, which only a run with a known ground truth has."""

    prompts: int
    detection: Detection = Detection()
    models: list[Behaviour] = Field(default_factory=list[Behaviour])
    task_difference: Interval = Interval()
    made_from: MadeFrom = MadeFrom()
