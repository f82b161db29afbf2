"""The method by hand, in plain PyTorch, gives the package's scores and removes the same rows."""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import rows_of, write_rows
from forgetfilter import ForgetFilter, ScreenResult
from forgetfilter.cli import main
from forgetfilter.lab.testbed import bundled_model_path

SCRIPT = Path(__file__).parent.parent / "examples" / "by_hand.py"
TOLERANCE = 1e-4
"""Nats per root token, as the script states it."""


def arguments(model: Path, noisy: Path, safe: Path, output: Path, epochs: int) -> list[str]:
    paths = {"--model": model, "--noisy": noisy, "--safe": safe, "--output": output}
    named = [text for name, path in paths.items() for text in (name, str(path))]
    return [str(SCRIPT), *named, "--epochs", str(epochs)]


def package(model: Path, noisy: Path, safe: Path, output: Path, epochs: int) -> ScreenResult:
    """The same screen by the package."""
    screener = ForgetFilter(
        model,
        safe,
        is_silent=True,
        force=True,  # a model with random weights knows no language
        dtype="float32",
        coverage="off",
        generation={"max_new_tokens": 4},  # for the report
        learn={"stop": "epochs", "num_train_epochs": epochs},
    )
    return screener.screen(noisy, output)


def check_equal(lines: Path, result: ScreenResult) -> tuple[Any, int]:
    """Scores and decisions are the same; the scores, and how many rows are removed."""
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    by_hand = np.array([row["forgetting_score"] for row in found])
    scores = result.scores["forgetting_score"].to_numpy()
    assert np.abs(by_hand - scores).max() < TOLERANCE
    is_removed = [row["removed"] for row in found]
    assert is_removed == (result.scores["decision"] == "removed").tolist()
    return by_hand, sum(is_removed)


def test_the_script_imports_nothing_of_ours():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    standard = {"argparse", "hashlib", "itertools", "json", "random"}
    assert names == standard | {"numpy", "peft", "sklearn", "torch", "transformers"}


def run_by_hand(monkeypatch: pytest.MonkeyPatch, *given: Any) -> None:
    monkeypatch.setattr(sys, "argv", arguments(*given))
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
def test_the_bundled_model_gives_the_packages_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    noisy, safe, lines = (tmp_path / f"{name}.jsonl" for name in ("noisy", "safe", "scores"))
    files = ["--output", str(noisy), "--truth", str(tmp_path / "truth.jsonl")]
    main(["testbed", "noisy", "--rows", "96", "--unsafe-fraction", "0.35", *files])
    main(["testbed", "safe", "--rows", "64", "--output", str(safe)])
    model = bundled_model_path()

    run_by_hand(monkeypatch, model, noisy, safe, lines, 10)

    result = package(model, noisy, safe, tmp_path / "run", epochs=10)
    scores, removed = check_equal(lines, result)
    assert scores.max() > 500 * TOLERANCE
    assert 0 < removed < len(scores) / 2
    cut = result.summary["threshold"]["value"]
    said = re.search(rf"cut: {removed} of 96 rows above (\S+) nats", capsys.readouterr().out)
    assert said
    assert float(said[1]) == pytest.approx(cut, abs=2e-4)


@pytest.mark.parametrize(
    ("architecture", "safe_rows"),
    [("qwen3", 16), pytest.param("gemma3", 220, marks=pytest.mark.slow)],
)
def test_another_architecture_gives_the_packages_scores(
    architecture: str,
    safe_rows: int,
    tiny_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Random weights; rows of both formats, with system turns and answers in earlier turns.

    The safe rows have no category, so that all of them take turns.
    """
    rows = [row for row in rows_of(45) if "output" not in row]
    rows[0]["messages"] = [*rows[0]["messages"], *rows[2]["messages"][-2:]]
    noisy = write_rows(tmp_path / "noisy.jsonl", rows)
    others = [row for row in rows_of(safe_rows * 3 // 2, 100) if "output" not in row]
    safe = write_rows(tmp_path / "safe.jsonl", others)
    model, lines = tiny_model(architecture), tmp_path / "scores.jsonl"

    run_by_hand(monkeypatch, model, noisy, safe, lines, 8)

    scores, _ = check_equal(lines, package(model, noisy, safe, tmp_path / "run", epochs=8))
    assert np.ptp(scores) > 500 * TOLERANCE
    assert len(others) == safe_rows
