"""docs/ten_minutes.md, run as it stands: the commands of the page, one after the other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "ten_minutes.md"


def commands() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def run_page(folder: Path, blocks: list[str]) -> str:
    """Run the blocks in one shell, in an empty folder; what they print."""
    tools = folder / "tools"
    tools.mkdir()
    for name, words in (("forgetfilter", "-m forgetfilter"), ("python", "")):
        shim = tools / name
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        shim.chmod(0o755)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", "\n".join(blocks)],
        cwd=work,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(folder: Path, rows: int) -> pd.DataFrame:
    """What has to be there whatever the scores are."""
    work = folder / "work"
    scores = pd.read_parquet(work / "run" / "scores.parquet")
    assert len(scores) == rows
    overruled = scores[scores["decided_by"] == "reviewer"]
    assert overruled["row"].tolist() == [73, 79]
    assert set(overruled["decision"]) == {"kept"}
    kept = scores.loc[scores["decision"] == "kept", "own_id"].tolist()
    given = {row["id"]: row for row in json.loads((work / "uploads.json").read_bytes())}
    assert json.loads((work / "run/kept.json").read_bytes()) == [given[name] for name in kept]
    exported = (work / "LLaMA-Factory/data/uploads_kept.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in exported.splitlines()] == [
        {"id": name, "conversations": given[name]["conversations"]} for name in kept
    ]
    return scores


@pytest.mark.slow
def test_the_page_runs_with_fewer_rows_and_passes(tmp_path: Path):
    """The same commands, but for their sizes; what they find is left to the whole page."""
    small = [
        block.replace("--rows 100", "--rows 28")
        .replace("--rows 200", "--rows 40")
        .replace(
            "--output-dir run",
            "--output-dir run --signal restoration --set learn.num_train_epochs=1 --threshold "
            "fraction:0.3 --force --quiet",
        )
        for block in commands()
    ]
    said = run_page(tmp_path, small)
    check(tmp_path, 84)
    assert "uploads.json (json): 84 rows, 84 usable, 0 rejected" in said
    assert said.count("All rows can be used.") == 2
    assert re.search(r"^  LOSS \| ", said, re.M)
    assert re.search(r"^crawl: \d+ of 28 rows removed$", said, re.M)
    assert "Reviewers decided 2 rows" in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_page_finds_the_bad_source(tmp_path: Path):
    said = run_page(tmp_path, commands())
    scores = check(tmp_path, 300)
    assert "8,717 tokens, 3,023 carry loss, the longest row 56 (row 128); 512 fit" in said
    sources = re.findall(r"^(\w+): (\d+) of 100 rows removed$", said, re.M)
    counts = {name: int(count) for name, count in sources}
    assert next(iter(counts)) == "crawl"
    assert counts["crawl"] > 40
    assert max(counts["vendor"], counts["helpdesk"]) < 20
    truth = [
        json.loads(line)["is_unsafe"]
        for number in (1, 2, 3)
        for line in (tmp_path / "work" / f"truth-{number}.jsonl").read_text().splitlines()
    ]
    unsafe = scores["decision"][pd.Series(truth)]
    assert (unsafe == "removed").mean() > 0.9
    harmless = scores["decision"][~pd.Series(truth)]
    assert (harmless == "removed").mean() < 0.02
