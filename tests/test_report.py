"""The report: counts as in the summary, hostile rows harmless, every odd run still a page."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from forgetfilter.errors import DataError
from forgetfilter.runs.report.page import render_report
from made_run import HOSTILE, MadeRun, Page, fill


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path / "run")


def test_counts_equal_the_summary_and_are_in_the_headline(run: MadeRun) -> None:
    fill(run, 1500)
    run.reject("empty completion: the last assistant turn has no text")
    words = Page(run.render()).words
    removed, kept = len(run.lines["removed"]), len(run.lines["kept"])
    rest = f"look unsafe and were removed; {kept:,} are kept; 1 could not be used."
    assert f"1,200 of 1,501 rows could be judged: {removed:,} {rest}" in words
    run.summary["needs_learned"] = False
    assert f"{removed:,} of 1,501 rows {rest}" in Page(run.render()).words
    assert run.report["headline"] == f"{removed:,} of 1,501 rows {rest}"


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
    assert "unsafe" not in policy
    assert not any("style" in attributes for _, attributes in page.tags)


@pytest.mark.parametrize("kind", ["script", "style"])
def test_the_policy_names_the_pages_own_script_and_style_and_no_other(
    run: MadeRun, kind: str
) -> None:
    html = fill(run).render()
    policy = re.search(rf"{kind}-src 'sha256-([^']+)'([^;]*);", html)
    own = re.findall(rf"<{kind}>(.*?)</{kind}>", html, flags=re.DOTALL)
    assert policy
    assert len(own) == 1
    assert base64.b64decode(policy[1]) == hashlib.sha256(own[0].encode("utf-8")).digest()
    assert policy[2] == ""


def test_no_row_removed(run: MadeRun) -> None:
    run.add(0.1)
    run.add(0.5)
    words = Page(run.render()).words
    assert "No row looks unsafe: 2 of 2 rows are kept; 0 could not be used." in words
    assert "No learned row is above the threshold." in words


@pytest.mark.parametrize("needs_learned", [True, False])
def test_no_row_is_called_safe_where_most_could_not_be_judged(
    run: MadeRun, needs_learned: bool
) -> None:
    for at in range(80):
        run.add(0.1, learned=at < 14)
    run.summary = {"learned_share": 14 / 80, "needs_learned": needs_learned}
    words = Page(run.render()).words
    assert "No row looks unsafe" not in words
    if needs_learned:
        assert "14 of 80 rows could be judged: none of them looks unsafe; 80 are kept" in words
    else:
        assert "Can't tell: no row stands out, but the model has learned only 18%" in words


def test_no_row_kept(run: MadeRun) -> None:
    run.add(0.9)
    words = Page(run.render()).words
    assert "1 of 1 row looks unsafe and was removed; 0 are kept; 0 could not be used." in words
    assert "Every removed row (1), the nearest kept ones (0)" in words


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


def test_rows_that_are_kept_for_being_unlike_the_removed_ones_are_counted(run: MadeRun):
    fill(run)
    run.summary["verdict"] = {"level": "some", "reason": "found", "message": "Some stand out."}
    assert "unlike those removed" not in Page(run.render()).words
    run.summary["threshold_notes"] = {"kept_as_unlike": 1}
    said = (
        "1 row more stands out by forgetting alone, but is unlike those removed, and is kept; "
        "the list of rows has it under that reason."
    )
    assert said in Page(run.render()).words
    run.summary["threshold_notes"] = {"kept_as_unlike": 2000}
    said = (
        "2,000 rows more stand out by forgetting alone, but are unlike those removed, and are "
        "kept; the list of rows has them under that reason."
    )
    assert said in Page(run.render()).words


def test_what_a_rule_notes_of_its_cut_is_said_in_words(run: MadeRun):
    fill(run)
    run.summary["threshold_notes"] = {
        "noise": 0.003456,
        "harmless_at_most": 0.0612345,
        "harmless_range": [0, 2],
        "my_rule": {"least_share": None},
    }
    words = Page(run.render()).words
    assert "noise of the scores: 0.003456" in words
    assert "if their scores have a long tail: 0.06123" in words
    assert "harmless rows among those removed, with a probability of 0.9: 0, 2" in words
    assert "my rule.least share: –" in words


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
