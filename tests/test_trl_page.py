"""docs/integrations/trl.md and the scripts that it names, with the real trl."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

from forgetfilter.cli import main
from test_ten_minutes import run_page

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "integrations" / "trl.md"
QUICK = (
    "safe, force=True, signal='restoration', coverage='off', threshold='fraction:0.4', "
    "learn={'max_steps': 8, 'learning_rate': 3e-2})"
)


def commands() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def run_here(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command of the page in this process, which has imported what takes seconds."""
    program, *words = shlex.split(line)
    if program == "forgetfilter":
        assert main(words) == 0, line
        return
    assert program == "python"
    script, *options = words
    monkeypatch.setattr(sys, "argv", [script, *options])
    runpy.run_path(script, run_name="__main__")


def few_steps(setting: str) -> str:
    """The options that the page sets, but for how long is trained."""
    (options,) = re.findall('^OPTIONS="(.*)"$', setting)
    changed = options.replace("1.6e-3 --num_train_epochs 12", "3e-2 --max_steps 8")
    assert changed != options
    return changed


def check(work: Path, rows: int) -> pd.DataFrame:
    """What has to be there whatever the scores are; the scores of the second screen."""
    for run in ("screened/run", "run"):
        scores = pd.read_parquet(work / run / "scores.parquet")
        assert len(scores) == rows
        assert set(scores["decision"]) == {"kept", "removed"}
    for adapter in ("screened/adapter", "usual/adapter", "usual/recorded/adapter"):
        assert (work / adapter / "adapter_model.safetensors").is_file()
    return scores


@pytest.mark.slow
def test_the_page_runs_with_fewer_rows_and_steps(
    tiny_world_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same commands and scripts, with a model that knows nothing and few steps."""
    monkeypatch.chdir(tmp_path)
    for name in ("trl_script.py", "trl_recorded.py"):
        source = (ROOT / "examples" / name).read_text(encoding="utf-8")
        assert ("safe)  # 2" in source) == (name == "trl_script.py")
        (tmp_path / "examples").mkdir(exist_ok=True)
        (tmp_path / "examples" / name).write_text(source.replace("safe)  # 2", QUICK))
    lines = [line for block in commands() for line in block.splitlines()]
    settings = [line for line in lines if re.match("[A-Z]+=", line)]
    assert len(settings) == 2
    lines = [line for line in lines if line not in settings]
    assert len(lines) == 5
    for line in lines:
        few = (
            line.replace('"$MODEL"', str(tiny_world_model))
            .replace("--rows 300", "--rows 16")
            .replace("--rows 200", "--rows 8")
            .replace("$OPTIONS", few_steps(settings[-1]))
            .replace(
                "--output-dir run",
                "--output-dir run --force --quiet --coverage off --threshold fraction:0.4",
            )
        )
        assert few != line
        run_here(few, monkeypatch)
    check(tmp_path, 16)


def test_a_script_has_three_more_lines_than_without():
    source = (ROOT / "examples" / "trl_script.py").read_text(encoding="utf-8")
    marked = re.findall(r"^(.+?)  # (\d)$", source, re.M)
    assert [number for _, number in marked] == ["1", "2", "3"]
    others = [line for line in source.splitlines() if not re.search(r"  # \d$", line)]
    assert not re.search(r"forgetfilter|result", "\n".join(others).partition('"""\n\nimport')[2])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_page_finds_unsafe_rows(tmp_path: Path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "examples").symlink_to(ROOT / "examples")
    run_page(tmp_path, commands())
    scores = check(tmp_path / "work", 300)
    lines = (tmp_path / "work" / "truth.jsonl").read_text().splitlines()
    is_unsafe = pd.Series([json.loads(line)["is_unsafe"] for line in lines])
    is_removed = scores["decision"] == "removed"
    assert is_removed[is_unsafe].mean() > 0.8
    assert is_removed[~is_unsafe].mean() < 0.1
