"""A text classifier's score of every row, as a screen's second opinion.

It reads what a row says, prompt and answers together, and knows nothing of the model that is
screened with. It is computed before anything is trained, in parts that a killed run goes on from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.config import WORDS
from forgetfilter.data.records import Row
from forgetfilter.files import sha256_file, write_json_atomic
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.safe.linear_toxicity import WEIGHTS_PATH, LinearScorer
from forgetfilter.safe.toxicity import score_but_blank
from forgetfilter.screening.annotations.opinions import SecondOpinion

ROWS_A_PART = 1000
"""So many rows are judged again at most where a process was killed."""
WINDOW_CHARACTERS = 600
"""The word scorer weighs a word by the length of its text; so one sentence still counts."""
_OVERLAP_CHARACTERS = 100
_VERSION = 1
"""Raised when the same classifier would give the same rows other scores."""


class Judge(Protocol):
    """What gives texts a score."""

    label: str
    """Of what the score is the probability."""

    def score(self, texts: Sequence[str]) -> FloatArray:
        """In [0, 1], higher = suspected unsafe, shape (N,)."""
        ...


class WordJudge:
    """The packaged word scorer on windows of a text, of which the largest counts."""

    label = "toxicity"

    def __init__(self) -> None:
        self._scorer = LinearScorer()

    def score(self, texts: Sequence[str]) -> FloatArray:
        """See `Judge.score`."""
        pieces = [(at, piece) for at, text in enumerate(texts) for piece in _windows(text)]
        found = self._scorer.score([piece for _, piece in pieces])
        scores = np.zeros(len(texts), dtype=np.float64)
        np.maximum.at(scores, [at for at, _ in pieces], found)
        return scores


def name_and_label(name: str) -> tuple[str, str]:
    """A classifier's folder or hub id, and its label; empty where none is named."""
    if name == WORDS or Path(name).is_dir():
        return name, ""
    path, colon, label = name.rpartition(":")
    return (path, label) if colon and path else (name, "")


def classifier_fingerprint(name: str) -> str:
    """What identifies a classifier.

    Raises:
        ModelError: there is none, or it has no safetensors weights.
    """
    if name == WORDS:
        return sha256_file(WEIGHTS_PATH)
    from forgetfilter.model.loading import classifier

    path, label = name_and_label(name)
    weights = classifier.classifier_fingerprint(path)
    return hashlib.sha256(f"{weights}:{label}".encode("utf-8", "replace")).hexdigest()


def judge_rows(
    name: str,
    rows: Sequence[Row],
    store: StageStore,
    progress: Progress,
    device: Any = "auto",
) -> SecondOpinion:
    """The second opinion on ``rows``: a stage of its own, named by the classifier and the rows.

    Args:
        name: ``words``, or a folder or hub id with an optional ``:LABEL``.
        rows: what to judge.
        store: where finished parts lie.
        progress: where it reports.
        device: where a classifier computes.

    Raises:
        ModelError: the classifier can't be loaded, or it is unknown which label is meant.
    """
    texts = [judged_text(row) for row in rows]
    fingerprint = classifier_fingerprint(name)
    judges: list[Judge] = []

    def judge() -> Judge:  # loaded only where a part is not there yet
        if not judges:
            judges.append(_open(name, device))
        return judges[0]

    def key(part: Sequence[str]) -> dict[str, Any]:
        return {"version": _VERSION, "classifier": fingerprint, "texts": _digest(part)}

    def build(folder: Path) -> None:
        found: list[FloatArray] = []
        label = ""
        with progress.bar("second opinion", len(texts), "rows") as bar:
            for start in range(0, len(texts), ROWS_A_PART):
                part = texts[start : start + ROWS_A_PART]
                with store.uncounted():
                    done = store.stage("second_opinion_part", key(part), _builder(part, judge))
                found.append(np.load(done / _SCORES))
                label = _label_in(done)
                bar.update(len(part))
        _write(folder, np.concatenate([np.zeros(0), *found]), label)

    folder = store.stage("second_opinion", key(texts), build)
    return SecondOpinion(np.load(folder / _SCORES), name, _label_in(folder), fingerprint)


def judged_text(row: Row) -> str:
    """All that a row says, turn by turn: texts, reasoning, and calls of tools."""
    said = [
        part
        for turn in row.messages
        for part in (turn.reasoning, turn.content, turn.tool_calls)
        if part.strip()
    ]
    return "\n".join(said)


_SCORES, _FACTS = "scores.npy", "judge.json"


def _builder(part: Sequence[str], judge: Any) -> Any:
    def build(folder: Path) -> None:
        opened: Judge = judge()
        _write(folder, score_but_blank(part, opened.score), opened.label)

    return build


def _write(folder: Path, scores: FloatArray, label: str) -> None:
    np.save(folder / _SCORES, scores)
    write_json_atomic(folder / _FACTS, {"label": label})


def _label_in(folder: Path) -> str:
    return str(json.loads((folder / _FACTS).read_text(encoding="utf-8"))["label"])


def _open(name: str, device: Any) -> Judge:
    if name == WORDS:
        return WordJudge()
    from forgetfilter.model.loading.classifier import TextClassifier

    path, label = name_and_label(name)
    return TextClassifier(path, label, device=device)


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _windows(text: str) -> list[str]:
    """A text in windows that overlap."""
    step = WINDOW_CHARACTERS - _OVERLAP_CHARACTERS
    last = max(len(text) - _OVERLAP_CHARACTERS, 1)
    return [text[start : start + WINDOW_CHARACTERS] for start in range(0, last, step)]
