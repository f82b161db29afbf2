"""Memory: rows lie on the disk once they are many, and nothing of them changes by that."""

from __future__ import annotations

import gc
import json
import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from conftest import build_model, contents, rows_of, write_rows
from decided_run import make_run
from forgetfilter.config import LoraSettings, ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.many_rows import spilled
from forgetfilter.data.many_rows.packing import packed, unpacked
from forgetfilter.data.many_rows.spilled import Spill, Spilled
from forgetfilter.data.many_rows.views import chosen, joined, mapped
from forgetfilter.data.reading import repeated_ids
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.measuring import many_rows
from forgetfilter.model.measuring.likeness import nearest_rows, row_vectors
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs import parquet_parts
from forgetfilter.runs.parquet_parts import (
    LazyColumns,
    columns_of,
    read_parts,
    write_parquet,
    write_parts,
)
from forgetfilter.runs.stages import StageStore
from forgetfilter.scoring.records import NEIGHBOURS, Probe, Readings
from forgetfilter.scoring.signals.crossfit import Crossfit
from forgetfilter.screening import screen as screening
from forgetfilter.screening.annotations import harms
from forgetfilter.screening.deciding import decision_files, tables
from forgetfilter.screening.deciding.decide import commit_decision
from forgetfilter.screening.method import Scored, Setting

SILENT = Progress(is_silent=True)


@pytest.fixture
def few_held(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ten items are many."""
    monkeypatch.setattr(spilled, "HELD_ITEMS", 10)
    return 10


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Tables are written and read some hundred rows at a time."""
    for module in (parquet_parts, tables, decision_files):
        monkeypatch.setattr(module, "PART_ROWS", 300)
    return 300


def awkward(path: Path) -> Path:
    """Ids that are repeated, taken by others or absent; broken lines; text of every kind."""
    rows: list[dict[str, Any]] = [
        {**row, "id": name}
        for row, name in zip(
            rows_of(40),
            [*"abcabc", "row-3", "row-0", "row-0-2", 7, *map(str, range(30))],
            strict=True,
        )
    ]
    rows += [{"prompt": "\ud800 ?", "completion": "é ✓"}, *rows_of(3, start=50)]
    rows[4] |= {"id": None}
    lines = [json.dumps(row).encode() for row in rows]
    lines[9:9] = [b"{broken", b'{"prompt": 1}', b"\xff", b"", b"  "]
    path.write_bytes(b"\n".join(lines))
    return path


def test_nothing_that_was_measured_is_held_while_rows_are_decided(
    tmp_path: Path, quick_config: Callable[..., ScreenConfig], monkeypatch: pytest.MonkeyPatch
):
    held: list[list[type]] = []

    def decide(*args: Any, **kwargs: Any) -> None:
        gc.collect()
        found = gc.get_objects()
        held.append([type(one) for one in found if type(one) in (Setting, Scored, EncodedRow)])
        commit_decision(*args, **kwargs)

    monkeypatch.setattr(screening, "commit_decision", decide)
    screening.screen(quick_config(tmp_path / "run"), SILENT)
    assert held == [[]]


def test_rows_that_lie_in_a_file_are_the_same_rows(tmp_path: Path, few_held: int):
    path = awkward(tmp_path / "rows.jsonl")
    many = read_rows(path)
    assert isinstance(many.rows, Spilled)
    assert len(many.rows) > few_held
    spilled.HELD_ITEMS = 10**6
    held = read_rows(path)
    assert isinstance(held.rows, tuple)
    assert not isinstance(many.rejected, Spilled)
    assert list(many.rows) == list(held.rows) == [many.rows[at] for at in range(len(many.rows))]
    assert many.rejected == held.rejected
    assert [row.row for row in many.in_order()] == list(range(len(many)))
    assert repeated_ids(many) == repeated_ids(held) == ["a", "c", "7"]
    ids = [row.example_id for row in many.in_order()]
    assert len(set(ids)) == len(ids)
    assert "row-0-3" in ids


def test_a_sequence_in_a_file_behaves_as_a_tuple(few_held: int):
    spill = Spill()
    items = [b"x" * (at % 7) for at in range(3 * few_held)]
    for item in items:
        spill.append(item)
    found = spill.sequence(bytes)
    assert isinstance(found, Spilled)
    assert len(found) == len(spill) == len(items)
    assert list(found) == items
    assert found[-1] == items[-1]
    assert found[3:9:2] == items[3:9:2]
    with pytest.raises(IndexError):
        found[len(items)]
    assert pickle.loads(pickle.dumps(found)) == items  # another process gets a list
    places = np.array([5, 0, 29])
    assert list(chosen(found, places)) == chosen(items, places) == [items[5], items[0], items[29]]
    both = joined(chosen(found, places), [b"last"])
    assert (len(both), both[-1], both[0]) == (4, b"last", items[5])
    assert list(mapped(both, len)) == [5, 0, 1, 4]


def test_packed_rows_are_the_same_rows():
    row = EncodedRow(3, [5, 900, 1], [False, True, True], 1, "t\ud800", "kind", ("system",))  # type: ignore[arg-type]
    again = unpacked(packed(row))
    assert again == row
    assert (again.category, again.unscored) == ("kind", ("system",))
    assert again.is_target.dtype == np.bool_
    assert again.input_ids.dtype == np.int32


def test_encoded_rows_in_a_file_have_the_same_digest(
    tmp_path: Path, tiny_tokenizer: Callable[..., Any], few_held: int
):
    rows = read_rows(write_rows(tmp_path / "rows.jsonl", rows_of(30))).rows
    many, _ = Encoder(tiny_tokenizer(), "auto", 190).encode(rows, tmp_path)
    assert isinstance(many, Spilled)
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.jsonl"]
    assert rows_digest(many) == rows_digest(list(many)) == rows_digest(many)


def test_tables_in_parts_are_the_tables(tmp_path: Path, small_parts: int):
    frame = pd.DataFrame(
        {
            "row": np.arange(1000),
            "score": np.linspace(0, 1, 1000),
            "text": ["", *["some"] * 999],
            "learned": pd.array([None, *[True] * 999], dtype="boolean"),
        }
    )
    parts = (frame.iloc[at : at + small_parts] for at in range(0, 1000, small_parts))
    write_parts(tmp_path / "t.parquet", parts)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)
    assert sum(len(part) for part in read_parts(tmp_path / "t.parquet", ["row", "none"])) == 1000
    columns = columns_of(tmp_path / "t.parquet", without=["row"])
    assert list(columns) == ["score", "text", "learned"]
    assert not isinstance(columns, dict)
    assert np.array_equal(columns["score"], frame["score"])


def test_a_table_that_is_written_takes_the_memory_of_a_part_of_it(tmp_path: Path):
    import pyarrow as pa

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"loss": rng.normal(size=300_000), "rise": rng.normal(size=300_000)})
    watched, usual = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(watched)
    try:
        write_parquet(tmp_path / "t.parquet", frame)
    finally:
        pa.set_memory_pool(usual)
    assert watched.max_memory() < 8e6 < frame.memory_usage(index=False).sum() * 2
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)


def test_what_is_measured_is_written_in_parts(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parquet_parts, "PART_ROWS", 10)
    lora = LoraSettings(r=2, alpha=4)
    bench = Workbench(
        str(tiny_model("llama")), StageStore(tmp_path), lora=lora, seed=0, progress=SILENT
    )
    source = read_rows(write_rows(tmp_path / "rows.jsonl", rows_of(25))).rows
    rows = bench.encoder.encode(source)[0]
    safe = [replace(row, category="c") for row in rows[:6]]
    probes = [Probe(kind, "base") for kind in ("loss", "neighbours", "safe_neighbours")]
    found = bench.measure(probes, {"base": bench.base}, rows, safe)
    files = list(tmp_path.glob("measure_*/readings.parquet"))
    assert len(files) == 3
    assert [parquet.read_metadata(file).num_row_groups for file in files] == [3, 3, 3]
    assert np.isfinite(found.columns["loss_sum_base"]).all()


def test_a_decision_in_parts_writes_the_same_files(
    tmp_path: Path, few_held: int, monkeypatch: pytest.MonkeyPatch
):
    rows = [{**row, "source": f"s{at % 3}"} for at, row in enumerate(rows_of(700))]
    rows[5] = {"nothing": 1}
    whole = make_run(tmp_path / "whole", rows, unlearned=(9, 400), too_long=(20, 650))
    for module in (parquet_parts, tables, decision_files):
        monkeypatch.setattr(module, "PART_ROWS", 300)
    parts = make_run(tmp_path / "parts", rows, unlearned=(9, 400), too_long=(20, 650))
    for name in ("scores.parquet", "readings.parquet"):
        own, other = (pd.read_parquet(run / name) for run in (parts, whole))
        for frame in (own, other):
            frame.drop(columns="source", errors="ignore", inplace=True)  # the name of the file
        pd.testing.assert_frame_equal(own, other)
    written = contents(whole)
    for name in ("kept.jsonl", "removed.jsonl", "rejected.jsonl"):
        assert contents(parts)[name] == written[name]
    told = [json.loads((run / "summary.json").read_bytes()) for run in (whole, parts)]
    assert told[0]["decision"] == told[1]["decision"]
    assert told[0]["removed"] > 10


def held_bytes(make: Callable[[], Any]) -> tuple[int, int]:
    """What ``make`` leaves in memory, and what it had at its peak."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        del made


def test_rows_in_memory_do_not_grow_with_the_file(
    tmp_path: Path, tiny_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    """Rows that were held, as read and as tokens, took 1,267 bytes each, 1,348 at the peak."""
    monkeypatch.setattr(spilled, "HELD_ITEMS", 100)
    encoder = Encoder(tiny_tokenizer(), "auto", 190)
    encoder.encode(read_rows(write_rows(tmp_path / "first.jsonl", rows_of(150))).rows)

    def read(rows: int) -> Callable[[], Any]:
        path = write_rows(tmp_path / f"{rows}.jsonl", rows_of(rows))

        def make() -> Any:
            file = read_rows(path)
            return file, encoder.encode(file.rows)

        return make

    few, many = held_bytes(read(250)), held_bytes(read(850))
    assert (many[0] - few[0]) / 600 < 150
    assert (many[1] - few[1]) / 600 < 150


def test_harms_take_little_memory_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Four numbers of four bytes and one column; eight columns of eight bytes were held before."""
    monkeypatch.setattr(harms, "PART_ROWS", 2_000)
    safe = read_rows(write_rows(tmp_path / "safe.jsonl", rows_of(40)))
    named = [SimpleNamespace(row=row.row, category=f"harm {row.row % 3}") for row in safe.rows]

    def write(rows: int) -> Callable[[], Any]:
        numbers = np.arange(rows)
        columns = LazyColumns(
            {f"safe_neighbour_{k}_base": lambda k=k: (numbers + k) % 40 for k in range(NEIGHBOURS)}
        )
        bench = SimpleNamespace(measure=lambda *_: Readings(numbers, columns), base=None)
        setting: Any = SimpleNamespace(bench=bench, noisy=(), safe=named)
        folder = tmp_path / str(rows)
        folder.mkdir()
        return lambda: harms.write_harms(folder, setting, safe)

    write(3_000)()  # what is imported by the first call is nothing of the rows
    few, many = held_bytes(write(20_000)), held_bytes(write(60_000))
    assert (many[1] - few[1]) / 40_000 < 40
    table = pd.read_parquet(tmp_path / "60000" / "harms.parquet")
    assert table["safe_0"].tolist() == [row % 40 for row in range(60_000)]
    assert table["safe_3"].dtype == np.int64
    assert table["harm"].tolist() == [f"harm {row % 40 % 3}" for row in range(60_000)]
    assert len(json.loads((tmp_path / "60000" / "safe_rows.json").read_text())) == 40


def test_the_nearest_of_many_are_the_nearest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(many_rows, "_ROWS_TOGETHER", 7)
    monkeypatch.setattr(many_rows, "_OTHERS_TOGETHER", 11)
    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    vectors[13] = vectors[40]  # of equal ones the first
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    expected = np.argsort(-similar, axis=1, kind="stable")[:, :4]
    assert np.array_equal(many_rows.nearest_of_many(vectors, 4), expected)


def test_a_classifier_of_many_rows_is_fitted_on_some(monkeypatch: pytest.MonkeyPatch):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(0)
    is_safe = np.arange(400) >= 350
    vectors = (rng.normal(size=(400, 3)) + is_safe[:, None]).astype(np.float32)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    parts = (LogisticRegression(C=0.01, tol=1e-8), folds, vectors, is_safe)
    monkeypatch.setattr(many_rows, "_JUDGED_TOGETHER", 30)
    every = many_rows.odds_by_folds(*parts)
    precise = vectors.astype(np.float64)
    usual = cross_val_predict(parts[0], precise, is_safe, cv=folds, method="decision_function")
    assert np.allclose(every, usual, atol=1e-8)
    # Further vectors of the first rows: the same are judged the same, and none is fitted on.
    twice = np.concatenate([np.arange(400), np.arange(350)])
    again = many_rows.odds_by_folds(*parts, twice)
    assert np.allclose(again, np.concatenate([usual, usual[:350]]), atol=1e-8)
    monkeypatch.setattr(many_rows, "FITTED_ROWS", 150)
    some = many_rows.odds_by_folds(*parts)
    assert np.corrcoef(some, usual)[0, 1] > 0.95
    assert not np.allclose(some, usual, atol=1e-3)


def test_vectors_in_a_file_are_the_same_and_leave_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    vectors = np.random.default_rng(0).normal(size=(90_000, 64)).astype(np.float32)
    monkeypatch.setattr(many_rows, "PART_ROWS", 2**12)
    filed = many_rows.open_vectors(len(vectors), 64, tmp_path)
    assert isinstance(filed, np.memmap)
    assert not list(tmp_path.iterdir())
    peak = 0.0
    start = 0
    before = mapped_megabytes()
    for part in many_rows.parts_of(filed):
        part[:] = vectors[start : start + len(part)]
        start += len(part)
        peak = max(peak, mapped_megabytes() - before)
    assert peak < 4  # of 23
    assert np.array_equal(filed, vectors)
    many_rows.put_back(filed)
    few = filed[:2000]
    assert np.array_equal(
        many_rows.nearest_of_many(few, 4), many_rows.nearest_of_many(vectors[:2000], 4)
    )


def mapped_megabytes() -> float:
    """What this process has of mapped files in its memory."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the kernel does not say what of a file is in memory")
    lines = status.read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1000


@pytest.mark.parametrize("held", [10, 10**6])
def test_the_nearest_rows_are_those_of_vectors_in_memory(
    tiny_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, held: int
):
    tokenizer = tiny_tokenizer()
    model = build_model("llama", tokenizer).eval()
    rng = np.random.default_rng(0)
    rows = [
        EncodedRow(at, rng.integers(5, 90, 9), np.arange(9) >= 4, 4, "")  # type: ignore[arg-type]
        for at in range(40)
    ]
    monkeypatch.setattr(many_rows, "HELD_ROWS", held)
    monkeypatch.setattr(many_rows, "PART_ROWS", 8)
    silent = Progress(is_silent=True)
    vectors = row_vectors(model, rows, "answer", 256, silent, "")
    assert isinstance(vectors, np.memmap) == (held == 10)
    found = nearest_rows(model, rows, 4, 256, silent, "")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    assert np.array_equal(found, np.argsort(-similar, axis=1, kind="stable")[:, :4])


def crossfit_readings(rows: int) -> Readings:
    rng = np.random.default_rng(0)
    signal = Crossfit()
    states = dict.fromkeys(["base", *(state for pair in signal.pairs for state in pair)])
    columns: dict[str, Any] = {
        "completion_tokens": rng.integers(1, 60, rows),
        "leading_scale": rng.uniform(1, 5, rows),
        "likeness_base": rng.normal(size=rows),
    }
    for state in states:
        columns |= {
            f"{kind}_{state}": rng.normal(size=rows) for kind in ("loss_sum", "leading_loss")
        }
    columns |= {f"neighbour_{k}_base": 3 * rng.integers(0, rows, rows) for k in range(4)}
    return Readings(3 * np.arange(rows), columns)


def test_scores_of_many_rows_take_little_memory_and_are_the_same():
    """All rows at once took 320 bytes a row at the peak."""
    few, many = (crossfit_readings(rows) for rows in (40_000, 80_000))
    signal = Crossfit()
    peaks = [held_bytes(lambda own=own: signal.combine(own))[1] for own in (few, many)]
    assert (peaks[1] - peaks[0]) / 40_000 < 170
    own = np.array(
        [
            (few[f"leading_loss_{later}"] - few[f"leading_loss_{earlier}"]) / few["leading_scale"]
            for earlier, later in signal.pairs
        ]
    )
    each = 0.5 * own + 0.5 * own[:, few.neighbours("base")].mean(axis=2)
    most = np.maximum(np.median(own, axis=0), 0.0) + 0.09
    evidence = np.minimum(np.median(each, axis=0), most)
    likeness = few["likeness_base"]
    share = np.searchsorted(np.sort(likeness), likeness, side="right") / len(likeness)
    expected = evidence * np.minimum(1.0, 0.3 + share)
    assert np.array_equal(signal.combine(few).forgetting_score, expected)
