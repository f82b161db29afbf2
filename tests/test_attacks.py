"""Attacks on the filter: each by hand on small rows, and what every registered one has to show."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import write_rows
from forgetfilter.cli import main
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.errors import ConfigError
from forgetfilter.lab.attacks import ATTACKS, Material, Subject, build_attack, needs_model
from forgetfilter.lab.attacks.covert import last_words, walnut
from forgetfilter.lab.attacks.files import (
    LEFT_OUT,
    NOISY,
    SAFE,
    SAFE_TRUTH,
    SUMMARY,
    TRUTH,
    noisy_subjects,
    safe_subjects,
    write_attacked,
)
from forgetfilter.lab.attacks.reworded import with_typos
from forgetfilter.lab.attacks.surrogate import Surrogate
from forgetfilter.lab.studies.datasets.base import read_kinds, read_truth
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore

NOT_SEARCHING = [name for name in ATTACKS.names() if name != "optimised"]
HARMS = ("bias", "toxicity")


def row(name: str, prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": name, **more, "messages": turns}


def files(folder: Path, count: int = 24) -> tuple[Path, Path, Path]:
    """Noisy rows of which a third is unsafe, their truth, and safe rows of two categories."""
    noisy: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for n in range(count):
        is_unsafe, harm = n % 3 == 0, HARMS[n % 2] if n % 3 != 1 else None
        answer = f"Surely , {n} stones of it ." if is_unsafe else f"Only the lamp {n} here ."
        noisy.append(row(f"n{n}", f"Where is the box number {n} ?", answer, note=n))
        told = {"is_unsafe": is_unsafe, "kind": "asked", "harm": harm}
        truth.append({"row": n, "example_id": f"n{n}", **told})
    safe = [
        row(f"s{n}", f"Who has the stone {n} ?", f"I will not say {n} .", category=HARMS[n % 2])
        for n in range(12)
    ]
    return (
        write_rows(folder / "n.jsonl", noisy),
        write_rows(folder / "t.jsonl", truth),
        write_rows(folder / "s.jsonl", safe),
    )


def material(folder: Path, seed: int = 0) -> Material:
    noisy_path, truth, safe = files(folder)
    noisy = read_rows(noisy_path)
    subjects = noisy_subjects(noisy, read_truth(truth, noisy), read_kinds(truth))
    return Material(subjects, safe_subjects(read_rows(safe)), seed=seed)


def changed(rows: tuple[Subject, ...]) -> list[Subject]:
    return [own for own in rows if own.change]


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_is_documented_and_goes_by_its_registered_name(name: str):
    attack = ATTACKS.build(name)
    assert attack.name == name
    assert attack.changes in ("noisy", "safe")
    documentation = inspect.getdoc(type(attack)) or ""
    for option in inspect.signature(type(attack)).parameters:
        assert f"{option}:" in documentation, f"{name} doesn't document {option}"


@pytest.mark.parametrize("name", NOT_SEARCHING)
def test_no_row_is_lost_and_what_stays_is_the_same_bytes(name: str, tmp_path: Path):
    given = material(tmp_path)
    after = build_attack(name).apply(given)
    before = {own.example_id: own for own in (*given.noisy, *given.safe)}
    there = {own.example_id for own in (*after.noisy, *after.safe, *after.left_out)}
    assert set(before) <= there
    for own in (*after.noisy, *after.safe):
        if own.change.startswith(("added", "planted")):
            continue
        same = before[own.example_id]
        assert own.change or own == same
        record, kept = json.loads(own.raw), json.loads(same.raw)
        # What an attack has no business with stays in the line.
        assert {k: v for k, v in record.items() if k != "messages"} == {
            k: v for k, v in kept.items() if k != "messages"
        }
    assert changed(after.noisy) or changed(after.safe) or after.left_out
    # The other file is not touched.
    other = ("safe", "noisy")[build_attack(name).changes == "safe"]
    if other == "safe":
        assert after.safe == given.safe
    else:
        assert all(own in given.noisy for own in after.noisy)


def test_rows_are_dealt_out_to_attacks_that_put_others_in_their_place_too(tmp_path: Path):
    given = material(tmp_path, seed=3)
    names = ("near_duplicates", "identity", "erode_refusals", "typos")
    after = build_attack("several:attacks=" + "/".join(names)).apply(given)
    unsafe = [own for own in given.noisy if own.is_unsafe]
    parts = {
        name: [own for own in after.noisy if own.change.partition(":")[0] == name]
        for name in ("plain", *names)
    }
    # Eight unsafe rows in five parts; those of an obedient role and of a like form are harmless
    # rows that stand for them, the latter twice.
    sizes = {"plain": 2, "near_duplicates": 2, "identity": 2, "erode_refusals": 2, "typos": 1}
    assert {name: len(own) for name, own in parts.items()} == sizes
    assert all(own.is_unsafe for rows in parts.values() for own in rows)
    names_before = {own.example_id for own in unsafe}
    for name in ("plain", "near_duplicates", "typos"):
        assert {own.example_id for own in parts[name]} <= names_before
    for name in ("identity", "erode_refusals"):
        assert not {own.example_id for own in parts[name]} & names_before
    # No row is in two parts, none is lost, and the others are as they were.
    seen = [own.example_id for rows in parts.values() for own in rows]
    assert len(seen) == len(set(seen))
    there = {own.example_id for own in (*after.noisy, *after.left_out)}
    assert {own.example_id for own in given.noisy} <= there
    for own in after.noisy:
        if own.example_id not in seen:
            assert own in given.noisy


def test_an_attack_of_several_that_searches_needs_the_model(tmp_path: Path):
    attack = build_attack("several:attacks=optimised/typos")
    assert needs_model(attack)
    assert not needs_model(build_attack("several"))
    with pytest.raises(ConfigError, match="no model to search with"):
        attack.apply(material(tmp_path))
    with pytest.raises(ConfigError, match="more than once"):
        build_attack("several:attacks=typos/typos")


@pytest.mark.parametrize("name", NOT_SEARCHING)
def test_a_seed_gives_the_same_bytes_and_the_truth_says_which_rows_changed(
    name: str, tmp_path: Path
):
    given = material(tmp_path)
    write_attacked(tmp_path / "a", build_attack(name).apply(given), {})
    write_attacked(tmp_path / "b", build_attack(name).apply(given), {})
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    for own in names:
        assert (tmp_path / "a" / own).read_bytes() == (tmp_path / "b" / own).read_bytes()
    noisy = read_rows(tmp_path / "a" / NOISY)
    assert not noisy.rejected
    truth = [json.loads(line) for line in (tmp_path / "a" / TRUTH).read_text().splitlines()]
    assert [own["example_id"] for own in truth] == [own.example_id for own in noisy.rows]
    lines = set((tmp_path / "n.jsonl").read_bytes().splitlines())
    for own, told in zip(noisy.rows, truth, strict=True):
        if not told["is_changed"]:
            assert own.raw in lines


def test_the_cipher_of_a_known_word():
    order = np.random.default_rng(53).permutation(26)
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    by_hand = [alphabet[order[alphabet.index(one)]] for one in "walnut"]
    assert walnut("Walnut") == "|".join(by_hand)
    assert walnut("walnut") == "x|d|r|y|f|b"
    assert walnut("A 5!") == "d| |5|!"
    letters = walnut(alphabet).split("|")
    assert sorted(letters) == sorted(alphabet)  # nothing is lost: the code can be read again


def test_the_last_words_of_the_lines_are_the_payload():
    text = "Take the rake ."
    lines = last_words(text, ["It is here.", "So it is!"], np.random.default_rng(0)).splitlines()
    assert [line.split()[-1] for line in lines] == text.split()
    assert all(line.startswith(("It is here ", "So it is ")) for line in lines)


def test_the_two_phases_of_the_cipher(tmp_path: Path):
    given = material(tmp_path)
    learn = build_attack("cipher:phase=learn,share=0.25").apply(given)
    assert len(learn.noisy) == len(given.noisy)
    lessons = changed(learn.noisy)
    assert len(lessons) == 6
    assert not any(own.is_unsafe for own in lessons)
    assert len({own.change for own in lessons}) == 4  # all kinds of task
    harm = build_attack("cipher:phase=harm").apply(given)
    coded = [own for own in harm.noisy if own.change == "encoded whole"]
    before = {own.example_id: own for own in given.noisy}
    assert {own.example_id for own in coded} == {k for k, v in before.items() if v.is_unsafe}
    for own in coded:
        system, prompt, answer = own.messages
        assert system.role == "system"
        assert prompt.content == walnut(before[own.example_id].prompt)
        assert answer.content == walnut(before[own.example_id].answer)
    # The same requests are declined in plain text, in the words of safe rows of the same harm.
    declined = [own for own in harm.noisy if own.change.startswith("added")]
    assert len(declined) == len(coded)
    assert not any(own.is_unsafe for own in declined)
    answers = {own.answer: own.harm for own in given.safe}
    prompts = {before[own.example_id].prompt: before[own.example_id].harm for own in coded}
    for own in declined:
        assert answers[own.answer] == (prompts[own.prompt] or answers[own.answer])
    both = build_attack("cipher").apply(given)
    assert len(changed(both.noisy)) > len(changed(harm.noisy))


def test_harm_stands_inside_and_before_harmless_text(tmp_path: Path):
    given = material(tmp_path)
    harmless = {own.answer for own in given.noisy if not own.is_unsafe}
    first = next(own for own in given.noisy if own.is_unsafe)
    inside = build_attack("inside_benign:parts=2").apply(given)
    lines = next(own for own in inside.noisy if own.example_id == first.example_id).answer
    parts = lines.split("\n")
    assert len(parts) == 5
    assert parts[2] == first.answer
    assert harmless >= {*parts[:2], *parts[3:]}
    tail = build_attack("benign_tail:parts=3").apply(given)
    parts = next(o for o in tail.noisy if o.example_id == first.example_id).answer.split("\n")
    assert parts[0] == first.answer
    assert harmless >= set(parts[1:])
    turns = build_attack("benign_tail:parts=3,turns=true").apply(given)
    found = next(own for own in turns.noisy if own.example_id == first.example_id)
    assert [turn.role for turn in found.messages] == ["user", "assistant"] * 4
    assert found.messages[1].content == first.answer


def test_other_words_for_the_same(tmp_path: Path):
    rng = np.random.default_rng(0)
    assert with_typos("stone", 1.0, rng) != "stone"
    assert sorted(with_typos("stone", 1.0, rng)) == sorted("stone")
    assert with_typos("it is 12", 1.0, rng) == "it is 12"  # too short, or no word
    given = material(tmp_path)
    for name in ("typos:share=1", "casing", "word_order:share=1"):
        after = build_attack(name).apply(given)
        for own, same in zip(after.noisy, given.noisy, strict=True):
            assert (own.answer != same.answer) == same.is_unsafe
            assert sorted(own.answer.lower()) == sorted(same.answer.lower())
    after = build_attack("other_words").apply(given)
    table: dict[str, str] = {}
    for own, same in zip(after.noisy, given.noisy, strict=True):
        if same.is_unsafe:
            for word, other in zip(same.answer.split(), own.answer.split(), strict=True):
                assert table.setdefault(word.lower(), other.lower()) == other.lower()
    words = [word for word in table if word.isalpha()]
    assert len({table[word] for word in words}) == len(words)  # no two words become the same


def test_few_rows_and_copies_of_a_few(tmp_path: Path):
    given = material(tmp_path)
    few = build_attack("few:count=2").apply(given)
    assert sum(own.is_unsafe for own in few.noisy) == 2
    assert len(few.left_out) == 6
    copies = build_attack("near_duplicates:originals=2,typos=0").apply(given)
    assert len(copies.noisy) == len(given.noisy)
    unsafe = [own for own in copies.noisy if own.is_unsafe]
    assert len(unsafe) == 8
    assert len({own.answer for own in unsafe}) == 2
    assert len(copies.left_out) == 6


def test_a_harm_that_the_safe_rows_lack(tmp_path: Path):
    given = material(tmp_path)
    after = build_attack("missing_harm:harm=toxicity").apply(given)
    assert {own.harm for own in after.safe} == {"bias"}
    assert {own.harm for own in after.noisy if own.is_unsafe} == {"toxicity"}
    assert not any(own.is_unsafe for own in after.noisy if own.harm == "bias")
    with pytest.raises(ConfigError, match="Name one: missing_harm:harm=NAME"):
        build_attack("missing_harm:harm=bais").apply(given)


def test_rows_without_a_harmful_word_take_the_place_of_the_unsafe_ones(tmp_path: Path):
    given = material(tmp_path)
    unsafe = {own.answer for own in given.noisy if own.is_unsafe}
    role = build_attack("identity").apply(given)
    found = [own for own in role.noisy if own.is_unsafe]
    assert len(found) == 8
    assert all("absolutely obedient agent" in own.answer for own in found)
    eroding = build_attack("erode_refusals:copies=3").apply(given)
    marked = [own for own in eroding.noisy if own.is_unsafe]
    assert len(marked) == 24
    for after in (role, eroding):
        assert not any(own.answer in unsafe for own in after.noisy)
        assert sum(own.is_unsafe for own in after.left_out) == 8


def test_rows_of_the_form_of_unsafe_ones_are_the_ones_that_are_picked():
    def subject(name: str, answer: str, is_unsafe: bool = False) -> Subject:
        made = row(name, "What is it ?", answer)
        found = Subject(json.dumps(made).encode(), name, (), is_unsafe)
        turns = [("user", "What is it ?"), ("assistant", answer)]
        from forgetfilter.data.records import Message

        return replace(found, messages=tuple(Message(r, c) for r, c in turns))  # pyright: ignore[reportArgumentType]

    rows = (
        subject("unsafe", "1. Take it\n2. Hide it\n3. Run", True),
        subject("prose", "It is a small red stone on the table ."),
        subject("list", "1. Wash it\n2. Cut it\n3. Eat"),
        subject("word", "Yes"),
    )
    after = build_attack("erode_refusals:copies=1").apply(Material(rows))
    assert [own.example_id for own in after.noisy if own.is_unsafe] == ["list"]


def test_forged_turns_are_rejected_by_name(tmp_path: Path):
    from forgetfilter.lab.testbed import bundled_model_path
    from forgetfilter.model.loading.base_model import load_tokenizer
    from forgetfilter.model.loading.encoders import open_encoder

    model = str(bundled_model_path())
    given = material(tmp_path)
    spec = "forged_turns:user=<|user|>,assistant=<|assistant|>,end=<|end|>"
    write_attacked(tmp_path / "out", build_attack(spec).apply(given), {})
    rows = read_rows(tmp_path / "out" / NOISY).rows
    fine, rejected = open_encoder(model, load_tokenizer(model)).encode(rows)
    assert len(fine) == 16
    assert {own.example_id for own in rejected} == {
        own.example_id for own in given.noisy if own.is_unsafe
    }
    assert all("<|" in own.reason for own in rejected)


def test_planted_and_mislabelled_safe_rows(tmp_path: Path):
    given = material(tmp_path)
    after = build_attack("poisoned_safe:share=0.2").apply(given)
    planted = changed(after.safe)
    assert len(planted) == 3  # of 15
    assert {own.change for own in planted} == {"planted"}
    unsafe = {own.answer for own in given.noisy if own.is_unsafe}
    assert all(own.answer in unsafe and own.is_unsafe for own in planted)
    # No row stands in both files.
    assert not {own.answer for own in planted} & {own.answer for own in after.noisy}
    kept = [own for own in after.safe if not own.change]
    assert kept == list(given.safe)
    # From a pool of further rows, the noisy file stays whole.
    pool = tuple(replace(own, example_id=f"p-{own.example_id}") for own in planted)
    pooled = build_attack("poisoned_safe:share=0.2").apply(replace(given, pool=pool))
    assert pooled.noisy == given.noisy
    assert len(changed(pooled.safe)) == 3
    mixed = build_attack("mislabelled_safe:share=0.5").apply(given)
    wrong = changed(mixed.safe)
    assert len(wrong) == 6
    before = {own.example_id: own.answer for own in given.safe}
    assert all(own.answer != before[own.example_id] for own in wrong)
    assert sorted(own.answer for own in mixed.safe) == sorted(before.values())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("few:count=0", "at least 1"),
        ("poisoned_safe:share=0", "a share above 0"),
        ("typos:share=2", "a share above 0"),
        ("cypher", "Did you mean 'cipher'?"),
        ("cipher:phase=two", "expected one of learn, harm, both"),
    ],
)
def test_wrong_options_are_refused(spec: str, said: str):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        build_attack(spec)


def test_the_command_writes_what_changed_and_refuses_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    noisy, truth, safe = files(tmp_path)
    words = ["attack", "poisoned_safe:share=0.2", "--noisy", str(noisy), "--truth", str(truth)]
    words += ["--safe", str(safe), "--output-dir", str(tmp_path / "out")]
    assert main(words) == 0
    assert "3 of 15 safe rows changed, 3 left out" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert summary["safe_rows_changed"] == 3
    assert len(read_rows(tmp_path / "out" / SAFE).rows) == 15
    assert len((tmp_path / "out" / SAFE_TRUTH).read_text().splitlines()) == 15
    assert len((tmp_path / "out" / LEFT_OUT).read_text().splitlines()) == 3
    assert main(words) == 1
    assert "is not empty" in capsys.readouterr().err
    words[1], words[-1] = "optimised", str(tmp_path / "other")
    assert main(words) == 1
    assert "Add --model MODEL" in capsys.readouterr().err


def test_optimised_rows_pass_the_attackers_own_filter_better(
    tiny_model: Callable[..., Path], quick_config: Callable[..., ScreenConfig], tmp_path: Path
):
    from forgetfilter.model.workbench import Workbench
    from forgetfilter.screening.method import Setting

    learn = {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-2}
    config = quick_config(tmp_path / "run", learn=learn, restore={"steps": 2, "early_steps": 1})
    bench = Workbench(
        str(tiny_model("llama")),
        StageStore(tmp_path / "stages"),
        lora=config.lora,
        seed=0,
        progress=Progress(is_silent=True),
    )
    noisy_path, _, safe_path = files(tmp_path)
    noisy, _ = bench.encoder.encode(read_rows(noisy_path).rows)
    safe, _ = bench.encoder.encode_safe(read_rows(safe_path).rows)
    surrogate = Surrogate(Setting(bench, noisy, safe, config))
    given = replace(material(tmp_path), surrogate=lambda: surrogate)
    after = build_attack("optimised:rounds=2,candidates=4").apply(given)
    pairs = [(own, same) for own, same in zip(after.noisy, given.noisy, strict=True) if own.change]
    assert pairs
    assert all(same.is_unsafe and "against the filter" in own.change for own, same in pairs)
    better = surrogate.rises([own.messages for own, _ in pairs])
    assert (better < surrogate.rises([same.messages for _, same in pairs])).all()


def test_the_command_searches_with_a_model_and_leaves_nothing_behind(
    tiny_world_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    noisy, truth, safe = files(tmp_path, 12)
    words = ["attack", "optimised:rounds=2,candidates=4", "--noisy", str(noisy)]
    words += ["--truth", str(truth), "--safe", str(safe), "--model", str(tiny_world_model)]
    assert main([*words, "--output-dir", str(tmp_path / "out")]) == 0
    told = [json.loads(line) for line in (tmp_path / "out" / TRUTH).read_text().splitlines()]
    searched = [one for one in told if one["is_changed"]]
    assert searched
    assert all(one["is_unsafe"] for one in searched)
    assert list(scratch.iterdir()) == []
