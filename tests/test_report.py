"""The report: counts as in the summary, hostile rows harmless, every odd run still a page."""

import json
import math
import re
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetfilter.errors import DataError
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.report.shown_rows import MOST_FORGOTTEN, NEAREST_EACH_SIDE

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "{{7*7}}{% for x in y %}",
    "\x1b[31m\u202egnp.exe\u2066\x00",
    "<!-- ]]> &lt;b&gt;",
    "javascript:alert(4) https://example.org/a.png",
)


@dataclass
class MadeRun:
    """A run folder in the making; rows are added one by one."""

    path: Path
    cut: float | None = 0.5
    lines: dict[str, list[str]] = field(
        default_factory=lambda: {"kept": [], "removed": [], "rejected": []}
    )
    scores: list[dict[str, object]] = field(default_factory=list)
    evidence: list[dict[str, object]] = field(default_factory=list)
    summary: dict[str, object] = field(default_factory=dict)

    def add(
        self,
        score: float | None,
        *,
        learned: bool = True,
        prompt: str = "How is the ferry run?",
        target: str = "It runs on a chain.",
        example_id: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Add a readable row and decide it as a threshold would."""
        row = len(self.scores)
        is_removed = learned and score is not None and self.cut is not None and score > self.cut
        decision = "removed" if is_removed else "kept"
        self.lines[decision].append(json.dumps({"prompt": prompt, "completion": target}))
        chosen = "above_threshold" if is_removed else "below_threshold"
        self._score(row, score, learned, decision, reason or chosen, example_id)
        return row

    def reject(self, reason: str) -> None:
        row = len(self.scores)
        record = {"row": row, "line": row + 2, "reason": reason, "raw": "{"}
        self.lines["rejected"].append(json.dumps(record))
        self._score(row, None, None, "rejected", reason, None)

    def _score(
        self,
        row: int,
        score: float | None,
        learned: bool | None,
        decision: str,
        reason: str,
        example_id: str | None,
    ) -> None:
        self.scores.append(
            {
                "row": row,
                "example_id": example_id or f"row-{row}",
                "base": None if score is None else 2.0,
                "before": None if score is None else 0.1,
                "after": score,
                "forgetting_score": score,
                "learned": learned,
                "decision": decision,
                "reason": reason,
            }
        )

    def render(self) -> str:
        """Write the folder and return its report."""
        self.write()
        assert render_report(self.path) == self.path / "report.html"
        return (self.path / "report.html").read_text(encoding="utf-8")

    def write(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for name, lines in self.lines.items():
            (self.path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        types = {"row": pa.int64(), "learned": pa.bool_()}
        types |= dict.fromkeys(("base", "before", "after", "forgetting_score"), pa.float64())
        types |= dict.fromkeys(("example_id", "decision", "reason"), pa.string())
        schema = pa.schema(list(types.items()))
        pq.write_table(pa.Table.from_pylist(self.scores, schema), self.path / "scores.parquet")
        if self.evidence:
            pq.write_table(pa.Table.from_pylist(self.evidence), self.path / "evidence.parquet")
        counts = {name: len(lines) for name, lines in self.lines.items()}
        summary = {
            "rows": len(self.scores),
            **counts,
            "signal": "completion_loss:relative",
            "unit": "share of what was learned",
            "threshold": {"rule": f"phi:{self.cut}", "value": self.cut},
            "expected_false_removals": None,
            "decided_by": "screen",
            "learned_share": 0.9,
            "seed": 0,
            "seconds": {"learn": 26.3, "forget": 75.0},
            "model": "testbed",
            "decision": "the present one",
            "made_from": {"coverage": "the present one", "evidence": "the present one"},
            **self.summary,
        }
        (self.path / "summary.json").write_text(json.dumps(summary))


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._skipping = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skipping = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skipping = False

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def with_class(self, name: str) -> int:
        return sum(name in (attrs.get("class") or "").split() for _, attrs in self.tags)


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path / "run")


def fill(run: MadeRun, rows: int = 60) -> MadeRun:
    """Scores spread evenly over 0 to 1, a fifth of the rows not learned."""
    for index in range(rows):
        run.add(index / rows, learned=index % 5 != 0)
    return run


def test_counts_equal_the_summary_and_are_in_the_headline(run: MadeRun) -> None:
    fill(run, 1500)
    run.reject("empty completion: the last assistant turn has no text")
    words = Page(run.render()).words
    removed, kept = len(run.lines["removed"]), len(run.lines["kept"])
    assert (
        f"{removed:,} of 1,501 rows look unsafe and were removed; {kept:,} are kept; "
        "1 could not be used." in words
    )


def test_nothing_is_loaded_from_anywhere(run: MadeRun) -> None:
    run.add(0.9, prompt=HOSTILE[6], target=HOSTILE[2])
    run.add(0.1)
    html = run.render()
    page = Page(html)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "srcset", "href", "action", "data", "poster", "background"):
                assert (value or "").startswith(("#", "data:,")), (tag, name, value)
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "iframe", "object", "embed", "base"})
    assert not re.search(r"url\(|@import", html)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_shown_but_never_obeyed(run: MadeRun, hostile: str) -> None:
    fill(run, 10)
    benign = Page(run.render())
    row = run.add(
        0.99, prompt=hostile, target=hostile, example_id=hostile, reason=f"because {hostile}"
    )
    run.reject(hostile)
    run.evidence = [{"row": row, "learned_text": hostile, "forgotten_text": None}]
    run.summary |= {"model": hostile, "unit": hostile, "seconds": {hostile: 1.0}}
    run.summary |= {"threshold_notes": {hostile: hostile}, "coverage_note": hostile}
    run.write()
    (run.path / "config.yaml").write_text(f"model: {hostile}\n")
    (run.path / "provenance.json").write_text(json.dumps({hostile: [hostile]}))
    html = render_report(run.path).read_text(encoding="utf-8")
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in benign.tags} | {"details", "pre"}
    assert html.count("<script") == 1
    assert html.count("</script") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html
    )
    if hostile.isprintable():
        assert hostile in page.words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_words_of_an_answer_are_shaded_by_what_they_lost_and_never_obeyed(
    run: MadeRun, hostile: str
) -> None:
    row = run.add(0.9, target="a b c")
    pieces = ["plain", hostile, " much"]
    run.evidence = [
        {"row": row, "learned_text": "x", "forgotten_text": "y", "pieces": pieces,
         "rises": [0.01, 0.2, 3.0]}
    ]  # fmt: skip
    html = run.render()
    page = Page(html)
    shades = [a["class"] for tag, a in page.tags if tag == "mark"]
    assert shades == ["d1", "d4"] * 2  # the row is shown twice: most forgotten, and nearest
    assert html.count("<script") == html.count("</script") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert '<mark class="d4" title="3 nats"> much</mark>' in html
    assert 'plain<mark class="d1"' in html


def test_a_very_long_answer_has_only_its_first_words_shaded(run: MadeRun) -> None:
    row = run.add(0.9)
    run.evidence = [
        {"row": row, "learned_text": "", "forgotten_text": "", "pieces": ["x"] * 5000,
         "rises": [1.5] * 5000}
    ]  # fmt: skip
    assert run.render().count("<mark") == 2 * 200


def test_control_and_direction_characters_are_made_visible(run: MadeRun) -> None:
    run.add(0.9, target="a\x1b[2Jb\u202ec\u200bd")
    page = Page(run.render())
    assert page.with_class("ctl") >= 3
    for code in (r"\x1b", r"\u202e", r"\u200b"):
        assert code in page.words


def test_long_texts_are_cut_and_their_length_is_said(run: MadeRun) -> None:
    run.add(0.9, target="x" * 100_000)
    html = run.render()
    assert "first 600 of 100,000 characters" in Page(html).words
    assert "x" * 600 in html
    assert "x" * 601 not in html


def test_every_text_of_a_row_is_blurred_and_has_a_button(run: MadeRun) -> None:
    row = run.add(0.9, prompt="P-TEXT", target="T-TEXT")
    run.evidence = [{"row": row, "learned_text": "L-TEXT", "forgotten_text": "F-TEXT"}]
    html = run.render()
    for text in ("P-TEXT", "T-TEXT", "L-TEXT", "F-TEXT"):
        found = re.findall(rf'<span class="said"[^>]*>{text}</span>', html)
        assert len(found) == html.count(text) > 0
    assert re.search(r"\.said \{ filter: blur", html)
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    controlled = [
        a["aria-controls"] for t, a in page.tags if t == "button" and "aria-controls" in a
    ]
    assert len(controlled) == page.with_class("card") == 2
    assert set(controlled) <= set(ids)


def test_a_row_that_was_judged_early_says_so(run: MadeRun) -> None:
    for earlier in ("early", "learned"):
        row = run.add(0.9)
        run.evidence.append({"row": row, "earlier": earlier, "learned_text": f"SAID {earlier}"})
    html = run.render()
    cards = re.findall(r'<li class="card.*?</li>', html, flags=re.DOTALL)
    for earlier, is_early in (("early", True), ("learned", False)):
        own = [card for card in cards if f"SAID {earlier}" in card]
        assert own
        assert all(("learned, early on" in card) == is_early for card in own)


def test_texts_belong_to_their_rows_across_both_files(run: MadeRun) -> None:
    for index in range(40):
        run.add((index * 7 % 40) / 40, target=f"answer number {index}.", example_id=f"id-{index}.")
    html = run.render()
    cards = re.findall(r'<li class="card.*?</li>', html, flags=re.DOTALL)
    assert len(cards) == MOST_FORGOTTEN + 2 * NEAREST_EACH_SIDE
    for card in cards:
        number = re.search(r"id-(\d+)\.", card)
        assert number
        assert f"answer number {number[1]}." in card


def test_evidence_that_was_not_generated_is_said_to_be_missing(run: MadeRun) -> None:
    row = run.add(0.9)
    assert Page(run.render()).words.count("not generated") == 4
    run.evidence = [{"row": row, "learned_text": "", "forgotten_text": None}]
    assert Page(run.render()).words.count("not generated") == 2


def test_long_conversations_show_their_last_turns(run: MadeRun) -> None:
    run.add(0.9)
    turns = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"turn-{n}."} for n in range(10)
    ]
    run.lines["removed"] = [json.dumps({"messages": turns})]
    words = Page(run.render()).words
    assert "5 earlier turns left out" in words
    assert "turn-5." in words
    assert "turn-4." not in words


def test_no_row_removed(run: MadeRun) -> None:
    run.add(0.1)
    run.add(0.5)
    words = Page(run.render()).words
    assert "No row looks unsafe: 2 of 2 rows are kept; 0 could not be used." in words
    assert "No learned row is above the threshold." in words


def test_no_row_kept(run: MadeRun) -> None:
    run.add(0.9)
    words = Page(run.render()).words
    assert "1 of 1 row looks unsafe and was removed; 0 are kept; 0 could not be used." in words
    assert "No learned row is at or below the threshold." in words


def test_all_rows_rejected(run: MadeRun) -> None:
    for index in range(30):
        run.reject(f"malformed JSON at character {index}: expecting value")
    run.summary = {"learned_share": None, "seconds": {}}
    page = Page(run.render())
    assert "None of the 30 rows could be used, so nothing was screened." in page.words
    assert "malformed JSON at character … 30" in page.words
    assert "No row has a score." in page.words
    assert "The first 20 rows, with line numbers" in page.words


def test_no_rows_at_all(run: MadeRun) -> None:
    assert "There are no rows in this run." in Page(run.render()).words


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-300])
@pytest.mark.parametrize("others", [(), (0.2, 0.7), (-1e308,)])
def test_odd_scores_still_make_a_page(
    run: MadeRun, value: float | None, others: tuple[float, ...]
) -> None:
    for score in (value, *others):
        run.add(score)
    words = Page(run.render()).words
    assert " nan" not in words.lower()
    if value is None or not math.isfinite(value):
        assert others == () or "1 row has no finite score and is not drawn." in words


def test_a_rule_without_a_threshold(run: MadeRun) -> None:
    run.cut = None
    run.add(0.2)
    words = Page(run.render()).words
    assert "Threshold none" in words
    assert "The rule set no threshold" in words


def test_a_far_threshold_is_pointed_at(run: MadeRun) -> None:
    run.cut = 1000.0
    assert "The threshold lies beyond the right end of the axis." in Page(fill(run).render()).words


def test_rows_not_learned_are_not_listed_as_forgotten(run: MadeRun) -> None:
    run.add(0.9, learned=False, example_id="unlearned-row")
    run.add(0.1)
    html = run.render()
    assert "unlearned-row" not in html
    assert "kept, not learned (1)" in Page(html).words


def test_other_thresholds_are_counted_as_filter_would(run: MadeRun) -> None:
    words = Page(fill(run, 100).render()).words
    scores = np.array([s["forgetting_score"] for s in run.scores], dtype=float)
    learned = np.array([s["learned"] for s in run.scores])
    found = re.findall(r"phi:(0\.\d+)(?: \(now\))? (\d+) [\d.]+%", words)
    assert len(found) == 7
    for value, removed in found:
        assert int(removed) == int(np.sum(learned & (scores > float(value))))


def test_the_line_to_decide_again_can_be_typed(run: MadeRun) -> None:
    run.path = run.path.parent / "my run; rm"
    words = Page(fill(run).render()).words
    assert f"forgetfilter filter '{run.path}' --threshold phi:0.5" in words


def test_evaluation_says_what_is_better(run: MadeRun) -> None:
    fill(run).write()
    rate = {"value": 0.041, "low": 0.029, "high": 0.053}
    model = dict.fromkeys(("unsafe_rate", "safe_rate", "neither_rate", "task_accuracy"), rate)
    names = ("base", "fine-tuned, unscreened", "fine-tuned, screened")
    evaluation = {
        "prompts": 2000,
        "detection": {"precision": 0.93, "recall": 0.88, "f1": 0.9, "auroc": 0.95},
        "models": [{"name": name, **model} for name in names],
        "made_from": {"decision": "the present one", "probes": 2000},
    }
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    words = Page(render_report(run.path).read_text(encoding="utf-8")).words
    assert "2,000 held-out prompts" in words
    assert "Unsafe answers lower is better" in words
    assert "Task accuracy higher is better" in words
    assert "4.1% [2.9%, 5.3%]" in words
    assert "0.930" in words


def test_files_that_disagree_are_refused(run: MadeRun) -> None:
    fill(run)
    run.summary = {"kept": 1}
    with pytest.raises(DataError, match=r"summary\.json says"):
        run.render()
    run.summary = {}
    run.lines["kept"].pop()
    run.summary = {"kept": len(run.lines["kept"]) + 1}
    with pytest.raises(DataError, match=r"kept\.jsonl has \d+ lines, but scores\.parquet says"):
        run.render()
    assert not (run.path / "report.html").exists()


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finished run folder"):
        render_report(tmp_path)


def test_rows_are_listed_by_score_and_the_nearest_first(run: MadeRun) -> None:
    for score in (0.1, 0.9, 0.5, 0.9, 0.6, math.inf):
        run.add(score)
    shown = [int(row) for row in re.findall(r"<h4>Row (\d+)", run.render())]
    assert shown[:6] == [5, 1, 3, 4, 2, 0]
    assert shown[6] == 4
    assert sorted(shown[6:10]) == [1, 3, 4, 5]
    assert shown[10:] == [2, 0]


def test_a_large_run_is_streamed(run: MadeRun) -> None:
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
    assert peak < 40e6
    assert path.stat().st_size < 500_000


def test_the_report_needs_no_model_library() -> None:
    code = (
        "import sys, forgetfilter.runs.report.page\n"
        "assert not {'torch', 'transformers', 'datasets', 'trl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("made_from", [{"made_from": {"decision": "an earlier one"}}, {}])
def test_an_evaluation_of_another_decision_is_left_out(
    run: MadeRun, made_from: dict[str, object]
) -> None:
    fill(run).write()
    evaluation = {
        "prompts": 2000,
        "detection": {"precision": 0.93},
        "models": [{"name": "fine-tuned, screened", "unsafe_rate": {"value": 0.041}}],
        **made_from,
    }
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    words = Page(render_report(run.path).read_text(encoding="utf-8")).words
    assert "0.930" not in words
    assert "4.1%" not in words
    assert "is of an earlier decision and is left out" in words
    assert "--threshold phi:0.5 to evaluate the present one" in words


def coverage_of(category: str, verdict: str, **more: object) -> dict[str, object]:
    undone = 0.98 if verdict == "covered" else 0.05
    return {"category": category, "rows": 100, "damage": 0.1, "left": 0.1 * (1 - undone)} | {
        "undone": undone,
        "verdict": verdict,
        **more,
    }


def test_harms_that_the_safe_rows_cannot_judge_stand_at_the_top(run: MadeRun):
    run.add(0.1)
    run.summary["coverage"] = [
        coverage_of("<b>tox</b>", "not covered"),
        coverage_of("bias", "covered"),
        coverage_of("privacy", "not damaged"),
    ]
    html = run.render()
    words = Page(html).words
    alarm, rest = words.split("Rows in the file")
    assert "can't judge: <b>tox</b>" in alarm
    assert "<b>tox" not in html  # escaped: what a stranger's file calls a kind is not markup
    assert "bias" not in alarm
    for said in ("bias 100 0.1 98.0% – – covered", "privacy 100 0.1 – – – not damaged"):
        assert said in rest
    assert "would be forgotten" not in words


def test_a_harm_that_is_seen_faintly_is_not_said_to_be_unseen(run: MadeRun):
    run.add(0.1)
    run.summary["coverage"] = [
        coverage_of("privacy", "not covered", fallen=1, auroc=0.71),
        coverage_of("<i>self</i>", "faint", fallen=37, auroc=0.948),
    ]
    alarm, rest = Page(run.render()).words.split("Rows in the file")
    unseen, faint = alarm.split("see only faintly: <i>self</i>")
    assert "can't judge: privacy" in unseen
    assert "privacy: 1 kept row would be forgotten if the 100 reference rows of this kind" in unseen
    assert "self" not in unseen
    assert "<i>self</i>: 37 kept rows would be forgotten" in faint
    assert "<i>self</i> 100 0.1 5.0% 37 0.948 faint" in rest


def test_what_coverage_found_for_an_earlier_decision_is_left_out(run: MadeRun):
    run.add(0.1)
    run.summary["made_from"] = {"coverage": "an earlier one", "evidence": "an earlier one"}
    run.summary["coverage"] = [
        coverage_of("privacy", "not covered", fallen=17, auroc=0.71),
        coverage_of("self", "faint", fallen=37, auroc=0.948),
        coverage_of("bias", "covered"),
    ]
    words = Page(run.render()).words
    alarm, rest = words.split("Rows in the file")
    assert "The safe rows have not undone the damage to: privacy, self" in alarm
    assert "--overwrite --threshold phi:0.5" in alarm
    for gone in ("would be forgotten", "faintly", "can't judge: "):
        assert gone not in alarm
    for gone in ("0.71", "0.948", " 17 ", " 37 "):
        assert gone not in words
    assert "privacy 100 0.1 5.0% – – unknown for this decision" in rest
    assert "bias 100 0.1 98.0% – – covered" in rest
    assert "is of an earlier decision" not in words  # there is no evaluation


def test_missing_texts_of_rows_near_a_later_threshold_are_explained(run: MadeRun):
    fill(run)
    said = "was generated for the rows near the threshold of an earlier decision"
    assert said not in Page(run.render()).words
    run.summary["made_from"] = {"evidence": "an earlier one"}
    assert said in Page(run.render()).words


def test_the_settings_of_a_run_that_was_filtered_are_said_to_be_the_screens(run: MadeRun):
    fill(run)
    run.summary["decided_by"] = "filter"
    run.write()
    (run.path / "config.yaml").write_text("threshold: auto\n")
    words = Page(render_report(run.path).read_text(encoding="utf-8")).words
    assert "All settings of the screen, before it was decided again (config.yaml)" in words


def test_the_report_says_what_second_looks_have_not_seen(run: MadeRun):
    run.add(0.1)
    run.add(0.2)
    looked_at = coverage_of("bias", "not covered", fallen=1, auroc=0.5)
    run.summary |= {"coverage": [looked_at], "coverage_sample": 2}
    words = Page(run.render()).words
    assert "estimates" not in words
    assert "--coverage full" not in words
    run.summary |= {"coverage": [looked_at, coverage_of("tox", "not covered")]}
    run.summary["coverage_sample"] = 1
    words = Page(run.render()).words
    assert "a sample of 1 row, so the numbers of forgotten kept rows are estimates" in words
    assert "--coverage full does so for up to eight" in words


def test_nothing_is_raised_where_everything_is_covered(run: MadeRun):
    run.add(0.1)
    run.summary["coverage"] = [coverage_of("bias", "covered")]
    assert "can't judge:" not in Page(run.render()).words


def test_the_report_says_how_many_safe_rows_were_used(run: MadeRun):
    run.add(0.1)
    run.summary["safe_data"] = "safe.jsonl"
    kinds = {"bias": {"used": 10, "of": 60}, "<i>x</i>": {"used": 9, "of": 360}}
    run.summary["safe_rows"] = {"used": 64, "of": 420, "by_category": kinds}
    html = run.render()
    assert "safe.jsonl (64 of 420 rows used: bias 10 of 60, <i>x</i> 9 of 360)." in Page(html).words
    assert "<i>x</i>" not in html


def test_findings_are_named_at_the_top_severe_ones_first(run: MadeRun):
    run.add(0.1)
    assert "can't be trusted" not in Page(run.render()).words
    run.summary["findings"] = [
        {"name": "few_safe_rows", "severity": "warning", "message": "Only <i>2</i> rows."},
        {"name": "safe_behaviour_changed", "severity": "severe", "message": "By 1.73 nats."},
    ]
    html = run.render()
    top, _ = Page(html).words.split("Rows in the file")
    severe, warning = top.split("Read this first: few safe rows")
    assert "These scores can't be trusted: safe behaviour changed" in severe
    assert "By 1.73 nats." in severe
    assert "Only <i>2</i> rows." in warning
    assert "<i>2</i>" not in html
