"""Deciding and reporting many rows: what is held of each row, and that nothing else changes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forgetfilter import arrays
from forgetfilter.arrays import SharedTexts
from forgetfilter.data import strata
from forgetfilter.data.many_rows import spilled
from forgetfilter.data.records import EncodedRow
from forgetfilter.runs import columns, parquet_parts, reading
from forgetfilter.runs.columns import read_shared_texts, read_values
from forgetfilter.runs.decisions import NOTHING_DECIDED
from forgetfilter.runs.lines import open_lines
from forgetfilter.runs.parquet_parts import read_column, write_parts
from forgetfilter.runs.reading import read_scores
from forgetfilter.runs.report import histogram
from forgetfilter.runs.report.listed import listed_rows
from forgetfilter.runs.report.shown_rows import highest, nearest_to_threshold
from forgetfilter.runs.schema import SCORED_QUANTITIES, Summary
from forgetfilter.scoring.records import Readings
from forgetfilter.scoring.thresholds import THRESHOLDS, decide
from forgetfilter.scoring.thresholds.auto import emptiest_cut
from forgetfilter.screening.deciding import decision_files, tables
from forgetfilter.screening.deciding.by_rule import rule_decides
from forgetfilter.screening.deciding.overruling import overrule
from forgetfilter.screening.deciding.row_decisions import open_decisions


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some thousand rows are many."""
    for module in (parquet_parts, tables, decision_files, columns, reading):
        monkeypatch.setattr(module, "PART_ROWS", 2000)
    for module in (arrays, histogram):
        monkeypatch.setattr(module, "_TOGETHER", 2000)
    monkeypatch.setattr(spilled, "HELD_ITEMS", 100)


def write_table(run: Path, rows: int) -> Path:
    """A table of scores of which every eighth row is removed and every eleventh was rejected."""
    run.mkdir()
    at = np.arange(rows)
    score = np.where(at % 11 == 0, np.nan, (at % 80) / 80)
    frame = pd.DataFrame({"row": at, "example_id": [f"a name of row {row:040d}" for row in at]})
    for name in SCORED_QUANTITIES:
        frame[name] = score
    frame["learned"] = True
    frame["decision"] = np.select([at % 11 == 0, score > 0.87], ["rejected", "removed"], "kept")
    frame["reason"] = np.where(at % 11 == 0, "too long", "below_threshold")
    frame["decided_by"], frame["rule_decision"] = "rule", frame["decision"]
    frame["source"] = np.where(at % 3 == 0, "one.jsonl", "another.jsonl")
    frame["harm"] = np.where(frame["decision"] == "removed", "fraud", "")
    write_parts(run / "scores.parquet", (frame.iloc[at : at + 2000] for at in range(0, rows, 2000)))
    return run


def bytes_a_row(tmp_path: Path, work: Callable[[Path, int], Any]) -> float:
    """What each row adds to the peak of traced allocations."""
    peaks: list[int] = []
    for rows in (2000, 12_000, 32_000):  # the first one imports
        run = write_table(tmp_path / f"{rows}", rows)
        gc.collect()
        tracemalloc.start()
        try:
            work(run, rows)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return (peaks[2] - peaks[1]) / 20_000


def test_a_decision_holds_few_bytes_of_a_row(tmp_path: Path, small_parts: None):
    """With the whole table as a frame it took 143."""

    def decide_again(run: Path, rows: int) -> None:
        made = open_decisions(run)
        scored = np.flatnonzero(np.arange(rows) % 11)
        ones = np.ones(len(scored))
        known: dict[str, Any] = {"loss_sum_base": 8 * ones, "loss_sum_learned": ones}
        known["greedy_match_learned"] = np.zeros(len(scored), dtype=np.bool_)
        readings = Readings(scored, known)
        scores = made.score()[scored]
        selection = decide(THRESHOLDS.build("phi:0.5"), scores, readings)
        rule_decides(made, selection, readings, decided=True)
        overrule(made, NOTHING_DECIDED)
        decision_files._write_scores(run, made)  # pyright: ignore[reportPrivateUsage]
        decision_files._fingerprint(made, "phi:0.5", 0.5, 0.0)  # pyright: ignore[reportPrivateUsage]

    found = bytes_a_row(tmp_path, decide_again)
    assert found < 80


def test_the_tables_of_a_report_hold_few_bytes_of_a_row(tmp_path: Path, small_parts: None):
    """Columns of texts, and ids that were held, took 175 bytes a row."""

    def report(run: Path, rows: int) -> None:
        counts = {"rejected": len(range(0, rows, 11)), "undecided": 0}
        at = np.arange(rows)
        counts["removed"] = int(np.sum((at % 11 > 0) & (at % 80 / 80 > 0.87)))
        counts["kept"] = rows - sum(counts.values())
        told: dict[str, Any] = {
            "rows": rows,
            **counts,
            "threshold": {"rule": "phi:0.87", "value": 0.87},
        }
        summary: Any = Summary.model_construct(None, **told)
        table = read_scores(run, summary)
        judged = np.where(table.is_learned, table.cut_by, np.nan)
        assert len(nearest_to_threshold(judged, 0.87)) == 20
        order = listed_rows(table, judged)
        assert len({table.example_id[int(at)] for at in order}) == len(order)
        groups = {"removed": table.decision == "removed", "kept": table.decision == "kept"}
        assert histogram.histogram(table.cut_by, groups, 0.87)

    found = bytes_a_row(tmp_path, report)
    assert found < 110


def test_shared_texts_are_the_texts(tmp_path: Path):
    rng = np.random.default_rng(0)
    texts = np.array([f"t{at}" for at in rng.integers(0, 400, 2000)], dtype=object)
    texts[:3] = ["", "z", "a"]
    shared = SharedTexts.of(texts.tolist())
    assert shared.codes.itemsize == 2
    assert shared.tolist() == list(shared) == texts.tolist()
    assert (shared[7], shared[-1], shared[2:9:3]) == (texts[7], texts[-1], texts[2:9:3].tolist())
    assert np.array_equal(shared == "t9", texts == "t9")
    assert np.array_equal(shared != "t9", texts != "t9")
    assert not (shared == "nowhere").any()
    assert ("z" in shared, "nowhere" in shared) == (True, False)
    mask = shared == "t9"
    assert shared[mask].tolist() == texts[mask].tolist()
    assert list(shared.counts().items())[:3] == [("", 1), ("z", 1), ("a", 1)]
    assert dict(shared.counts()) == pd.Series(texts).value_counts().to_dict()
    other = SharedTexts.of(shared)
    other.put(mask, "new")
    texts[mask] = "new"
    places = np.array([5, 3, 1])
    other.put_all(places, SharedTexts.of(["x", "", "new"]))
    texts[places] = ["x", "", "new"]
    assert other.tolist() == texts.tolist()
    assert "new" not in shared
    assert [len(SharedTexts.of(own)) for own in ([], [""])] == [0, 1]


def test_columns_in_parts_are_the_columns(tmp_path: Path, small_parts: None):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "row": np.arange(1000),
            "forgetting_score": np.where(rng.random(1000) < 0.2, np.nan, rng.random(1000)),
            "decision": rng.choice(["kept", "removed", None], 1000),  # type: ignore[arg-type]
            "learned": pd.array(rng.choice([True, False, None], 1000), dtype="boolean"),  # type: ignore[call-overload]
        }
    )
    path = tmp_path / "t.parquet"
    frame.to_parquet(path, row_group_size=450)
    for name in ("row", "forgetting_score"):
        own = read_column(path, name)
        assert own.dtype == frame[name].dtype
        assert np.array_equal(own, frame[name].to_numpy(), equal_nan=name != "row")
    assert list(read_column(path, "learned")) == list(frame["learned"].to_numpy())
    texts = frame["decision"].fillna("none").tolist()
    assert read_shared_texts(path, "decision", "none").tolist() == texts
    learned = frame["learned"].fillna(False).astype(np.bool_)
    assert np.array_equal(read_values(path, "learned", False, np.bool_), learned)


def test_the_highest_scores_are_those_of_all_in_order():
    rng = np.random.default_rng(0)
    for size, different in ((3000, 40), (3000, 10**6), (15, 3), (0, 3)):
        scores = rng.integers(0, different, size) / different
        scores[rng.random(size) < 0.1] = np.nan
        order = np.argsort(-scores, kind="stable")
        order = order[~np.isnan(scores[order])]
        assert highest(scores, 20).tolist() == order[:20].tolist()
        is_above = scores[order] > 0.5
        near = [*order[is_above][-10:].tolist(), *order[~is_above][:10].tolist()]
        assert nearest_to_threshold(scores, 0.5) == near


def test_the_emptiest_place_does_not_depend_on_how_many_are_counted_together():
    scores = np.random.default_rng(0).lognormal(-2.5, 1.0, 16_000)
    cut = emptiest_cut(scores, np.ones(len(scores), dtype=np.bool_), 0.05, 0.15)
    places = np.linspace(np.log(0.05), np.log(0.15), 400)
    near = np.log(scores[(scores > 0.05 / 4) & (scores < 0.15 * 8)])
    density = np.zeros(400)
    for part in np.array_split(near, len(near) // 10_000 + 1):
        density += np.exp(-0.5 * ((places[:, None] - part) / 0.15) ** 2).sum(axis=1)
    assert cut.value == min(max(float(np.exp(places[np.argmin(density)])), 0.05), 0.15)


def test_lines_are_found_whatever_their_length(tmp_path: Path):
    rng = np.random.default_rng(0)
    lines = [b"x" * int(size) for size in rng.choice([0, 3, 90, 5000, 40_000], 500)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with open_lines(path, len(lines), "") as found:
        assert len(found) == len(lines)
        for at in rng.permutation(len(lines)).tolist():
            assert found[at] == lines[at]
        with pytest.raises(IndexError):
            found[len(lines)]
        assert len(found._starts) < 300  # pyright: ignore[reportPrivateUsage]


def test_the_rows_most_alike_do_not_depend_on_how_many_are_compared_together(
    monkeypatch: pytest.MonkeyPatch,
):
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import TfidfTransformer

    rng = np.random.default_rng(0)
    drawn = [rng.zipf(1.3, rng.integers(3, 60)) % 3000 for _ in range(430)]
    rows = [EncodedRow(at, ids.astype(np.int32), ids >= 0, 0, "") for at, ids in enumerate(drawn)]
    monkeypatch.setattr(strata, "_TOGETHER", 100)
    found = strata.alike_first(rows[:400], rows[400:])
    owner = np.repeat(np.arange(len(drawn)), [len(ids) for ids in drawn])
    counts = csr_array((np.ones(len(owner)), (owner, np.concatenate(drawn))))
    table = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    mean = np.asarray(table[400:].sum(axis=0)).reshape(-1)
    likeness = np.asarray(table[:400] @ mean).reshape(-1)
    assert found.tolist() == np.argsort(-likeness, kind="stable").tolist()
