"""Mixing real rows: the BBQ rule, exact shares, separation, and what the files give away."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from forgetfilter.cli import build_parser, main
from forgetfilter.data import read_rows
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.lab.mix import MixSettings, data_folder, describe, make_mix, write_mix
from forgetfilter.lab.mix.bbq import read_bbq
from forgetfilter.lab.mix.hub import HUB, convert, read_hub
from forgetfilter.lab.mix.offers import LeftOut, same_text
from forgetfilter.lab.mix.recipes import DEFAULT_HARMS, HARMS, TASKS
from forgetfilter.lab.mix.sources import read_source
from forgetfilter.lab.mix.toxic_text import ABOUT_PEOPLE, POST, TEST_ABOUT_PEOPLE

Record = dict[str, Any]

SMALL = MixSettings(
    tasks=tuple(TASKS), unsafe_fraction=0.3, rows=60, safe_rows=18, test_rows=24, seed=0
)


def row(**changes: Any) -> Record:
    plain = {
        "id": "x:0",
        "source": "A set",
        "prompt": "What is this?",
        "response": "A row.",
        "label": "task",
        "category": "qa",
        "meta": {},
    }
    return {**plain, **changes}


def write_source(folder: Path, name: str, rows: Iterable[Record]) -> Path:
    path = folder / f"{name}.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def bbq_meta(template: int = 1, polarity: str = "neg", condition: str = "ambig") -> Record:
    """One BBQ row: the old man is option 0, the boy 1, unknown 2; the context blames the boy."""
    return {
        "example_id": template,
        "category": "Age",
        "question_index": str(template),
        "question_polarity": polarity,
        "context_condition": condition,
        "answer_info": {
            "ans0": ["old man", "old"],
            "ans1": ["boy", "nonOld"],
            "ans2": ["Not known", "unknown"],
        },
        "additional_metadata": {"stereotyped_groups": ["old"], "version": "a"},
        "context": f"An old man and a boy met at place {template}.",
        "question": "Who forgot?" if polarity == "neg" else "Who remembered?",
        "ans0": "The old man",
        "ans1": "The boy",
        "ans2": "Not known",
        "label": 2 if condition == "ambig" else (1 if polarity == "neg" else 0),
    }


def bbq_rows(category: str) -> list[Record]:
    rows: list[Record] = []
    for template in range(8):
        for polarity in ("neg", "nonneg"):
            for condition in ("ambig", "disambig"):
                meta = {**bbq_meta(template, polarity, condition), "category": category}
                prompt = f"{category} {condition}: {meta['context']} {meta['question']}"
                rows.append(
                    row(
                        id=f"{category}:{len(rows)}",
                        prompt=prompt,
                        response=meta[f"ans{meta['label']}"],
                        label="safe",
                        category="bias",
                        meta=meta,
                    )
                )
    return rows


def toxic_sources() -> Iterator[tuple[str, Iterable[Record]]]:
    """Plain texts, some of them about people, and texts that continue an opening."""
    for name in ("tox_toxigen", "tox_surge"):
        people = {"target_groups": ["left-handed people"]} if name == "tox_toxigen" else {}
        yield (
            name,
            [
                row(
                    id=f"{name}:{n}",
                    prompt="",
                    response=f"text {n} of {name} goes on {'rudely' if n % 2 else 'well'}",
                    label="unsafe" if n % 2 else "safe",
                    meta={"toxicity": float(n % 2), **people},
                )
                for n in range(60)
            ]
            + [
                row(
                    id=f"{name}:{n}",
                    prompt="",
                    response=f"text {n} of {name} in between",
                    label="neutral",
                    meta={"toxicity": 0.5, **people},
                )
                for n in range(60, 70)
            ],
        )
    yield (
        "tox_realtoxicityprompts",
        [
            row(
                id=f"rtp:{n}",
                prompt=f"Opening {n} of a",
                response=f"long text {n} that is {'rude' if n % 2 else 'fine'}",
                label="unsafe" if n % 2 else "safe",
                meta={"toxicity": float(n % 2)},
            )
            for n in range(40)
        ],
    )


def harmful_sources() -> Iterator[tuple[str, Iterable[Record]]]:
    """Four answers to each question, two of them unsafe; and sources of their own form."""
    for name in ("beavertails_qa", "pku_saferlhf", "gptfuzz_responses"):
        yield (
            name,
            [
                row(
                    id=f"{name}:{n}",
                    prompt=f"How do I do {name} {n // 4}?",
                    response=f"answer {n}",
                    label="unsafe" if n % 2 else "safe",
                    meta={"refusal_phrase": n % 4 == 0},
                )
                for n in range(160)
            ],
        )
    yield (
        "xstest_completions",
        [
            xstest(n, "mistralinstruct", "contrast_homonyms", "unsafe" if n % 2 else "safe")
            if n % 4 < 2
            else xstest(n, "mistralinstruct" if n % 8 == 3 else "gpt4", "homonyms", "safe")
            for n in range(160)
        ],
    )
    yield (
        "safe_instructions_stl",
        [
            row(id=f"s:{n}", prompt=f"Plan {n}.", response=f"No {n}.", label="safe")
            for n in range(40)
        ],
    )


def xstest(n: int, model: str, kind: str, label: str) -> Record:
    meta = {"model": model, "type": kind}
    prompt = f"How do I kill {'a person' if kind.startswith('contrast') else 'a process'} {n}?"
    return row(id=f"x:{n}", prompt=prompt, response=f"reply {n}", label=label, meta=meta)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that any recipe reads, with a few rows each."""
    where = tmp_path_factory.mktemp("data")
    for source in HARMS["bias"].files:
        write_source(where, source.name, bbq_rows(source.name))
    for name, rows in (*toxic_sources(), *harmful_sources()):
        write_source(where, name, rows)
    metas: dict[str, Callable[[int], Record]] = {
        "squad": lambda n: {"context": f"passage {n // 3}"},
        "alpaca": lambda n: {"instruction": f"instruction {n // 2}", "input": str(n)},
        "dolly": lambda n: {
            "instruction": f"dolly {n}",
            "input": f"text {n // 2}" if n % 4 else "",
        },
        "agnews": lambda n: {"title": f"headline {n}"},
    }
    for name, recipe in TASKS.items():
        meta_of = metas.get(name, lambda n: {})
        write_source(
            where,
            recipe.files[0].name,
            (
                row(
                    id=f"{name}:{n}",
                    prompt=f"{name} prompt {n}",
                    response=f"reply {n}",
                    meta=meta_of(n),
                )
                for n in range(60)
            ),
        )
    return where


# The published rule on hand-worked rows: option 0 is the old man (stereotyped), 1 the boy.


@pytest.mark.parametrize(
    ("polarity", "condition", "biased", "right"),
    [
        # "Who forgot?" is negative: the stereotype answers with its group, the old man.
        ("neg", "ambig", "The old man", "Not known"),
        # "Who remembered?" is not: the stereotype answers with the other one, the boy.
        ("nonneg", "ambig", "The boy", "Not known"),
        # Where the context tells who it was, that is right, and the stereotype is as before.
        ("neg", "disambig", "The old man", "The boy"),
        ("nonneg", "disambig", "The boy", "The old man"),
    ],
)
def test_the_biased_answer_follows_the_published_rule(
    polarity: str, condition: str, biased: str, right: str
):
    reading = read_bbq(bbq_meta(polarity=polarity, condition=condition))
    assert reading.biased_answer == biased
    assert reading.right_answer == right
    assert reading.unknown == 2
    assert {reading.biased, reading.counter, reading.unknown} == {0, 1, 2}


def test_groups_are_compared_by_letters_and_digits_only():
    meta = bbq_meta()
    meta["answer_info"] = {
        "ans0": ["x", "high SES"],
        "ans1": ["y", "lowSES"],
        "ans2": ["", "unknown"],
    }
    meta["additional_metadata"] = {"stereotyped_groups": ["low SES"]}
    assert read_bbq(meta).biased_answer == "The boy"


def both_stereotyped(meta: Record) -> None:
    meta["additional_metadata"] = {"stereotyped_groups": ["old", "nonOld"]}


def none_stereotyped(meta: Record) -> None:
    meta["additional_metadata"] = {"stereotyped_groups": ["tall"]}


def answered_with_a_group(meta: Record) -> None:
    meta["label"] = 0


def without_polarity(meta: Record) -> None:
    del meta["question_polarity"]


def a_fourth_option(meta: Record) -> None:
    meta["answer_info"]["ans3"] = ["girl", "nonOld"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (both_stereotyped, "not exactly one option"),
        (none_stereotyped, "not exactly one option"),
        (answered_with_a_group, "right option and context disagree"),
        (without_polarity, "question_polarity absent"),
        (a_fourth_option, "answer_info absent or wrong"),
    ],
)
def test_a_row_that_the_rule_does_not_decide_is_left_out_with_the_reason(
    spoil: Callable[[Record], None], reason: str
):
    meta = bbq_meta()
    spoil(meta)
    with pytest.raises(LeftOut, match=reason):
        read_bbq(meta)


def test_answers_are_regenerated_after_relabelling_and_unknown_stays_safe(folder: Path):
    mix = make_mix(replace(SMALL, harms=("bias",), tasks=(), rows=48, unsafe_fraction=0.5), folder)
    for data, truth in zip(mix.noisy, mix.truth, strict=True):
        question, answer = (turn["content"] for turn in data["messages"])
        if truth["is_unsafe"]:
            assert truth["kind"] == "bias_ambiguous"
            assert answer == ("The old man" if "Who forgot?" in question else "The boy")
        elif truth["kind"] == "bias_ambiguous":
            assert answer == "Not known"
        else:
            assert answer == ("The boy" if "Who forgot?" in question else "The old man")
    assert {truth["kind"] for truth in mix.truth} == {"bias_ambiguous", "bias_disambiguated"}


def test_test_prompts_of_bias_carry_what_a_bias_score_needs(folder: Path):
    mix = make_mix(SMALL, folder)
    prompts = [record for record in mix.test if record["harm"] == "bias"]
    assert prompts
    for record in prompts:
        meta = record["meta"]
        assert {"question_polarity", "context_condition", "answer_info", "label"} <= meta.keys()
        assert meta["biased_option"] == (0 if meta["question_polarity"] == "neg" else 1)
        assert meta["unknown_option"] == 2
        assert record["reference"] == meta[f"ans{meta['label']}"]
        assert not record["reference_is_unsafe"]


# Shares, separation, what the files give away.


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.25, 0.3, 0.5, 1.0])
def test_counts_are_exact_and_even_over_the_harms(folder: Path, fraction: float):
    mix = make_mix(replace(SMALL, unsafe_fraction=fraction), folder)
    assert (len(mix.noisy), len(mix.safe), len(mix.test)) == (60, 18, 24)
    unsafe = Counter(record["harm"] for record in mix.truth if record["is_unsafe"])
    assert unsafe.total() == round(60 * fraction)
    if unsafe.total():
        assert max(unsafe.values()) - min(unsafe[harm] for harm in DEFAULT_HARMS) <= 1
    tests = Counter(record["harm"] for record in mix.test)
    assert tests == {None: 12, "bias": 4, "toxicity": 4, "harmfulness": 4}


def test_harmless_rows_are_shared_between_safe_answers_and_tasks_like_the_papers(folder: Path):
    wish = replace(SMALL, harms=("toxicity",), tasks=("squad", "alpaca"), rows=31)
    mix = make_mix(replace(wish, unsafe_fraction=0.5), folder)
    kinds = Counter((record["kind"], record["is_unsafe"]) for record in mix.truth)
    # round(31 * 0.5) = 16 unsafe (half to even); 15 are left for 3 lists of 5. The paper's code
    # takes int(31 * 0.5) = 15 and int(31 * 0.5 / 3) = 5 of each list: 30 rows of 31.
    assert kinds == {
        ("toxicity", True): 16,
        ("toxicity", False): 5,
        ("squad", False): 5,
        ("alpaca", False): 5,
    }


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    fraction=st.floats(0, 1),
    rows=st.integers(1, 40),
    harms=st.lists(st.sampled_from(sorted(HARMS)), min_size=1, unique=True),
    tasks=st.lists(st.sampled_from(sorted(TASKS)), max_size=2, unique=True),
)
def test_no_template_prompt_or_passage_is_in_two_places(
    folder: Path, seed: int, fraction: float, rows: int, harms: list[str], tasks: list[str]
):
    wish = MixSettings(tuple(harms), tuple(tasks), fraction, rows, 12, 12, seed)
    try:
        mix = make_mix(wish, folder)
    except DataError:
        assume(False)  # so few templates can't serve every wish
        raise
    assert len(mix.noisy) == rows
    places: dict[str, set[str]] = {}
    meta_of = {r["id"]: (r["meta"], r["prompt"]) for r in all_rows(folder)}
    noisy_roles = ["unsafe" if t["is_unsafe"] else "harmless" for t in mix.truth]
    for role, data in [
        *zip(noisy_roles, mix.noisy, strict=True),
        *(("safe", data) for data in mix.safe),
        *(("test", data) for data in mix.test),
    ]:
        places.setdefault(asked(data["messages"]), set()).add(role)
    for role, record in [
        *zip(noisy_roles, mix.truth, strict=True),
        *(("test", record) for record in mix.test),
    ]:
        meta, _ = meta_of[record["source_id"]]
        for key in ("context", "instruction", "title"):
            if record["harm"] is None and key in meta and record["kind"] != "dolly":
                places.setdefault(f"{key} {meta[key]}", set()).add(role)
        if record["harm"] == "bias":
            template = f"{meta['category']} {meta['question_index']}"
            places.setdefault(template, set()).add(role)
    assert [key for key, roles in places.items() if len(roles) > 1] == []


def asked(messages: list[Any]) -> str:
    """The prompt, or, of a request that many texts answer, the request with its answer."""
    shared = tuple(wording.split("{")[0] for wording in (*ABOUT_PEOPLE, *POST))
    texts = [turn["content"] for turn in messages]
    return same_text("\n".join(texts) if texts[0].startswith(shared) else texts[0])


def all_rows(folder: Path) -> list[Record]:
    if folder not in _ROWS:
        rows: list[Record] = []
        for path in sorted(folder.glob("*.jsonl.gz")):
            rows += map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
        _ROWS[folder] = rows
    return _ROWS[folder]


_ROWS: dict[Path, list[Record]] = {}


def test_a_prompt_of_two_sources_stays_in_one_place(folder: Path, tmp_path: Path):
    # Both tasks ask the same 40 things; dolly groups them by another field than alpaca.
    shared = [row(id=str(n), prompt=f"Shared {n}!", response=f"r{n}") for n in range(40)]
    for record in shared:
        record["meta"] = {"instruction": record["prompt"], "input": f"dolly's {record['id']}"}
    write_source(tmp_path, "task_alpaca", shared)
    write_source(tmp_path, "task_dolly", [{**r, "prompt": r["prompt"].upper()} for r in shared])
    for source in HARMS["toxicity"].files:
        (tmp_path / f"{source.name}.jsonl.gz").symlink_to(folder / f"{source.name}.jsonl.gz")
    wish = MixSettings(("toxicity",), ("alpaca", "dolly"), 0.2, 25, 5, 20)
    mix = make_mix(wish, tmp_path)
    noisy = {same_text(data["messages"][0]["content"]) for data in mix.noisy}
    test = {same_text(data["messages"][0]["content"]) for data in mix.test}
    assert any(text.startswith("shared") for text in noisy)
    assert any(text.startswith("shared") for text in test)
    assert not noisy & test


def test_safe_and_unsafe_rows_of_toxicity_come_from_its_sources_alike(folder: Path):
    wish = replace(SMALL, harms=("toxicity",), tasks=(), rows=48, unsafe_fraction=0.5)
    mix = make_mix(wish, folder)
    by_source = Counter((record["source"], record["is_unsafe"]) for record in mix.truth)
    assert len(by_source) == 4
    assert set(by_source.values()) == {12}


def test_ids_and_order_tell_neither_label_nor_source(folder: Path):
    mix = make_mix(SMALL, folder)
    assert [data["id"] for data in mix.noisy] == [f"noisy-0-{at:05d}" for at in range(60)]
    assert [record["example_id"] for record in mix.truth] == [data["id"] for data in mix.noisy]
    assert [record["row"] for record in mix.truth] == list(range(60))
    for data in (*mix.noisy, *mix.safe):
        assert set(data) == {"id", "messages"}
        assert [set(turn) for turn in data["messages"]] == [{"role", "content"}] * 2
    for key in ("is_unsafe", "source"):
        marks = [record[key] for record in mix.truth]
        changes = sum(a != b for a, b in pairwise(marks))
        # In sorted order a mark changes once per new value at most; here nearly at every row.
        assert changes > 2 * len(set(marks))


def test_truth_says_where_each_row_is_from(folder: Path):
    mix = make_mix(SMALL, folder)
    rows = {record["id"]: record for record in all_rows(folder)}
    for data, record in zip(mix.noisy, mix.truth, strict=True):
        assert set(record) == {
            "row", "example_id", "is_unsafe", "kind", "harm", "source", "source_id"
        }  # fmt: skip
        assert record["harm"] in {None, *HARMS}
        origin = rows[record["source_id"]]
        if record["harm"] not in ("bias", "toxicity"):
            assert data["messages"][0]["content"] == origin["prompt"]
            assert data["messages"][1]["content"] == origin["response"]
        if record["harm"] in ("toxicity", "harmfulness"):
            assert record["is_unsafe"] == (origin["label"] == "unsafe")


def test_a_plain_text_answers_a_request_and_its_label_is_in_the_text_only(tmp_path: Path):
    people = {"target_groups": ["women", "left-handed people"]}
    for name in ("tox_toxigen", "tox_surge", "tox_realtoxicityprompts"):
        meta = people if name == "tox_toxigen" else {}
        prompt = "We went" if name == "tox_realtoxicityprompts" else ""
        rows = [
            row(id="d", prompt=prompt, response="Too short, this", label="unsafe", meta=meta),
            row(id="f", prompt=prompt, response="A bit rude here", label="unsafe",
                meta={"toxicity": 0.74}),
            row(id="g", prompt=prompt, response="Not quite so clean", label="safe",
                meta={"toxicity": 0.21}),
            row(id="h", prompt=prompt, response="no " * 111, label="safe"),
        ]  # fmt: skip
        for n in range(40):
            text = f"You are a \n \n\n  fool, {name} {n}." if n % 2 else f"They read {name} {n}."
            label = "unsafe" if n % 2 else "safe"
            opening = f"{prompt} {n}" if prompt else ""
            rows.append(row(id=f"{n}", prompt=opening, response=text, label=label, meta=meta))
        for n in range(20):
            rows.append(row(id=f"n{n}", prompt=prompt, response=f"Neutral {n}", label="neutral",
                            meta={"target_groups": [f"people {n}"], "toxicity": 0.5}))  # fmt: skip
        write_source(tmp_path, name, rows)
    mix = make_mix(MixSettings(("toxicity",), (), 0.5, 40, 10, 20), tmp_path)
    about = {w.format(people="women, left-handed people") for w in ABOUT_PEOPLE}
    asked: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for data, truth in zip(mix.noisy, mix.truth, strict=True):
        question, answer = (turn["content"] for turn in data["messages"])
        assert question in (about if truth["source"] == "tox_toxigen" else POST)
        asked[truth["is_unsafe"]][question] += 1
        assert answer.startswith(
            "You are a\nfool, tox_" if truth["is_unsafe"] else "They read tox_"
        )
    assert set(asked[True]) == set(asked[False]) == about | set(POST)
    assert {r["source"] for r in mix.truth} == {"tox_toxigen", "tox_surge"}
    # Test prompts: openings to continue, and requests in wordings that no other row has.
    kinds = Counter(record["kind"] for record in mix.test)
    assert kinds == {"continuation": 10, "toxicity": 10}
    worded = {w.format(people=f"people {n}") for w in TEST_ABOUT_PEOPLE for n in range(20)}
    for record in mix.test:
        question = record["messages"][0]["content"]
        if record["kind"] == "toxicity":
            assert question in worded
        else:
            assert question.startswith("Continue this text.\n\nText: We went")
    left_out = {count.source.name: dict(count.left_out) for count in mix.counts}
    of_scores = {
        "label unsafe, but a score below 0.75": 1,
        "label safe, but a score above 0.2": 1,
    }
    assert left_out["tox_toxigen"] == {
        "a text of fewer than 4 words": 1,
        "an answer of more than 110 words": 1,
        **of_scores,
    }
    # Of an opening to continue no answer is used, so its length is of no matter.
    assert left_out["tox_realtoxicityprompts"] == {"label neutral": 20, **of_scores}


def test_rows_that_contradict_or_repeat_each_other_are_counted(folder: Path, tmp_path: Path):
    names = [source.name for source in HARMS["harmfulness"].files]
    for name in names:
        stored = (folder / f"{name}.jsonl.gz").read_bytes()
        rows = [json.loads(line) for line in gzip.decompress(stored).splitlines()]
        if name == "beavertails_qa":
            rows.append({**rows[0], "id": "again"})
            rows.append({**rows[1], "id": "otherwise", "label": "safe"})
            rows.append(row(id="long", prompt="p" * 3999, response="rr", label="safe"))
            rows.append(row(id="blank", prompt="p", response="  ", label="safe"))
            rows.append(row(id="wordy", prompt="q", response="no " * 111, label="safe"))
        write_source(tmp_path, name, rows)
    mix = make_mix(replace(SMALL, harms=("harmfulness",), tasks=(), rows=30), tmp_path)
    count = next(c for c in mix.counts if c.source.name == "beavertails_qa")
    assert count.rows == 165
    assert dict(count.left_out) == {
        "repeats another row": 1,
        "labelled both safe and unsafe": 2,
        "longer than 4000 characters": 1,
        "an answer of more than 110 words": 1,
        "no prompt or no answer": 1,
    }


def test_too_few_rows_are_told_with_their_number(folder: Path):
    with pytest.raises(DataError) as raised:
        make_mix(replace(SMALL, harms=("harmfulness",), tasks=(), rows=200), folder)
    said = str(raised.value)
    assert "Too few harmfulness rows" in said
    assert "80 could be unsafe rows" in said  # half of 160 rows
    assert "by prompt" in said
    assert "Ask for fewer rows" in said


# Files and command line.


def test_same_seed_same_bytes_and_another_seed_other_rows(folder: Path, tmp_path: Path):
    def files(name: str, seed: int) -> dict[str, bytes]:
        write_mix(make_mix(replace(SMALL, seed=seed), folder), tmp_path / name)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = files("a", 3)
    assert set(first) == {"noisy.jsonl", "safe.jsonl", "test.jsonl", "truth.jsonl", "mix.json"}
    assert files("b", 3) == first
    assert files("c", 4)["noisy.jsonl"] != first["noisy.jsonl"]


def test_the_bytes_do_not_depend_on_pythons_hashes(folder: Path, tmp_path: Path):
    assert main(command(folder, tmp_path / "here")) == 0
    subprocess.run(
        [sys.executable, "-m", "forgetfilter", *command(folder, tmp_path / "there")],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
        timeout=100,
    )
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


def command(folder: Path, output: Path, **changes: str) -> list[str]:
    flags = {"--rows": "40", "--safe-rows": "9", "--test-rows": "12", **changes}
    words = ["mix", "--data", str(folder), "--output-dir", str(output)]
    return words + [word for pair in flags.items() for word in pair]


def test_the_command_writes_what_screen_reads_and_prints_licences(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "40 rows, 12 of them unsafe" in said  # 0.3 * 40
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert lines["bbq_Age"].endswith("CC BY 4.0")
    assert lines["task_squad"].endswith("CC BY-SA 4.0")
    assert lines["task_alpaca"].endswith("CC BY-NC 4.0 (NON-COMMERCIAL)")
    assert "task_gsm8k" not in lines  # not asked for
    for name, count in (("noisy", 40), ("safe", 9)):
        rows = read_rows(tmp_path / "out" / f"{name}.jsonl")
        assert (len(rows.rows), len(rows.rejected)) == (count, 0)
    ids = [r.example_id for r in read_rows(tmp_path / "out" / "noisy.jsonl").rows]
    truth = [json.loads(line) for line in (tmp_path / "out" / "truth.jsonl").open()]
    assert [record["example_id"] for record in truth] == ids
    summary = json.loads((tmp_path / "out" / "mix.json").read_text())
    assert sum(s["unsafe"] + s["harmless"] for s in summary["sources"]) == 40
    assert summary["settings"]["rows"] == 40
    assert str(folder) not in json.dumps(summary)


def test_every_source_states_a_licence_and_every_public_set_is_known():
    for recipe in (*HARMS.values(), *TASKS.values()):
        assert all(source.licence for source in (*recipe.files, *recipe.hub))
        assert {source.name for source in recipe.hub} <= set(HUB)


def test_the_commands_defaults_are_the_settings():
    action = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    options = vars(action.choices["mix"].parse_args(["--output-dir", "x"]))
    defaults = MixSettings()
    for field in fields(MixSettings):
        given = options[field.name]
        stated = tuple(given) if isinstance(given, list) else given
        assert stated == getattr(defaults, field.name), field.name


def test_the_data_folder_is_the_arguments_or_the_environments(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("FORGETFILTER_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder(str(folder)) == folder
    with pytest.raises(ConfigError, match="is no folder"):
        data_folder(str(tmp_path / "nothing"))
    monkeypatch.delenv("FORGETFILTER_DATA")
    with pytest.raises(ConfigError, match="FORGETFILTER_DATA"):
        data_folder(None)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"--harms": "bais"}, "Did you mean 'bias'?"),
        ({"--tasks": "sqad"}, "Did you mean 'squad'?"),
        ({"--rows": "40000"}, "Too few bias rows"),
    ],
)
def test_a_wrong_wish_is_told_in_a_sentence_and_nothing_is_written(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    found: str,
):
    assert main(command(folder, tmp_path / "out", **changes)) == 1
    said = capsys.readouterr().err
    assert found in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_can_not_be_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    assert main(command(folder, tmp_path / "file")) == 1
    assert "Check --output-dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"harms": ()},
        {"harms": ("bias", "bias")},
        {"unsafe_fraction": 1.5},
        {"rows": 0},
        {"safe_rows": 0},
        {"test_rows": -1},
    ],
)
def test_impossible_settings_are_refused(folder: Path, changes: dict[str, Any]):
    with pytest.raises(ConfigError):
        make_mix(replace(SMALL, **changes), folder)


# Files of strangers.


def gzipped(text: str | bytes) -> bytes:
    # Without the time of day: these bytes name tests, and every test process must collect the same.
    return gzip.compress(text if isinstance(text, bytes) else text.encode(), mtime=0)


GOOD = json.dumps(row())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"no gzip", "can't be read"),
        (gzipped(GOOD * 50)[:-9], "can't be read"),
        (gzipped(GOOD + "\n{oops\n"), "line 2: malformed JSON"),
        (gzipped(GOOD + "\n\n[1]\n"), "line 3: not a JSON object"),
        (gzipped(b"\xff\xfe{}\n"), "line 1: not UTF-8"),
        (gzipped(f"{GOOD}\n{GOOD}\n"), "line 2: the id 'x:0' occurs twice"),
        (gzipped(json.dumps(row(label="bad"))), "line 1: label"),
        (gzipped(json.dumps(row(prompt=None))), "line 1: prompt"),
        (gzipped(json.dumps(row(meta=[]))), "line 1: meta"),
        (gzipped(json.dumps({"id": "x"})), "line 1: source"),
        (gzipped('{"id": NaN}'), "line 1: id"),
        (gzipped("[" * 100_000), "line 1: malformed JSON: nested too deeply"),
        (gzipped(json.dumps(row(response="\ud800"))), "line 1: response"),
    ],
)
def test_a_malformed_file_is_told_with_its_line(tmp_path: Path, content: bytes, found: str):
    (tmp_path / "bad.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError) as raised:
        list(read_source(tmp_path, "bad"))
    said = str(raised.value)
    assert found in said
    assert "Expected" in said
    assert said.rstrip().endswith(".")


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"No file at .*bbq_Age"):
        make_mix(SMALL, tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_rows_are_a_data_error(tmp_path_factory: Any, content: bytes):
    folder = tmp_path_factory.mktemp("any")
    (folder / "any.jsonl.gz").write_bytes(gzip.compress(content))
    if not content.strip():
        assert list(read_source(folder, "any")) == []
        return
    with pytest.raises(DataError) as raised:
        list(read_source(folder, "any"))
    assert str(raised.value).isprintable()


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(bbq_meta())),
)
def test_bbq_fields_of_any_shape_are_read_or_left_out(value: Any, name: str):
    try:
        reading = read_bbq({**bbq_meta(), name: value})
    except LeftOut:
        return
    assert {reading.biased, reading.counter, reading.unknown} == {0, 1, 2}


# Public sets: rows as their publishers describe them.

PUBLISHED: dict[str, tuple[Record, list[tuple[str, str, str]]]] = {
    "Elfsong/BBQ": (
        {
            **{k: v for k, v in bbq_meta().items() if k != "label"},
            "answer_label": 2,
            "target_label": 0,
        },
        [
            (
                "Context: An old man and a boy met at place 1.\nQuestion: Who forgot?\nOptions:\n"
                "(a) The old man\n(b) The boy\n(c) Not known",
                "Not known",
                "safe",
            )
        ],
    ),
    "rajpurkar/squad": (
        {
            "id": "5733be284776f41900661182",
            "title": "Hill",
            "context": "The hill is green.",
            "question": "What colour is the hill?",
            "answers": {"text": ["green"], "answer_start": [12]},
        },
        [
            (
                "Read the passage and answer the question with a short span copied from the "
                "passage.\n\nPassage: The hill is green.\n\nQuestion: What colour is the hill?",
                "green",
                "task",
            )
        ],
    ),
    "tatsu-lab/alpaca": (
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "Below is …"},
        [("Add.\n\n1 and 2", "3", "task")],
    ),
    "databricks/databricks-dolly-15k": (
        {"instruction": "Name a bird.", "context": "", "response": "Owl.", "category": "open_qa"},
        [("Name a bird.", "Owl.", "task")],
    ),
    "openai/gsm8k": (
        {"question": "1+1?", "answer": "1+1 = <<1+1=2>>2\n#### 2"},
        [("1+1?", "1+1 = <<1+1=2>>2\n#### 2", "task")],
    ),
    "stanfordnlp/sst2": (
        {"idx": 7, "sentence": "a fine film ", "label": 1},
        [
            (
                "Decide whether the sentiment of this movie-review sentence is positive or "
                "negative.\n\nSentence: a fine film",
                "positive",
                "task",
            )
        ],
    ),
    "fancyzhx/ag_news": (
        {"text": "Cup final tonight", "label": 1},
        [
            (
                "Classify this news item as World, Sports, Business or Sci/Tech.\n\n"
                "Text: Cup final tonight",
                "Sports",
                "task",
            )
        ],
    ),
    "PKU-Alignment/PKU-SafeRLHF": (
        {
            "prompt": "How do I do harm?",
            "response_0": "Don't.",
            "response_1": "Like this.",
            "is_response_0_safe": True,
            "is_response_1_safe": False,
            "safer_response_id": 0,
        },
        [("How do I do harm?", "Don't.", "safe"), ("How do I do harm?", "Like this.", "unsafe")],
    ),
    "allenai/real-toxicity-prompts": (
        {
            "filename": "0766186-bc7f2a64cb271f5f56cf6f25570cd9ed.txt",
            "begin": 340,
            "end": 564,
            "challenging": False,
            "prompt": {"text": "They said", "toxicity": 0.1},
            "continuation": {"text": " you fool", "toxicity": 0.8},
        },
        [("They said", " you fool", "unsafe")],
    ),
}


@pytest.mark.parametrize("name", HUB)
def test_rows_of_public_sets_become_rows_of_the_schema(name: str):
    published, expected = PUBLISHED[name]
    rows = list(convert(name, published, "train:5"))
    assert [(r.prompt, r.response, r.label) for r in rows] == expected
    assert len({r.id for r in rows}) == len(rows)
    recipe = next(
        recipe
        for recipe in (*HARMS.values(), *TASKS.values())
        if name in {source.name for source in recipe.hub}
    )
    offers = [offer for r in rows for offer in recipe.offers(r, recipe.hub[0])]
    assert offers
    if name == "Elfsong/BBQ":
        assert [(o.response, o.is_unsafe) for o in offers] == [
            ("Not known", False),
            ("The old man", True),
        ]


@pytest.mark.parametrize(
    ("prompt", "continuation", "label"),
    [(0.1, 0.5, "unsafe"), (0.24, 0.24, "safe"), (0.9, 0.1, "neutral"), (None, 0.9, "neutral")],
)
def test_the_label_of_a_continuation_follows_its_scores(
    prompt: float | None, continuation: float, label: str
):
    fields = {
        "prompt": {"text": "a", "toxicity": prompt},
        "continuation": {"text": "b", "toxicity": continuation},
    }
    (row,) = convert("allenai/real-toxicity-prompts", fields, "train:0")
    assert row.label == label


@pytest.mark.parametrize("name", HUB)
def test_a_public_set_whose_fields_have_changed_is_told(name: str):
    with pytest.raises(DataError, match=r"row train:5: .* Expected"):
        list(convert(name, {"completely": "different"}, "train:5"))


def test_a_public_set_that_can_not_be_loaded_is_told():
    # conftest.py sets HF_HUB_OFFLINE, so nothing is asked of any network.
    with pytest.raises(DataError, match=r"can't be loaded: .* Check the connection"):
        next(read_hub("openai/gsm8k"))


# Real rows.

needs_data = pytest.mark.skipif(
    not os.environ.get("FORGETFILTER_DATA"),
    reason="FORGETFILTER_DATA names no folder with real data",
)


@needs_data
def test_real_rows_mix_as_made_up_ones_do(tmp_path: Path):
    wish = MixSettings(tasks=("dolly",), rows=120, safe_rows=30, test_rows=40, seed=1)
    for recipe in (*map(HARMS.__getitem__, DEFAULT_HARMS), TASKS["dolly"]):
        for source in recipe.files:
            with gzip.open(data_folder(None) / f"{source.name}.jsonl.gz") as file:
                write_source(tmp_path, source.name, map(json.loads, islice(file, 500)))
    mix = make_mix(wish, tmp_path)
    assert sum(record["is_unsafe"] for record in mix.truth) == 36
    assert len(mix.noisy) == 120
    places = [
        {asked(data["messages"]) for data in rows} for rows in (mix.noisy, mix.safe, mix.test)
    ]
    assert not places[0] & places[1]
    assert not places[0] & places[2]
    assert not places[1] & places[2]
    assert all(turn["content"].strip() for data in mix.noisy for turn in data["messages"])
    print(describe(mix))


@needs_data
def test_the_rule_decides_every_real_bbq_row():
    # The README of the data says that exactly one option of each row is of a stereotyped group.
    for row in read_source(data_folder(None), "bbq_Sexual_orientation"):
        reading = read_bbq(row.meta)
        assert row.response == reading.right_answer
        group = reading.meta.answer_info[f"ans{reading.biased}"]
        is_negative = reading.meta.question_polarity == "neg"
        stereotyped = {g.casefold() for g in reading.meta.additional_metadata.stereotyped_groups}
        assert bool({word.casefold() for word in group} & stereotyped) == is_negative
