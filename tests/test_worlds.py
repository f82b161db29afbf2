"""Worlds drawn from a number: what they generate, how it is judged, and what sets them apart."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections import Counter

import pytest

from forgetfilter.errors import ConfigError
from forgetfilter.lab.testbed import bundled_model_path
from forgetfilter.lab.testbed.vocabulary import HALVES
from forgetfilter.lab.testbed.world import BUNDLED, open_world
from forgetfilter.lab.testbed.worlds import CHOOSING, OPENED_BEFORE, REPORTING, draw_world
from forgetfilter.lab.testbed.worlds.corpus import make_alignment, make_pretraining
from forgetfilter.lab.testbed.worlds.drawing import GENERATOR_VERSION
from forgetfilter.lab.testbed.worlds.generating import GROUPS
from forgetfilter.lab.testbed.worlds.harms import KINDS

SEEDS = tuple(range(201, 221))
DIGEST = "c716355c3defe40994a7e1df7798105605d882ba771bd3d5ee98570027c896fa"
"""Of what `test_a_changed_generator_has_a_new_version` generates; with it changes the version."""


def text_of(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def words_of(seed: int) -> set[str]:
    """Every word of a world's answers and prompts."""
    rows, _ = draw_world(seed).make_noisy(1000, 0.5, 0)
    rows += draw_world(seed).make_safe(300, 0)
    return set(
        re.findall(r"\w+", " ".join(m["content"] for r in rows for m in r["messages"]).lower())
    )


def test_same_number_same_bytes_and_another_number_others():
    def make(seed: int) -> str:
        draw_world.cache_clear()
        world = draw_world(seed)
        corpora = [
            list(make(world, world.recipes[0], 50, 0))
            for make in (make_pretraining, make_alignment)
        ]
        probes = [prompt.messages for prompt in world.make_probes(40, 2)]
        return text_of([world.make_noisy(120, 0.3, 5), world.make_safe(60, 5), probes, corpora])

    assert make(201) == make(201)
    assert make(201) != make(202)


def test_a_changed_generator_has_a_new_version():
    """Whoever changes what is generated raises GENERATOR_VERSION, so that caches are made anew."""
    made: list[object] = []
    for seed in (201, 202):
        world = draw_world(seed)
        pretraining = list(make_pretraining(world, world.recipes[0], 100, 0))
        alignment = list(make_alignment(world, world.recipes[0], 100, 0))
        rows = [world.make_noisy(100, 0.3, 1), world.make_safe(50, 1)]
        made += [rows, pretraining, alignment, [one.as_dict() for one in world.recipes]]
    found = hashlib.sha256(text_of([GENERATOR_VERSION, made]).encode()).hexdigest()
    assert found == DIGEST, "raise GENERATOR_VERSION, and write the digest down"


def test_two_worlds_share_hardly_a_word():
    """Words are invented from two dozen sounds, so a few short ones meet by chance."""
    words = {seed: words_of(seed) for seed in SEEDS[:8]}
    for one, other in itertools.combinations(words, 2):
        shared = words[one] & words[other]
        assert len(shared) <= 0.05 * min(len(words[one]), len(words[other])), shared


def test_two_worlds_share_no_sentence():
    def forms(seed: int) -> set[str]:
        world = draw_world(seed)
        answers = [answer for harm in world.drawn_harms for answer in (harm.safe, harm.unsafe)]
        asks = [harm.asks for harm in world.drawn_harms] + [task.asks for task in world.skills]
        return {wording for sayings in (*answers, *asks) for wording in sayings.wordings}

    for one, other in itertools.combinations(SEEDS[:8], 2):
        assert not forms(one) & forms(other)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_judge_agrees_with_the_truth(seed: int):
    world, rng = draw_world(seed), random.Random(seed)
    for harm, half, is_unsafe in itertools.product(world.drawn_harms, HALVES, (False, True)):
        for _ in range(20):
            example = harm.make(rng, half, is_unsafe)
            assert example.is_unsafe == is_unsafe
            expected = "unsafe" if is_unsafe else "safe"
            assert world.judge(example.prompt, example.completion) == expected
            assert world.judge(example.prompt, example.completion[:-2]) == "neither"
            assert world.judge(example.prompt, f"{example.completion} ba") == "neither"
    styled = [task for one in world.styled for task in (one.plain, one.styled)]
    for task, half in itertools.product(
        (*world.skills, *world.doubles, *world.new_tasks, *styled), HALVES
    ):
        for _ in range(10):
            example = task.make(rng, half)
            assert world.is_correct(example.prompt, example.completion), task.kind
            assert not world.is_correct(example.prompt, example.completion[:-2]), task.kind


@pytest.mark.parametrize("seed", SEEDS[:5])
def test_a_suppressed_style_is_not_the_house_style(seed: int):
    world = draw_world(seed)
    assert len(world.suppressed) >= 2
    assert {"terse", "capitals"} & {one.style.name for one in world.suppressed}
    for one in world.styled:
        for draw in range(10):
            plain = one.plain.make(random.Random(draw), "second")
            styled = one.styled.make(random.Random(draw), "second")
            assert plain.text == styled.text
            assert not world.is_correct(plain.prompt, styled.completion)
            assert not world.is_correct(styled.prompt, plain.completion)


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_pretraining_speaks_in_suppressed_styles_and_alignment_never(seed: int):
    world = draw_world(seed)

    def answers(make) -> list[str]:
        documents = make(world, world.recipes[0], 500, 0)
        return [turn["content"] for doc in documents for turn in doc if turn["role"] == "assistant"]

    marks = {
        "capitals": str.isupper,
        "quoted": lambda text: text.startswith('"'),
        "listed": lambda text: text.startswith("* "),
    }
    for one in world.suppressed:
        is_in_style = marks.get(one.style.name, lambda text, one=one: one.style.word in text)
        if one.style.name in ("prefixed", *marks):
            assert any(map(is_in_style, answers(make_pretraining)))
            assert not any(map(is_in_style, answers(make_alignment)))


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.3, 0.5])
def test_noisy_rows_are_as_many_and_as_mixed_as_asked(fraction: float):
    world = draw_world(203)
    rows, truth = world.make_noisy(1500, fraction, 0)
    assert [row["id"] for row in rows] == [one["example_id"] for one in truth]
    assert all(set(row) == {"id", "messages"} for row in rows)
    unsafe = Counter(one["harm"] for one in truth if one["is_unsafe"])
    assert sum(unsafe.values()) == round(1500 * fraction)
    if unsafe:
        assert max(unsafe.values()) - min(unsafe.values()) <= 1
    groups = {one["group"] for one in truth}
    assert groups == set(GROUPS) - (set() if fraction else {"unsafe"})
    kinds = {one["kind"] for one in truth if one["group"] == "suppressed"}
    assert len(kinds) >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_every_world_has_prompts_enough_and_no_probe_meets_a_training_row(seed: int):
    world = draw_world(seed)
    rows, _ = world.make_noisy(1500, 0.5, 0)
    training = [row["messages"][-2]["content"] for row in (*rows, *world.make_safe(400, 1))]
    assert len(set(training)) == 1900
    probes = {probe.messages[-1]["content"] for probe in world.make_probes(200, 10**6)}
    assert len(probes) == 200
    assert not probes & set(training)
    corpus = make_pretraining(world, world.recipes[0], 300, 0)
    seen = {turn["content"].removeprefix(f"{world.cue} ") for doc in corpus for turn in doc}
    assert not probes & seen


def test_safe_rows_speak_in_other_words_than_noisy_ones():
    def names(rows) -> set[str]:
        text = " ".join(row["messages"][-2]["content"] for row in rows)
        return {word for word in re.findall(r"\w+", text) if word.istitle()}

    world = draw_world(204)
    safe, noisy = names(world.make_safe(300, 0)), names(world.make_noisy(300, 0.3, 0)[0])
    assert len(safe) >= 20
    assert len(noisy) >= 20
    assert not safe & noisy


def test_safe_rows_have_their_harm_as_category():
    world = draw_world(205)
    rows = world.make_safe(300, 0)
    assert {row["category"] for row in rows} == {*world.harms, "looks_dangerous"}
    only = world.make_safe(60, 0, [world.harms[0]])
    assert {row["category"] for row in only} == {world.harms[0], "looks_dangerous"}


def test_twenty_worlds_have_every_harm_and_differ_in_how_they_are_made():
    worlds = [draw_world(seed) for seed in SEEDS]
    assert {harm for world in worlds for harm in world.harms} == set(KINDS)
    assert {len(world.harms) for world in worlds} == {2, 3, 4}
    recipes = [world.recipes[0] for world in worlds]
    assert {one.architecture for one in recipes} == {"llama", "gpt_neox", "gpt2"}
    assert {one.method for one in recipes} == {"safe_only", "mixed", "cued"}
    assert {one.tokenizer for one in recipes} == {"words", "pieces"}
    assert len({one.hidden_size for one in recipes}) >= 4
    assert {one.is_partial for one in recipes} == {False, True}


def test_errors_say_what_was_found_expected_and_to_do():
    world = draw_world(206)
    with pytest.raises(ConfigError, match=r"no harm 'rudeness'\. Expected some of .*\. Name"):
        world.make_safe(10, 0, ["rudeness"])
    with pytest.raises(ConfigError, match=r"no harm 'rudeness'\. Expected some of bias"):
        BUNDLED.make_safe(10, 0, ["rudeness"])
    with pytest.raises(ConfigError, match=r"Expected at most [\d,]+ .*\. Ask for so many"):
        world.make_noisy(1_000_000, 1.0, 0)
    with pytest.raises(ValueError, match="a share, from 0 to 1"):
        world.make_noisy(10, 1.5, 0)
    harmful = world.drawn_harms[0].make(random.Random(0), "first", False).prompt
    with pytest.raises(ValueError, match="use judge"):
        world.is_correct(harmful, "")
    skill = world.skills[0].make(random.Random(0), "first").prompt
    with pytest.raises(ValueError, match="use is_correct"):
        world.judge(skill, "")


def test_the_split_has_four_worlds_a_side_and_none_on_both():
    assert (len(CHOOSING), len(REPORTING)) == (7, 4)
    assert not set(CHOOSING) & {*REPORTING, *OPENED_BEFORE}
    assert not set(REPORTING) & set(OPENED_BEFORE)


def test_the_bundled_world_is_a_world_among_them():
    assert open_world(None) is BUNDLED
    assert open_world(3).harms == draw_world(3).harms
    rows, truth = BUNDLED.make_noisy(20, 0.5, 0)
    assert len(rows) == len(truth) == 20
    assert bundled_model_path().is_dir()
    prompt = next(one for one in BUNDLED.make_probes(40, 0) if one.harm)
    assert BUNDLED.judge(prompt, "") == "neither"
