"""The rows on the report: which are listed, what they say, and what lies beside the page."""

from __future__ import annotations

import json
import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from forgetfilter.runs.report import listed, row_data
from forgetfilter.runs.report.page import render_report
from made_run import HOSTILE, MadeRun, Page, fill, texts_by_row
from made_run import row_data as page_data


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path / "run")


def listed_rows(html: str) -> list[int]:
    return page_data(html)["index"]["row"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_data_or_escaped_and_never_markup(run: MadeRun, hostile: str) -> None:
    fill(run, 10)
    benign = Page(run.render())
    row = run.add(
        0.99,
        prompt=hostile,
        target=hostile,
        example_id=hostile,
        reason=f"because {hostile}",
        source=hostile,
        category=hostile,
    )
    run.add(0.98, source="forum", category="forum")
    run.reject(hostile, raw=hostile)
    run.evidence = [
        {"row": row, "learned_text": hostile, "forgotten_text": None, "pieces": ["a", hostile],
         "rises": [0.0, 2.5]}
    ]  # fmt: skip
    run.summary |= {"model": hostile, "unit": hostile, "seconds": {hostile: 1.0}}
    run.summary |= {"threshold_notes": {hostile: hostile}, "coverage_note": hostile}
    run.write()
    (run.path / "config.yaml").write_text(f"model: {hostile}\n")
    (run.path / "provenance.json").write_text(json.dumps({hostile: [hostile]}))
    html = render_report(run.path, {row: hostile}).read_text(encoding="utf-8")
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in benign.tags} | {"details", "pre"}
    assert html.count("<script") == html.count("</script") == 2  # the rows, and the page's own
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html
    )
    told = texts_by_row(html)[row]
    if hostile.isprintable():
        assert hostile in page.words
        assert told["answer"][0] == told["turns"][0][1] == told["said"][0][1] == hostile
        assert told["words"] == [["a", 0, "0"], [hostile, 4, "2.5"]]
    else:
        assert r"\x1b" in told["answer"][0]
        assert r"\u202e" in told["answer"][0]
    report = (run.path / "report.json").read_text(encoding="utf-8")
    assert "\x1b" not in report
    assert "\u202e" not in report


def test_every_removed_row_is_listed_and_the_nearest_kept_ones(run: MadeRun) -> None:
    rng = np.random.default_rng(0)
    for score in rng.uniform(0, 1, 800):
        run.add(float(score), learned=score > 0.05)
    rows = listed_rows(run.render())
    scores = np.array([float(str(each["forgetting_score"])) for each in run.scores])
    removed = set(np.flatnonzero(scores > 0.5).tolist())
    assert removed <= set(rows)
    below = np.flatnonzero(scores <= 0.5)
    nearest = below[np.argsort(-scores[below])][: listed.KEPT_LISTED]
    assert set(rows) - removed == set(nearest.tolist())
    assert rows == sorted(rows, key=lambda row: -scores[row])


def test_rows_kept_for_being_unlike_the_removed_ones_are_listed_however_low(run: MadeRun) -> None:
    for score in np.linspace(0.1, 0.4, 400):
        run.add(float(score))
    low = [run.add(0.01, reason="unlike_those_removed") for _ in range(3)]
    high = run.add(0.9)
    html = run.render()
    rows = listed_rows(html)
    assert set(low) < set(rows)
    assert len(rows) == 1 + 3 + listed.KEPT_LISTED
    assert rows[0] == high
    assert "stands out by its forgetting, but is unlike those removed" in html


def test_rows_are_listed_by_score_ties_in_file_order_and_unused_ones_last(run: MadeRun) -> None:
    for score in (0.1, 0.9, 0.5, 0.9, 0.6, math.inf):
        run.add(score)
    run.reject("malformed JSON")
    data = page_data(run.render())["index"]
    assert data["row"] == [5, 1, 3, 4, 2, 0, 6]
    assert data["score"][0] == row_data._LARGEST
    assert data["score"][-1] is None


def test_undecided_rows_are_listed_most_forgotten_first(run: MadeRun) -> None:
    fill(run, 50)
    for score in run.scores:
        score |= {"decision": "undecided", "reason": "undecided"}
    run.lines["undecided"] = [
        json.dumps({"prompt": "p", "completion": f"answer {row}"}) for row in range(50)
    ]
    run.lines["kept"] = run.lines["removed"] = []
    run.summary["is_decided"] = False
    html = run.render()
    assert listed_rows(html)[0] == 49
    assert texts_by_row(html)[49]["answer"][0] == "answer 49"
    assert "The most forgotten rows (40)" in Page(html).words


def test_texts_belong_to_their_rows_across_both_files(run: MadeRun) -> None:
    for index in range(40):
        run.add((index * 7 % 40) / 40, target=f"answer number {index}.", example_id=f"id-{index}.")
    html = run.render()
    ids = dict(zip(listed_rows(html), page_data(html)["index"]["id"], strict=True))
    told = texts_by_row(html)
    assert len(told) == 40
    for row, record in told.items():
        assert ids[row] == f"id-{row}."
        assert record["answer"][0] == f"answer number {row}."


def test_a_row_of_the_page_has_its_numbers_its_length_and_what_the_model_said(
    run: MadeRun,
) -> None:
    for earlier in ("early", "learned"):
        row = run.add(0.9)
        run.evidence.append({"row": row, "earlier": earlier, "learned_text": f"SAID {earlier}"})
    other = run.add(0.8)
    told = texts_by_row(run.render())
    assert told[0]["said"] == [["learned, early on", "SAID early", ""], ["forgotten", None, ""]]
    assert told[1]["said"][0] == ["learned", "SAID learned", ""]
    assert told[0]["states"] == [["base", "2"], ["learned, early on", "0.1"], ["forgotten", "0.9"]]
    assert "said" not in told[other]


def test_long_answers_and_conversations_are_cut_and_say_so(run: MadeRun) -> None:
    run.add(0.9, target="x" * 100_000)
    run.add(0.8)
    turns = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"turn-{n}."} for n in range(10)
    ]
    run.lines["removed"][1] = json.dumps({"messages": turns})
    row = 0
    run.evidence = [
        {"row": row, "learned_text": "", "forgotten_text": "", "pieces": ["x"] * 5000,
         "rises": [1.5] * 5000}
    ]  # fmt: skip
    told = texts_by_row(run.render())
    assert told[0]["answer"] == ["x" * 600 + "…", "first 600 of 100,000 characters"]
    assert len(told[0]["words"]) == 200
    assert told[1]["earlier"] == 5
    assert [turn[1] for turn in told[1]["turns"]] == [f"turn-{n}." for n in range(5, 9)]


def test_sources_of_the_rows_own_column_are_counted_the_worst_first(run: MadeRun) -> None:
    for at in range(30):
        run.add(0.9 if at % 3 == 0 and at < 15 else 0.1, source=("vendor", "forum", "help")[at % 3])
    run.reject("malformed JSON")
    words = Page(run.render()).words
    assert "vendor 10 10 5 50.0%" in words
    assert "forum 10 10 0 0.0%" in words
    assert "not named 1 0 0 –" in words
    (first, *_) = run.report["by_source"]
    assert (first["name"], first["removed"], first["removed_share"]) == ("vendor", 5, 0.5)
    assert {row["source"] for row in run.report["rows"] if row["decision"] == "removed"} == {
        "vendor"
    }


def test_the_files_of_several_win_over_the_rows_own_column(run: MadeRun) -> None:
    for at in range(4):
        run.add(0.9, source="what the row says")
        run.scores[at]["source"] = f"file-{at % 2}.jsonl"
    words = Page(run.render()).words
    assert "file-0.jsonl 2 2 2 100.0%" in words
    assert "what the row says" not in words


def test_a_source_that_differs_in_every_row_is_no_grouping(run: MadeRun) -> None:
    for at in range(100):
        run.add(0.1, source=f"https://example.org/{at}")
    html = run.render()
    assert "By source" not in Page(html).words
    assert run.report["by_source"] == []


def test_what_a_reviewer_decided_is_listed_beside_the_runs_decision(run: MadeRun) -> None:
    for at in range(500):
        run.add(0.9 if at < 2 else 0.001 * (at % 400))
    far = min(range(2, 500), key=lambda row: float(str(run.scores[row]["forgetting_score"])))
    run.write()
    html = render_report(run.path, {0: "keep", far: "remove"}).read_text(encoding="utf-8")
    index = page_data(html)["index"]
    said = {row: over for row, over in zip(index["row"], index["overruled"], strict=True) if over}
    assert said == {0: "keep", far: "remove"}
    assert "Reviewers have decided 2 rows" in Page(html).words
    told = {row["row"]: row for row in run.report["rows"]}
    assert (told[0]["decision"], told[0]["overruled"]) == ("removed", "keep")


def test_the_report_for_programs_has_every_listed_row_and_where_its_line_is(run: MadeRun) -> None:
    fill(run, 60)
    run.reject("malformed JSON")
    run.add(math.inf)
    html = run.render()
    report = run.report
    assert report["schema_version"] == 1
    assert report["summary"]["removed"] == len(run.lines["removed"])
    assert report["judged"] == 49
    assert [row["row"] for row in report["rows"]] == listed_rows(html)
    for row in report["rows"]:
        lines = (run.path / row["file"]).read_text(encoding="utf-8").splitlines()
        held = json.loads(lines[row["line"] - 1])
        assert held == (
            {"row": 60, "line": 62, "reason": "malformed JSON", "raw": "{"}
            if row["decision"] == "rejected"
            else {"prompt": "How is the ferry run?", "completion": "It runs on a chain."}
        )
        assert "forgetting_score" in row or row["row"] in (60, 61)


def test_what_has_no_room_lies_beside_the_page_and_nothing_is_lost(
    run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_data, "_INDEX_STEP", 10)
    monkeypatch.setattr(row_data, "INDEX_BYTES", 2000)
    monkeypatch.setattr(row_data, "TEXT_BYTES", 3000)
    monkeypatch.setattr(row_data, "FILE_BYTES", 2000)
    for at in range(200):
        run.add(0.9, target=f"</script> {at}", source="a" if at < 180 else "b")
    html = run.render()
    data = page_data(html)
    assert data["listed"] == 200
    assert len(data["index"]["row"]) < 200
    assert len(data["texts"]) < 200
    rows, answers = list(data["index"]["row"]), [text["answer"][0] for text in data["texts"]]
    for name, first, last in data["indexFiles"]:
        text = (run.path / name).read_text(encoding="ascii")
        called, part = re.fullmatch(r"forgetfilterIndex\((\d+),(.*)\);\n", text).groups()  # type: ignore[union-attr]
        assert int(called) == first == len(rows)
        rows += json.loads(part)["row"]
        assert len(rows) == last
    for name, first, last in data["textFiles"]:
        text = (run.path / name).read_text(encoding="ascii")
        assert "<" not in text
        called, part = re.fullmatch(r"forgetfilterTexts\((\d+),(.*)\);\n", text).groups()  # type: ignore[union-attr]
        assert int(called) == first == len(answers)
        answers += [each["answer"][0] for each in json.loads(part)]
        assert len(answers) == last
    assert rows == list(range(200))
    assert answers == [f"</script> {at}" for at in range(200)]
    assert "'strict-dynamic'" in html

    before = {path.name for path in (run.path / "report_rows").iterdir()}
    run.lines["removed"][150] = json.dumps({"prompt": "another", "completion": "text"})
    run.render()
    after = {path.name for path in (run.path / "report_rows").iterdir()}
    assert after != before  # named by their content, and the outdated ones are gone
    assert len(after) == len(before)
    monkeypatch.undo()
    run.render()
    assert not (run.path / "report_rows").exists()


def test_a_large_run_is_streamed_and_its_page_is_small(run: MadeRun) -> None:
    rng = np.random.default_rng(0)
    for score in rng.normal(0.3, 0.2, 50_000):
        run.add(float(score), target="word " * 200)
    run.write()
    assert sum((run.path / f"{n}.jsonl").stat().st_size for n in ("kept", "removed")) > 50e6
    tracemalloc.start()
    try:
        path = render_report(run.path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80e6
    assert path.stat().st_size < 5_000_000
    removed = len(run.lines["removed"])
    assert page_data(path.read_text(encoding="utf-8"))["listed"] == removed + listed.KEPT_LISTED
