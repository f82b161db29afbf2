"""Parts of the real rows: what each may hold, and that a limit moves no row to another part."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.cli import main
from forgetfilter.errors import ConfigError
from forgetfilter.lab.mix import MixSettings, data_folder, make_mix
from forgetfilter.lab.mix.mixing import Mix, read_offers
from forgetfilter.lab.mix.parts import alignment_rows, parts_of
from forgetfilter.lab.mix.recipes import DEFAULT_HARMS, HARMS, TASKS
from test_mix import all_rows, asked, command, row, write_source
from test_mix import folder as folder

SMALL = MixSettings(tasks=("alpaca", "sst2"), rows=12, safe_rows=6, test_rows=6)


def records(mix: Mix) -> list[dict[str, Any]]:
    return [*mix.noisy, *mix.test]


def test_no_prompt_is_in_two_parts_or_was_shown_in_alignment(folder: Path):
    of_part: dict[str, set[str]] = {}
    for part in ("choosing", "reporting"):
        drawn = [make_mix(replace(SMALL, part=part, seed=seed), folder) for seed in range(6)]
        of_part[part] = {asked(r["messages"]) for mix in drawn for r in records(mix)}
        of_part["safe"] = of_part.get("safe", set()) | {
            asked(r["messages"]) for mix in drawn for r in mix.safe
        }
        assert all(len(mix.noisy) == 12 for mix in drawn)
    of_part["alignment"] = set[str]()
    for recipe in (*(HARMS[name] for name in DEFAULT_HARMS), TASKS["alpaca"], TASKS["sst2"]):
        _, offers = read_offers(recipe, folder)
        rows = alignment_rows(offers, parts_of(recipe, offers))
        assert rows
        assert not any(offer.is_unsafe for offer in rows)
        of_part["alignment"] |= {
            asked([{"content": offer.prompt}, {"content": offer.response}]) for offer in rows
        }
    counts = Counter(key for keys in of_part.values() for key in keys)
    assert [key for key, count in counts.items() if count > 1] == []


def test_a_template_of_bias_is_in_one_part_with_all_its_prompts(folder: Path):
    templates: dict[str, set[str]] = {}
    meta_of = {record["id"]: record["meta"] for record in all_rows(folder)}
    for part in ("choosing", "reporting"):
        mix = make_mix(replace(SMALL, harms=("bias",), tasks=(), safe_rows=1, part=part), folder)
        for record in (*mix.truth, *mix.test):
            meta = meta_of[record["source_id"]]
            name = f"{meta['category']} {meta['question_index']}"
            templates.setdefault(name, set()).add(part)
    assert len(templates) > 4
    assert all(len(parts) == 1 for parts in templates.values())


@pytest.mark.parametrize("name", [*HARMS, *TASKS])
def test_the_part_follows_from_the_name_and_no_unsafe_row_is_for_alignment(folder: Path, name: str):
    recipe = {**HARMS, **TASKS}[name]
    _, offers = read_offers(recipe, folder)
    parts = parts_of(recipe, offers)
    assert parts_of(recipe, offers[::-1]) == parts
    if recipe.is_one_text_per_group:
        unsafe = {offer.group for offer in offers if offer.is_unsafe}
        assert {parts[group] for group in unsafe} <= {"choosing", "reporting"}


def test_limits_on_length_move_no_group_to_another_part(folder: Path, tmp_path: Path):
    for source in HARMS["harmfulness"].files:
        (tmp_path / f"{source.name}.jsonl.gz").symlink_to(folder / f"{source.name}.jsonl.gz")
    (tmp_path / "beavertails_qa.jsonl.gz").unlink()
    rows = [
        row(id=f"{n}{label}", prompt=f"Question {n}?", response=answer, label=label)
        for n in range(60)
        for label, answer in (("safe", f"No {n}."), ("unsafe", f"Do it {n}. " * 9))
    ]
    write_source(tmp_path, "beavertails_qa", rows)
    recipe = HARMS["harmfulness"]
    parts = parts_of(recipe, read_offers(recipe, tmp_path)[1])
    # Only the harmless answers are short enough; their questions stay where they were.
    wish = replace(SMALL, harms=("harmfulness",), tasks=(), unsafe_fraction=0.0)
    mix = make_mix(replace(wish, part="choosing", max_characters=60), tmp_path)
    groups = [asked(record["messages"][:1]) for record in mix.noisy]
    assert any(group.startswith("question") for group in groups)
    assert {parts[group] for group in groups} == {"choosing"}


def test_a_part_and_held_out_rows_exclude_each_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ConfigError, match="both set"):
        make_mix(replace(SMALL, part="choosing", is_held_out=True), folder)
    words = command(
        folder,
        tmp_path / "out",
        **{"--rows": "12", "--safe-rows": "6", "--test-rows": "6", "--part": "reporting"},
    )
    assert main(words) == 0
    with pytest.raises(SystemExit):
        main([*words, "--held-out"])
    assert "not allowed with argument --part" in capsys.readouterr().err


def test_safe_rows_may_name_their_harm_and_are_the_same_rows(folder: Path):
    plain = make_mix(SMALL, folder)
    named = make_mix(replace(SMALL, has_safe_categories=True), folder)
    assert (named.noisy, named.truth, named.test) == (plain.noisy, plain.truth, plain.test)
    without = [{k: v for k, v in record.items() if k != "category"} for record in named.safe]
    assert without == plain.safe
    found = Counter(record["category"] for record in named.safe)
    assert set(found) == set(SMALL.harms)
    assert max(found.values()) - min(found.values()) <= 1


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FORGETFILTER_DATA"), reason="no data folder is named")
def test_real_parts_are_large_enough_for_a_mix_of_a_thousand_rows():
    tasks = ("alpaca", "dolly", "sst2", "agnews", "squad")
    wish = MixSettings(tasks=tasks, rows=1000, test_rows=600)
    for part in ("choosing", "reporting"):
        for fraction in (0.0, 0.3):
            settings = replace(wish, part=part, unsafe_fraction=fraction)
            mix = make_mix(settings, data_folder(None))
            assert sum(record["is_unsafe"] for record in mix.truth) == 1000 * fraction
            prompts = Counter(record["messages"][0]["content"] for record in mix.test)
            assert max(prompts.values()) == 1
            assert Counter(r["kind"] for r in mix.test)["harmless_lookalike"] > 20
