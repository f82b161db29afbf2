"""The report in a browser: opened from the disk, searched, filtered, linked to and printed."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser, running_browser
from forgetfilter.runs.report import row_data
from forgetfilter.runs.report.page import render_report
from made_run import HOSTILE, MadeRun

SHOWN = "Array.from(document.querySelectorAll('.line b'), one => one.textContent)"
PANE = "document.getElementById('row-pane').textContent"
STATUS = "document.getElementById('rows-status').textContent"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report of 300 rows from three sources, 100 of them removed."""
    run = MadeRun(tmp_path_factory.mktemp("page") / "run")
    for at in range(300):
        run.add(
            0.9 - at / 1000 if at < 100 else 0.3 - at / 2000,
            prompt=f"question {at}",
            target=f"answer {at} {'needle' if at == 77 else ''}",
            example_id=f"id-{at}",
            source=("vendor", "forum", "tickets")[at % 3],
        )
    run.reject("empty completion: the last assistant turn has no text")
    run.evidence = [
        {"row": 0, "learned_text": "SAID", "forgotten_text": "REFUSED", "pieces": ["answer", " 0"],
         "earlier": "", "rises": [0.01, 3.0]},
        {"row": 1, "learned_text": "SAID", "earlier": "early", "forgotten_text": "REFUSED",
         "pieces": ["answer", " 1"], "rises": [0.01, 3.0]},
    ]  # fmt: skip
    run.summary["seconds"] = {"measure_loss_half_a_early_restored": 3.0, "learn": 50.0}
    run.summary["coverage"] = [
        {"category": "looks_dangerous", "rows": 12, "damage": 0.0017, "left": 0.001,
         "undone": 0.4, "verdict": "not damaged"},
        {"category": "harmfulness", "rows": 16, "damage": 0.079, "left": 0.03, "undone": 0.6,
         "fallen": 37, "auroc": 0.948, "verdict": "faint"},
    ]  # fmt: skip
    run.write()
    return render_report(run.path, {4: "keep"}).as_uri()


def set_value(browser: Browser, name: str, value: str, kind: str = "change") -> None:
    browser.value(
        f"(() => {{ const node = document.getElementById('rows-{name}');"
        f"node.value = {json.dumps(value)}; node.dispatchEvent(new Event('{kind}')); }})()"
    )


def test_the_list_holds_all_rows_and_the_page_only_those_in_sight(browser: Browser, page: str):
    browser.open(page)
    assert browser.complaints == []
    assert browser.value(STATUS) == "301 rows"
    rows = browser.value(SHOWN)
    assert rows[:3] == ["Row 0", "Row 1", "Row 2"]
    assert len(rows) < 40
    browser.value("document.getElementById('rows-list').scrollTop = 1e9")
    browser.wait(f"{SHOWN}.includes('Row 299')")
    assert "Row 0" not in browser.value(SHOWN)
    assert len(browser.value(SHOWN)) < 40


def test_search_filters_and_order(browser: Browser, page: str):
    browser.open(page)
    set_value(browser, "search", "needle", "input")
    browser.wait(f"{STATUS} === '1 of 301 rows'")
    assert browser.value(SHOWN) == ["Row 77"]
    set_value(browser, "search", "id-42", "input")
    browser.wait(f"{SHOWN}.join() === 'Row 42'")
    set_value(browser, "search", "no such text", "input")
    browser.wait("!document.getElementById('rows-none').hidden")
    set_value(browser, "search", "", "input")
    browser.wait(f"{STATUS} === '301 rows'")
    set_value(browser, "decision", "kept")
    assert browser.value(STATUS) == "200 of 301 rows"
    set_value(browser, "decision", "removed")
    set_value(browser, "source", "vendor")
    assert browser.value(STATUS) == "34 of 301 rows"
    assert browser.value(SHOWN)[:2] == ["Row 0", "Row 3"]
    set_value(browser, "sort", "nearest")
    assert browser.value(SHOWN)[0] == "Row 99"
    set_value(browser, "decision", "rejected")
    set_value(browser, "source", "")
    assert browser.value(SHOWN) == ["Row 300"]
    browser.open(page)
    browser.value("document.querySelector('[data-value=rejected]').click()")
    assert browser.value(SHOWN) == ["Row 300"]
    browser.open(page)
    browser.value("document.querySelector('[data-filter=source]').click()")
    name = browser.value("document.querySelector('[data-filter=source]').textContent")
    assert name == browser.value("document.getElementById('rows-source').value")
    assert browser.value(STATUS) == "100 of 301 rows"


def test_an_address_leads_to_one_row_whatever_is_filtered(browser: Browser, page: str):
    browser.open(f"{page}#row-97")
    browser.wait(f"{PANE}.startsWith('Row 97')")
    assert "answer 97" in browser.value(PANE)
    assert browser.value("document.querySelector('.line.active b').textContent") == "Row 97"
    set_value(browser, "decision", "kept")
    browser.value("location.hash = '#row-3'")
    browser.wait(f"{PANE}.startsWith('Row 3')")
    assert browser.value("document.getElementById('rows-decision').value") == ""
    browser.value("location.hash = '#row-5000'")
    browser.wait(f"{PANE}.includes('Row 5000 is not listed here')")


def test_the_list_is_walked_by_keys_and_the_address_follows(browser: Browser, page: str):
    browser.open(page)
    browser.value("document.getElementById('rows-list').focus()")
    for key in ("ArrowDown", "j", "j", "ArrowUp"):
        browser.press(key)
    browser.wait(f"{PANE}.startsWith('Row 2')")
    assert browser.value("location.hash") == "#row-2"
    active = "document.getElementById('rows-list').getAttribute('aria-activedescendant')"
    chosen = "document.querySelector('[aria-selected=true]')"
    assert browser.value(f"{active} === {chosen}.id")
    assert browser.value(f"{chosen}.getAttribute('aria-posinset')") == "3"
    browser.press("End")
    browser.wait(f"{PANE}.startsWith('Row 300')")
    assert browser.value(f"{chosen}.getAttribute('aria-setsize')") == "301"
    browser.press("/")
    assert browser.value("document.activeElement.id") == "rows-search"


def test_texts_are_blurred_until_they_are_asked_for(browser: Browser, page: str):
    browser.open(page)
    blur = "getComputedStyle(document.querySelector('#row-pane .said')).filter"
    browser.wait(f"{PANE}.startsWith('Row 0')")
    browser.wait(f"{blur} !== 'none'")
    assert browser.value("document.querySelectorAll('.said').length") > 10
    browser.value("document.getElementById('rows-reveal').click()")
    browser.wait(f"{blur} === 'none'")
    pressed = "document.getElementById('rows-reveal').getAttribute('aria-pressed')"
    assert browser.value(pressed) == "true"


def test_a_row_shows_its_evidence_its_reviewer_and_copies_its_id(browser: Browser, page: str):
    browser.open(f"{page}#row-0")
    browser.wait(f"{PANE}.startsWith('Row 0')")
    said = browser.value(PANE)
    assert "The model when it had learned the rowSAID" in said
    assert "The model when it had forgottenREFUSED" in said
    browser.open(f"{page}#row-1")
    browser.wait(f"{PANE}.startsWith('Row 1 ')")
    assert "The model when it had learned the row, early onSAID" in browser.value(PANE)
    browser.open(f"{page}#row-0")
    browser.wait(f"{PANE}.startsWith('Row 0')")
    marks = "Array.from(document.querySelectorAll('#row-pane mark'), m => [m.className, m.title])"
    assert browser.value(marks) == [["d4", "3 nats"]]
    browser.value(
        "document.execCommand = what => { window.copied = what + ':' +"
        " document.activeElement.value; return true; };"
        "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
    )
    browser.value("document.querySelector('.pane-actions button').click()")
    assert browser.value("window.copied") == "copy:id-0"
    browser.open(f"{page}#row-4")
    browser.wait(f"{PANE}.startsWith('Row 4')")
    assert "reviewer: keep" in browser.value(PANE)


def streams(pdf: bytes) -> bytes:
    """The drawing instructions of a PDF."""
    held: list[bytes] = []
    for found in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", pdf, flags=re.DOTALL):
        try:
            held.append(zlib.decompress(found[1]))
        except zlib.error:
            continue
    return b"\n".join(held)


def test_paper_has_every_removed_row_open_disclosures_and_colours(browser: Browser, page: str):
    browser.open(page)
    browser.value(
        "addEventListener('beforeprint', () => { window.onPaper = {"
        "cards: document.querySelectorAll('#rows-paper .card').length,"
        "text: document.getElementById('rows-paper').textContent,"
        "closed: document.querySelectorAll('details:not([open])').length }; })"
    )
    drawn = streams(browser.pdf())
    paper = browser.value("window.onPaper")
    assert paper["cards"] == 100
    assert paper["closed"] == 0
    assert "answer 99" in paper["text"]
    assert "All 100 removed rows of the list follow." in paper["text"]
    # The darkest shade of a word: rgb(214 90 60), though backgrounds were not asked for.
    assert re.search(rb"\.839\d* \.352\d* \.235\d* rg", drawn.replace(b" 0.", b" ."))
    # Afterwards the page is as it was.
    assert browser.value("document.querySelectorAll('#rows-paper .card').length") == 0
    assert browser.value("document.querySelectorAll('details[open]').length") == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window_and_all_text_has_contrast(
    browser: Browser, page: str, width: int, scheme: str
):
    browser.open(page, width=width, scheme=scheme)
    browser.wait(f"{PANE}.startsWith('Row 0')")
    assert browser.value("document.documentElement.scrollWidth") <= width
    faint = browser.value(CONTRAST)
    assert faint == []
    # Nor does a table have to be scrolled for its verdict, or break its names inside a word.
    assert browser.value("document.querySelectorAll('.stacked tbody td').length") == 12
    assert browser.value(BEYOND.replace("WIDTH", str(width))) == []
    assert browser.value(BROKEN) == []


BEYOND = """
[...document.querySelectorAll('table')].filter(one => one.checkVisibility())
  .flatMap(one => [...one.querySelectorAll('th, td')])
  .filter(one => one.getBoundingClientRect().right > WIDTH).map(one => one.textContent)
"""
BROKEN = """
[...document.querySelectorAll('tbody th')].filter(one => one.checkVisibility())
  .flatMap(one => [...one.childNodes]).filter(one => one.nodeType === 3)
  .flatMap(one => one.data.split(/\\s+/).map(word => [one, word]))
  .filter(([one, word]) => {
    const range = document.createRange(), from = one.data.indexOf(word);
    range.setStart(one, from);
    range.setEnd(one, from + word.length);
    return range.getClientRects().length > 1;
  }).map(([, word]) => word)
"""


CONTRAST = """
(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const one = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * one(r) + 0.7152 * one(g) + 0.0722 * one(b);
  };
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1 && r !== undefined) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  document.querySelectorAll('body *').forEach(node => {
    const own = Array.from(node.childNodes).some(c => c.nodeType === 3 && c.data.trim());
    if (!own || !node.getClientRects().length || node.closest('svg')) return;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(style.color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.add(node.tagName + '.' + node.className);
  });
  return Array.from(faint);
})()
"""


def test_bars_are_as_long_as_their_numbers(browser: Browser, page: str):
    browser.open(page)
    part = (
        "(inner => inner.getBoundingClientRect().width /"
        " inner.parentNode.getBoundingClientRect().width)(document.querySelector('{}'))"
    )
    assert browser.value(part.format(".meter span")) == pytest.approx(0.9, abs=0.01)
    assert browser.value(part.format(".split .fill-removed")) == pytest.approx(1 / 3, abs=0.02)
    ticks = browser.value(
        "Array.from(document.querySelectorAll('.tick'),"
        " one => parseFloat(getComputedStyle(one).left))"
    )
    assert len(ticks) > 3
    assert ticks == sorted(set(ticks))
    assert browser.complaints == []


def test_every_control_has_a_name(browser: Browser, page: str):
    browser.open(page)
    nameless = browser.value(
        "Array.from(document.querySelectorAll('button, select, input, [role=listbox]'))"
        ".filter(one => !(one.getAttribute('aria-label') || one.textContent.trim() ||"
        " (one.labels && one.labels.length))).map(one => one.outerHTML)"
    )
    assert nameless == []


def test_hostile_rows_run_nothing_and_show_as_text(browser: Browser, tmp_path: Path):
    run = MadeRun(tmp_path / "run")
    for at, hostile in enumerate(HOSTILE):
        run.add(0.9 - at / 100, prompt=hostile, target=hostile, example_id=hostile, source=hostile)
    run.evidence = [
        {"row": at, "learned_text": hostile, "forgotten_text": hostile, "pieces": [hostile],
         "rises": [3.0]}
        for at, hostile in enumerate(HOSTILE)
    ]  # fmt: skip
    run.write()
    render_report(run.path, dict(enumerate(HOSTILE)))
    (run.path / "report.html").rename(run.path / "kept.html")
    page = (run.path / "kept.html").as_uri()
    for at, hostile in enumerate(HOSTILE):
        browser.open(f"{page}#row-{at}")
        browser.wait(f"{PANE}.startsWith('Row {at}')")
        assert browser.complaints == []
        tags = "document.querySelectorAll('#explorer img, #explorer script').length"
        assert browser.value(tags) == 0
        said = browser.value("document.querySelector('#row-pane .quote .said').textContent")
        assert said == (hostile if hostile.isprintable() else r"\x1b[31m\u202egnp.exe\u2066\x00")
    browser.pdf()
    assert browser.complaints == []


def test_rows_beside_the_page_are_loaded_when_they_are_asked_for(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(row_data, "_INDEX_STEP", 50)
    monkeypatch.setattr(row_data, "INDEX_BYTES", 2000)
    monkeypatch.setattr(row_data, "TEXT_BYTES", 3000)
    monkeypatch.setattr(row_data, "FILE_BYTES", 20_000)
    run = MadeRun(tmp_path / "run")
    for at in range(400):
        run.add(0.9 - at / 10_000, target=f"answer {at}", example_id=f"id-{at}")
    run.write()
    page = render_report(run.path)
    scripts = "document.querySelectorAll('script[src]').length"
    browser.open(f"{page.as_uri()}#row-399")
    browser.wait(f"{PANE}.includes('answer 399')")
    assert browser.complaints == []
    assert browser.value(STATUS) == "400 rows"
    set_value(browser, "search", "answer 255", "input")
    browser.wait(f"{SHOWN}.join() === 'Row 255'")
    files = len(list((run.path / "report_rows").iterdir()))
    browser.wait(f"{scripts} === {files}")

    (run.path / "report_rows").rename(run.path / "elsewhere")
    browser.open(f"{page.as_uri()}#row-3")
    browser.wait(f"{PANE}.includes('answer 3')")
    browser.value("location.hash = '#row-45'")
    browser.wait(f"{PANE}.includes('report_rows beside the page, which is not there')")


@pytest.mark.parametrize("has_files", [False, True])
def test_a_script_or_a_style_that_gets_into_the_page_is_refused(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_files: bool
):
    if has_files:
        monkeypatch.setattr(row_data, "TEXT_BYTES", 300)
    run = MadeRun(tmp_path / "run")
    for at in range(20):
        run.add(0.9 - at / 100, target=f"answer {at}")
    html = run.render()
    assert ("strict-dynamic" in html) == has_files
    (tmp_path / "bad.js").write_text("window.bad = 'from a file'")
    page = run.path / "page.html"
    forged = (
        "<script>window.bad = 'inline'</script>",
        "<img src=x onerror=\"window.bad = 'handler'\">",
        '<script src="../bad.js"></script>',
        "<style>h1 { display: none }</style>",
        '<p id="over" style="position: fixed; inset: 0">over</p>',
    )
    page.write_text(html.replace('<main id="main">', f'<main id="main">{"".join(forged)}'))
    browser.open(page.as_uri())
    browser.wait(f"{PANE}.startsWith('Row 0')")  # the page's own script does run
    assert browser.value("window.bad") is None
    assert browser.value("getComputedStyle(document.querySelector('h1')).display") == "block"
    assert browser.value("getComputedStyle(document.getElementById('over')).position") == "static"
    assert sum("Content Security Policy" in said for said in browser.complaints) >= 5
    refused = browser.value(
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return false; }"
        " catch (error) { return true; } })()"
    )
    assert refused
