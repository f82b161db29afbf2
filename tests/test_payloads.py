"""What hostile rows, models and file names say is shown as text wherever the product shows it."""

from __future__ import annotations

import csv
import html
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from decided_run import make_run, summary_of
from forgetfilter.cli import main
from forgetfilter.cli.harmless import harmless_messages, show_traceback
from forgetfilter.cli.screening import print_counts
from forgetfilter.data.containers.formulas import is_formula
from forgetfilter.data.spreadsheets import guard_formulas
from forgetfilter.errors import DataError, ModelError
from forgetfilter.files import encode_json
from forgetfilter.model.loading.model_files import context_tokens
from forgetfilter.progress import Progress
from forgetfilter.review.table import ReviewTable
from forgetfilter.runs.cards import dataset_card, model_card
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.schema import Summary
from forgetfilter.text import HIDDEN, steady
from made_run import Page, texts_by_row

PAYLOADS = {
    "tag": "<img src=x onerror=alert(1)>",
    "script": "</script><script>alert(1)</script>",
    "comment": "<!-- ]]> &lt;b&gt;",
    "template": "{{7*7}}{% for x in y %}${7*7}",
    "markdown": "[x](javascript:alert(1)) ![](https://example.org/a.png)",
    "title": "\x1b]0;owned\x07\x1b[31mred",
    "c1": "\x9b31mred",
    "override": "\u202egnp.exe\u2066",
    "invisible": "a\u200bb\U000e0041",
    "formula": '=HYPERLINK("https://example.org/";"x")',
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "at": "@SUM(1+1)",
    "tab": "\t=1+1",
    "return": "\r=1+1",
    "fullwidth": "＝1+1",
}
ROWS = 4

payloads = pytest.mark.parametrize("payload", PAYLOADS.values(), ids=list(PAYLOADS))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``made(payload)``: a finished run of a CSV file whose every cell is the payload."""
    runs: dict[str, Path] = {}

    def make(payload: str) -> Path:
        if payload not in runs:
            folder = tmp_path_factory.mktemp("payload")
            runs[payload] = make_run(folder / "run", table(folder, payload), action="flag")
        return runs[payload]

    return make


def table(folder: Path, payload: str) -> Path:
    path = folder / "rows.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        written = csv.writer(file)
        written.writerow(["id", "source", "category", "prompt", "completion"])
        for number in range(ROWS):
            written.writerow([f"{payload}{number}", *[payload] * 4])
    return path


@dataclass
class Here:
    """Where a payload is, and how what is printed is read."""

    payload: str
    run: Path
    folder: Path
    """An empty one."""
    capsys: pytest.CaptureFixture[str]

    def printed(self) -> str:
        told = self.capsys.readouterr()
        return told.out + told.err

    def command(self, *words: str, status: int = 0) -> str:
        assert main(list(words)) == status
        return self.printed()


def page(here: Here) -> str:
    text = render_report(here.run).read_text(encoding="utf-8")
    tags = [tag for tag, _ in Page(text).tags]
    assert {"img", "iframe", "object", "embed"}.isdisjoint(tags)
    assert (tags.count("script"), tags.count("style")) == (2, 1)
    assert not HIDDEN.search(text)
    record = texts_by_row(text)[0]
    assert record["answer"][0] == steady(here.payload)
    return json.dumps(record, ensure_ascii=False)


def page_before_its_script_runs(here: Here) -> str:
    text = render_report(here.run).read_text(encoding="utf-8")
    assert not HIDDEN.search(text)
    return Page(text).words  # the list for readers without scripts, and the sources


def report_json(here: Here) -> str:
    text = (here.run / "report.json").read_text(encoding="utf-8")
    assert {row["example_id"][:-1] for row in json.loads(text)["rows"]} == {here.payload}
    return text


def review(here: Here) -> str:
    told = ReviewTable(here.run).tell_all(0)
    (answer,) = [turn["text"] for turn in told["messages"] if turn["role"] == "assistant"]
    assert not HIDDEN.search(encode_json(told).decode("utf-8"))
    return "".join(answer)


def show(here: Here) -> str:
    return here.command("show", str(here.run), "--row", "0")


def show_json(here: Here) -> str:
    return here.command("show", str(here.run), "--row", "0", "--json")


def preview(here: Here) -> str:
    return here.command("filter", str(here.run), "--keep-row", "3", "--dry-run")


def validate(here: Here) -> str:
    record = {"id": here.payload, here.payload: here.payload, "prompt": "a", "completion": ""}
    path = here.folder / "rows.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return here.command("validate", str(path), status=1)


def validate_json(here: Here) -> str:
    path = here.folder / "rows.jsonl"
    path.write_text(json.dumps({"id": here.payload, "text": here.payload}) + "\n")
    return here.command("validate", str(path), "--json", status=1)


def name_of_a_file(here: Here) -> str:
    name = here.payload.replace("/", "∕")
    here.payload = name
    return here.command("validate", str(here.folder / f"{name}.jsonl"), status=1)


def check_safe(here: Here) -> str:
    path = here.folder / "safe.jsonl"
    row = {"category": here.payload, "prompt": "How do I hurt him?", "completion": here.payload}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return here.command("check-safe", str(path))


def findings(here: Here) -> str:
    found = {"name": "unfit", "severity": "warning", "message": here.payload}
    print_counts(summary_of(here.run) | {"findings": [found]}, here.run)
    return here.printed()


def config_of_a_model(here: Here) -> str:
    said: list[str] = []
    for config in (
        {"model_type": here.payload},
        {"model_type": "gpt2", "vocab_size": here.payload},
        {"model_type": "gpt2", "dtype": here.payload},
        {"model_type": "gpt2", "architectures": [f"{here.payload}ForSequenceClassification"]},
    ):
        (here.folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError) as caught:
            context_tokens(str(here.folder))
        said.append(str(caught.value))
    for one in said[1:]:
        assert squeezed(steady(here.payload.strip())) in squeezed(one)
    return " ".join(said)


def any_error(here: Here) -> str:
    return str(DataError(f"found {here.payload}"))


def progress(here: Here) -> str:
    Progress().say(here.payload)
    return here.printed()


def logs(here: Here) -> str:
    written = io.StringIO()
    log, handler = logging.getLogger("a library"), logging.StreamHandler(written)
    log.addHandler(handler)
    with harmless_messages():
        log.warning("You are using a model of type %s", here.payload)
        written.write(warnings.formatwarning(here.payload, UserWarning, "a.py", 1, ""))
    log.removeHandler(handler)
    return written.getvalue()


def traceback(here: Here) -> str:
    try:
        raise ValueError(here.payload)
    except ValueError:
        show_traceback(*sys.exc_info())  # type: ignore[arg-type]
    return here.printed()


def wrong_words(here: Here) -> str:
    with pytest.raises(SystemExit):
        main(["validate", "rows.jsonl", f"--template={here.payload}"])
    return here.printed()


PLACES: list[Callable[[Here], str]] = [
    page,
    page_before_its_script_runs,
    report_json,
    review,
    show,
    show_json,
    preview,
    validate,
    validate_json,
    name_of_a_file,
    check_safe,
    findings,
    config_of_a_model,
    any_error,
    progress,
    logs,
    traceback,
    wrong_words,
]


def squeezed(text: str) -> str:
    """Text without what lines are broken and JSON is quoted with."""
    return re.sub(r"\s", "", text.replace("\\\\", "\\").replace('\\"', '"'))


@payloads
@pytest.mark.parametrize("place", PLACES, ids=[place.__name__ for place in PLACES])
def test_a_payload_is_text_in_every_place(
    place: Callable[[Here], str],
    payload: str,
    made: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    here = Here(payload, made(payload), tmp_path, capsys)
    said = place(here)
    found = HIDDEN.search(said)
    assert found is None, (found, said)
    # In JSON an escape is JSON's own.
    shown = (steady(here.payload.strip("\t")), json.dumps(here.payload.strip("\t"))[1:-1])
    assert any(squeezed(text) in squeezed(said) for text in shown)


@payloads
@pytest.mark.parametrize("card", ["dataset", "model"])
def test_a_payload_is_text_in_a_card(payload: str, card: str, made: Callable[[str], Path]):
    told = {"noisy_data": payload, "safe_data": payload, "model": payload, "signal": payload}
    told["findings"] = [{"name": payload, "severity": "warning", "message": payload}]
    summary = Summary.model_validate(summary_of(made(payload)) | told)
    said = dataset_card(summary) if card == "dataset" else model_card(summary, 3)
    _, header, body = said.split("---\n", 2)
    assert yaml.safe_load(header)["tags"]
    assert not HIDDEN.search(said)
    assert not re.search(r"<|\]\((?!https://arxiv\.org)", body)
    assert squeezed(steady(payload.strip("\t"))) in squeezed(html.unescape(body))


@payloads
def test_no_cell_that_a_person_opens_in_a_spreadsheet_is_a_formula(
    payload: str, made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = made(payload)
    flagged = cells(run / "flagged.csv")
    assert len(flagged) == ROWS + 1
    assert not any(is_formula(cell) for row in flagged for cell in row)
    assert {row[4].removeprefix("'") for row in flagged[1:]} == {payload}
    # What is trained on keeps the bytes of the input; a copy for a spreadsheet is one command.
    kept = cells(run / "kept.csv")
    assert [row[1:] for row in kept[1:]] == [[payload] * 4] * (len(kept) - 1)
    count = guard_formulas(run / "kept.csv", tmp_path / "copy.csv")
    copy = cells(tmp_path / "copy.csv")
    assert not any(is_formula(cell) for row in copy for cell in row)
    assert [[cell.removeprefix("'") for cell in row] for row in copy] == kept
    is_run = payload[0] in "=+-@\t\r＝"
    assert count == (5 * (len(kept) - 1) if is_run else 0)
    assert summary_of(run)["formula_cells"] == (5 * ROWS if is_run else 0)
    print_counts(summary_of(run), run)
    assert ("begin as formulas do" in capsys.readouterr().out) == is_run
    assert main(["validate", str(run.parent / "rows.csv")]) == 0
    assert ("as formulas do" in squeezed_spaces(capsys.readouterr().out)) == is_run
    assert ("begin as formulas do" in Page((run / "report.html").read_text()).words) == is_run


def squeezed_spaces(text: str) -> str:
    return " ".join(text.split())


def cells(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("cell", ["-1.5", "+3", "-2e-4", "12%", "a=b", "", "'=1", "1-2"])
def test_numbers_and_other_text_are_no_formulas(cell: str):
    assert not is_formula(cell)


def test_what_is_no_record_is_guarded_as_one_cell(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfid;=prompt\r\n1;fine\r\n=2;-3\r\n4;"=never closed\r\n')
    assert guard_formulas(path, tmp_path / "copy.csv") == 2
    copy = (tmp_path / "copy.csv").read_bytes()
    assert copy == (b'\xef\xbb\xbfid;\'=prompt\r\n1;fine\r\n\'=2;-3\r\n"4;""=never closed"\r\n')
    with pytest.raises(DataError, match="is there already"):
        guard_formulas(path, tmp_path / "copy.csv")
    other = tmp_path / "rows.jsonl"
    other.write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError, match="is jsonl"):
        guard_formulas(other, tmp_path / "other.csv")
