"""Coverage says what a safe set undoes, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from conftest import rows_of, write_rows
from forgetfilter import coverage
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.coverage import (
    LEAST_DAMAGE,
    Coverage,
    HarmCoverage,
    category_of,
    read_reference,
)
from forgetfilter.encoding import Encoder
from forgetfilter.modeling import load_tokenizer
from forgetfilter.progress import Progress
from forgetfilter.records import REFERENCE_FILE, Row
from forgetfilter.screen import screen
from forgetfilter.testbed import HARMS, bundled_model_path, make_noisy, make_safe

SILENT = Progress(is_silent=True)


def a_row(**columns: object) -> Row:
    return Row(0, 1, "id", json.dumps(columns).encode(), ())


def test_a_harm_whose_damage_is_undone_is_covered():
    # 0.10 nats of damage, 0.02 left: 80% undone.
    found = HarmCoverage("bias", 10, damage=0.10, left=0.02)
    assert found.undone == pytest.approx(0.8)
    assert found.verdict == "covered"


def test_a_harm_whose_damage_stays_is_not_covered():
    assert HarmCoverage("bias", 10, damage=0.10, left=0.09).verdict == "not covered"
    # Made worse is not covered either.
    assert HarmCoverage("bias", 10, damage=0.10, left=0.2).verdict == "not covered"


def test_a_harm_that_was_left_but_ranks_high_is_seen_faintly():
    left = HarmCoverage("bias", 10, damage=0.10, left=0.09, fallen=3)
    assert left.verdict == "not covered"  # too few fell to tell how they rank
    assert replace(left, fallen=None).verdict == "not covered"
    assert replace(left, fallen=0).verdict == "unclear"  # no row speaks for there being any
    assert replace(left, auroc=0.89).verdict == "not covered"
    assert replace(left, auroc=0.9).verdict == "faint"
    assert replace(left, left=0.01, auroc=0.2).verdict == "covered"


def test_nothing_is_said_of_a_harm_that_was_not_damaged():
    assert HarmCoverage("bias", 10, damage=0.001, left=0.001).verdict == "not damaged"
    assert HarmCoverage("bias", 10, damage=0.0, left=0.0).undone == 0


@given(st.floats(0, 10), st.floats(0, 10))
def test_verdicts_follow_from_damage_and_what_is_left(damage: float, left: float):
    found = HarmCoverage("bias", 1, damage, left)
    assert np.isfinite(found.undone)
    assert (found.verdict == "not damaged") == (damage < LEAST_DAMAGE)
    json.dumps(found.as_dict())


def test_category_is_the_rows_own_or_other():
    assert category_of(a_row(category="privacy")) == "privacy"
    for strange in (None, "", 3, ["bias"], {"a": 1}):
        assert category_of(a_row(category=strange)) == "other"
    assert category_of(a_row(text="x")) == "other"


def test_testbed_safe_rows_name_their_harm():
    rows = make_safe(200, 0)
    assert {row["category"] for row in rows} == {*HARMS, "looks_dangerous"}
    only = make_safe(200, 0, ("toxicity",))
    assert {row["category"] for row in only} == {"toxicity", "looks_dangerous"}
    assert len(only) == 200


def test_bundled_model_brings_reference_rows_that_no_common_safe_set_holds():
    path = bundled_model_path() / REFERENCE_FILE
    encoder = Encoder(load_tokenizer(str(bundled_model_path())), "auto", 256)
    rows, categories = read_reference(path, encoder)
    assert set(categories) == {*HARMS, "looks_dangerous"}
    assert len(rows) == len(categories) >= 60
    held = {json.dumps(json.loads(line)["messages"]) for line in path.open()}
    for seed in (0, 10):
        assert not held & {json.dumps(row["messages"]) for row in make_safe(400, seed)}


def test_reference_rows_are_few_of_each_kind_whatever_a_stranger_writes(
    tmp_path: Path, tiny_model: Callable[..., Path]
):
    rows = [{**row, "category": f"kind {i}"} for i, row in enumerate(rows_of(80))]
    rows += [{**row, "category": "much"} for row in rows_of(80, start=200)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    encoder = Encoder(load_tokenizer(str(tiny_model("llama"))), "auto", 256)
    _, categories = read_reference(path, encoder)
    assert len(set(categories)) <= 51
    _, categories = read_reference(write_rows(path, rows[40:]), encoder)
    assert 0 < categories.count("much") <= 16


@pytest.fixture
def with_reference(
    tmp_path: Path, quick_config: Callable[..., ScreenConfig]
) -> Callable[..., ScreenConfig]:
    """A screen with reference rows: the safe rows themselves, and rows far from them."""
    near = [{**row, "category": "near"} for row in rows_of(8, start=100)]
    text = "zq xv kj wp" * 4
    far = [{"prompt": f"{i} {text}", "completion": text[i:], "category": "far"} for i in range(8)]
    path = write_rows(tmp_path / "reference.jsonl", [*near, *far])
    learn = {"max_steps": 20, "batch_size": 8, "learning_rate": 3e-2}

    def make(**changes: object) -> ScreenConfig:
        settings = {"learn": learn, "restore": {"steps": 12}, "threshold": "phi:0.1"}
        layer = {"reference_data": str(path), **settings, **changes}
        return quick_config(tmp_path / "run", **layer)

    return make


def test_a_screen_says_what_its_safe_rows_have_undone(
    with_reference: Callable[..., ScreenConfig], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(coverage, "_MOST_BASE_LOSS", np.inf)  # the tiny model knows no language
    found = screen(with_reference(), SILENT).summary["coverage"]
    by_kind = {harm["category"]: harm for harm in found}
    assert {name: harm["rows"] for name, harm in by_kind.items()} == {"near": 8, "far": 8}
    assert by_kind["near"]["damage"] > LEAST_DAMAGE
    assert by_kind["near"]["undone"] > 0.5
    assert by_kind["near"]["undone"] > by_kind["far"]["undone"]
    # Only what was left is looked at again.
    assert by_kind["near"]["fallen"] is None
    assert (by_kind["far"]["fallen"] is None) == (by_kind["far"]["undone"] > 0.5)


def test_nothing_is_claimed_on_rows_whose_language_the_model_does_not_know(
    with_reference: Callable[..., ScreenConfig],
):
    summary = screen(with_reference(), SILENT).summary
    assert summary["coverage"] == []
    assert "does not know the language" in summary["coverage_note"]


def test_other_reference_rows_are_looked_at_in_a_finished_run(
    with_reference: Callable[..., ScreenConfig],
):
    config = with_reference()
    screen(config, SILENT)
    assert config.reference_data is not None
    with open(config.reference_data, "a") as file:
        file.write(json.dumps({**rows_of(1)[0], "category": "new"}) + "\n")
    assert not screen(config, SILENT).was_finished


def test_a_model_is_changed_as_a_whole_only_where_no_harm_is_spared():
    torn = [HarmCoverage(name, 10, damage=1.8, left=0.4) for name in ("bias", "toxicity")]
    assert Coverage(tuple(torn)).wholesale_damage == 1.8
    # Much damage to one harm is what many unsafe rows of it do.
    spared = HarmCoverage("privacy", 10, damage=0.05, left=0.0)
    assert Coverage((*torn, spared)).wholesale_damage is None
    assert Coverage().wholesale_damage is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_second_look_finds_the_rows_of_the_harms_that_were_left(tmp_path: Path):
    """300 rows of the testbed, 30% unsafe, and safe rows on toxicity only."""
    noisy, truth = make_noisy(300, 0.3, 0)
    layer: dict[str, Any] = {
        "noisy_data": str(write_rows(tmp_path / "noisy.jsonl", noisy)),
        "safe_data": str(write_rows(tmp_path / "safe.jsonl", make_safe(150, 0, ("toxicity",)))),
        "model": str(bundled_model_path()),
        "output_dir": str(tmp_path / "run"),
    }
    result = screen(resolve(ScreenConfig, layer), SILENT)
    scores = result.scores["forgetting_score"].to_numpy()
    is_unsafe = np.array([row["is_unsafe"] for row in truth])
    harms = np.array([row["harm"] for row in truth])
    found = {harm["category"]: harm for harm in result.summary["coverage"]}
    assert found["toxicity"]["verdict"] == "covered"
    for harm in ("bias", "harmfulness"):
        is_own = is_unsafe & (harms == harm)
        own = is_own | ~is_unsafe
        assert found[harm]["undone"] < 0.5
        assert found[harm]["fallen"] == pytest.approx(is_own.sum(), rel=0.2)
        assert found[harm]["auroc"] == pytest.approx(
            roc_auc_score(is_own[own], scores[own]), abs=0.05
        )
