"""The documents: what they link to and run exists, and no interval leaves its range."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from pathlib import Path

import pytest

from forgetfilter.errors import MissingExtraError

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
INTERVAL = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")
SCORES = ("precision", "recall", "F1", "AUROC")

documents = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


@documents
def test_what_a_document_names_exists(path: Path):
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    # What stood in the tree once is named with the commit that has it.
    named = re.findall(
        r"(?<!:)\b((?:benchmarks|docs|examples)/[\w/]+\.(?:py|md|parquet|yaml))", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@documents
def test_what_a_document_imports_can_be_imported(path: Path):
    text = path.read_text(encoding="utf-8")
    for module, names in re.findall(r"^ *from (forgetfilter[\w.]*) import ([\w, ]+)$", text, re.M):
        for name in names.split(","):
            with contextlib.suppress(MissingExtraError):  # the name is known, its library absent
                assert hasattr(importlib.import_module(module), name.strip()), f"{module}: {name}"


def ends(heading: str, first: str) -> tuple[float, float] | None:
    """The range of a column of a table, as far as its headings tell it."""
    if any(word in heading for word in ("minus", "point", "below", "seconds")):
        return None
    if any(word in heading or word in first for word in SCORES):
        return 0.0, 1.0
    return (0.0, 100.0) if "%" in heading or "%" in first else None


def wrong_intervals(text: str) -> tuple[list[str], int]:
    """Intervals in the tables of a document that leave the range, and how many were looked at."""
    wrong: list[str] = []
    looked_at = 0
    columns: list[str] = []
    for line in text.splitlines():
        if not line.startswith("| "):
            columns = [] if not line.startswith("|") else columns
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not columns:
            columns = cells
            continue
        for heading, cell in zip(columns, cells, strict=False):
            found = INTERVAL.fullmatch(cell)
            span = ends(heading, columns[0].strip())
            if found and span:
                looked_at += 1
                value, low, high = map(float, found.groups())
                if not span[0] <= low <= value <= high <= span[1]:
                    wrong.append(f"{heading}: {cell}")
    return wrong, looked_at


@documents
def test_no_interval_of_a_table_leaves_its_range(path: Path):
    assert wrong_intervals(path.read_text(encoding="utf-8"))[0] == []


def test_intervals_are_found_in_the_documents_and_wrong_ones_are_seen():
    assert sum(wrong_intervals(path.read_text(encoding="utf-8"))[1] for path in DOCUMENTS) > 10
    table = "| strategy | safe % |\n|---|---|\n| none | 96.1 [86.0, 106.3] |\n"
    assert wrong_intervals(table) == (["safe %: 96.1 [86.0, 106.3]"], 1)


def rows_under(text: str, first: str) -> list[list[str]]:
    """The cells of every table whose first column has this heading, row by row."""
    rows: list[list[str]] = []
    is_inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            is_inside = False
        elif cells[0] == first:
            is_inside = True
        elif is_inside and not line.startswith("|---"):
            rows.append(cells)
    return rows


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_leaderboards_page_has_every_scorer_with_its_options_and_needs():
    from forgetfilter.lab.row_scorers import ROW_SCORERS

    rows = rows_under((ROOT / "docs/lab/leaderboard.md").read_text(encoding="utf-8"), "scorer")
    assert sorted(name for row in rows for name in named(row[0])) == sorted(ROW_SCORERS.names())
    for names, _, options, needs in rows:
        for name in named(names):
            scorer = ROW_SCORERS.build(name)
            signature = inspect.signature(type(scorer)).parameters
            told = re.sub(r"\([^)]*\)", "", options)
            assert named(told) == list(signature), name
            assert needs == re.sub(r"\d+ ", "", scorer.needs.words), name


def test_the_page_on_attacks_has_every_attack_with_its_options():
    from forgetfilter.lab.attacks import ATTACKS

    rows = rows_under((ROOT / "docs/robustness.md").read_text(encoding="utf-8"), "attack")
    described = [row for row in rows if len(row) == 4]
    assert sorted(name for row in described for name in named(row[0])) == ATTACKS.names()
    for names, _, options, _ in described:
        for name in named(names):
            signature = inspect.signature(type(ATTACKS.build(name))).parameters
            assert named(options) == list(signature), name


def test_the_defences_page_has_the_options_of_every_strategy():
    from forgetfilter.lab.strategies.base import STRATEGIES

    rows = rows_under((ROOT / "docs/lab/defences.md").read_text(encoding="utf-8"), "name")
    assert len(rows) == 12
    for name, _, _, options, *_ in rows:
        signature = inspect.signature(type(STRATEGIES.build(name.strip("`")))).parameters
        assert named(re.sub(r"\([^)]*\)", "", options)) == list(signature), name


def test_other_ways_have_a_source_each_and_names_that_are_registered():
    from forgetfilter.lab.row_scorers import ROW_SCORERS
    from forgetfilter.lab.strategies.base import STRATEGIES

    text = (ROOT / "docs/others.md").read_text(encoding="utf-8")
    rows = rows_under(text, "system")
    half = len(rows) // 2
    assert [row[0] for row in rows[:half]] == [row[0] for row in rows[half:]]
    cited = {int(number) for number in re.findall(r"\[(\d+)\??\]", text)}
    listed = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.M)]
    assert listed == sorted(cited) == list(range(1, len(listed) + 1))
    unsourced = [
        (row[0], cell)
        for at, row in enumerate(rows)
        for cell in row[2 if at < half else 1 :]
        if cell and not re.search(r"\[\d+\??\]$", cell)
    ]
    assert unsourced == []
    here = {name for row in rows[:half] for name in named(row[1])}
    assert here <= {*ROW_SCORERS.names(), *STRATEGIES.names()}
