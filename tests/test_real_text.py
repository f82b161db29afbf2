"""The real-text model: what it may not have seen, and that it can be built and screened with."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.data import read_rows
from forgetfilter.data.records import REFERENCE_FILE
from forgetfilter.errors import ConfigError
from forgetfilter.lab.mix import MixSettings, make_mix
from forgetfilter.lab.testbed import real_build, real_corpus
from forgetfilter.lab.testbed.pretraining import Messages, Shape
from forgetfilter.model.loading.base_model import load_tokenizer
from forgetfilter.model.loading.model_files import model_fingerprint
from forgetfilter.progress import Progress
from test_mix import asked, row, write_source
from test_mix import folder as folder

SILENT = Progress(is_silent=True)


@pytest.fixture
def whole(folder: Path) -> Path:
    """The data folder of the mix's tests, with the files that only pre-training reads."""
    for name in (*real_corpus._ANY_TEXT, *real_corpus._DIALOGUES):
        rows = (
            row(
                id=f"{name}:{n}",
                prompt=f"{name} asks {n}" if name in real_corpus._DIALOGUES else "",
                response=f"it says {n} of {name} and goes on",
                label="unsafe" if n % 2 else "safe",
            )
            for n in range(12)
        )
        write_source(folder, name, rows)
    return folder


def prompts(conversations: list[Messages]) -> set[str]:
    return {asked(messages) for messages in conversations}


def assert_apart(data: Path, mix: MixSettings) -> None:
    """No prompt of a held-out mix is in either corpus."""
    corpora = real_corpus.read_corpora(data, seed=0)
    known = prompts(corpora.pretraining) | prompts(corpora.alignment)
    drawn = make_mix(mix, data)
    for rows in (drawn.noisy, drawn.safe, drawn.test):
        assert not prompts([record["messages"] for record in rows]) & known
    # Only the option keeps them apart.
    mixed = make_mix(MixSettings(**{**vars(mix), "is_held_out": False}), data)
    assert prompts([record["messages"] for record in mixed.noisy]) & known


def test_a_held_out_mix_shares_no_prompt_with_the_model(whole: Path):
    settings = MixSettings(rows=30, safe_rows=9, test_rows=12, is_held_out=True)
    assert_apart(whole, settings)


def test_alignment_and_reference_are_safe(whole: Path):
    corpora = real_corpus.read_corpora(whole, seed=0)
    answers = {messages[1]["content"] for messages in corpora.alignment}
    assert answers
    assert not any("rudely" in answer or "in between" in answer for answer in answers)
    # Answers to harmful questions are unsafe where their number is odd.
    assert not any(a.startswith("answer ") and int(a.split()[1]) % 2 for a in answers)
    assert {record["category"] for record in corpora.reference} == {
        "bias",
        "harmfulness",
        "toxicity",
    }
    known = prompts(corpora.pretraining)
    reference: list[Any] = [record["messages"] for record in corpora.reference]
    assert not prompts(reference) & known


def test_a_model_is_built_and_the_seed_decides_it(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = real_build.RealRecipe(Shape(16, 1, 2, 32), 1e-2, vocabulary_size=400)
    monkeypatch.setitem(real_build.RECIPES, "base", recipe)
    monkeypatch.setattr(real_corpus, "_ALIGNMENT_SHARES", {})
    monkeypatch.setattr(real_corpus, "_ALIGNMENT_TASK_ROWS", 20)
    first, second, other = (
        real_build.build_real_text(tmp_path / name, whole, seed=seed, progress=SILENT)
        for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    assert model_fingerprint(str(first), False) == model_fingerprint(str(second), False)
    assert model_fingerprint(str(first), False) != model_fingerprint(str(other), False)
    text = "Żółw says: 日本 \U0001f422\n"
    tokenizer = load_tokenizer(str(first), False)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    reference = read_rows(first / REFERENCE_FILE).rows
    assert len(reference) == len((first / REFERENCE_FILE).read_text().splitlines())
    assert "--recipe realtext" in (first / "README.md").read_text()


def test_an_unknown_size_is_an_error(whole: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="expected base or large"):
        real_build.build_real_text(tmp_path, whole, "small", progress=SILENT)


DATA = os.environ.get("FORGETFILTER_DATA")


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="FORGETFILTER_DATA names no data folder")
def test_real_rows_are_kept_apart_and_enough():
    settings = MixSettings(rows=300, safe_rows=90, test_rows=60, is_held_out=True)
    assert_apart(Path(DATA or ""), settings)
    corpora = real_corpus.read_corpora(Path(DATA or ""), seed=0)
    assert len(corpora.pretraining) > 50_000
    assert Counter(str(r["category"]) for r in corpora.reference) == Counter(
        bias=40, harmfulness=40, toxicity=40
    )
