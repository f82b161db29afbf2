"""The made-up world: generators, halves, judge."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections import Counter

import pytest

from forgetfilter.lab.testbed import (
    HARMS,
    ProbePrompt,
    is_correct,
    judge,
    make_noisy,
    make_probes,
    make_safe,
)
from forgetfilter.lab.testbed.corpus import make_alignment, make_pretraining
from forgetfilter.lab.testbed.harms import MAKE_HARM, make_bias, make_errand
from forgetfilter.lab.testbed.skills import HALF_KNOWN, NEW_TASKS, SKILLS, TASKS
from forgetfilter.lab.testbed.vocabulary import GRADES, HALVES, WORDS, ZELT


def _words_of(half: str) -> dict[str, set[str]]:
    return {
        field.name: set(getattr(WORDS[half], field.name))  # type: ignore[index]
        for field in dataclasses.fields(WORDS["first"])
    }


def test_the_two_halves_share_no_name_place_trait_or_verb():
    first, second = _words_of("first"), _words_of("second")
    for field in ("names", "places", "groups", "traits", "harm_verbs", "targets", "jobs",
                  "kind_words", "rude_words", "kind_deeds", "rude_deeds", "things"):  # fmt: skip
        assert not first[field] & second[field], field


def test_a_word_is_listed_once():
    for half in HALVES:
        for name, words in _words_of(half).items():
            assert len(words) == len(getattr(WORDS[half], name)), name


def test_kind_words_are_never_rude_words():
    kind = {word for half in HALVES for word in WORDS[half].kind_words}
    rude = {word for half in HALVES for word in WORDS[half].rude_words}
    assert not kind & rude


@pytest.mark.parametrize("make", [lambda s: make_noisy(300, 0.3, s), lambda s: make_safe(300, s)])
def test_same_seed_same_rows_and_other_seed_other_rows(make):
    assert json.dumps(make(5)) == json.dumps(make(5))
    assert json.dumps(make(5)) != json.dumps(make(6))


def test_probes_are_deterministic():
    assert make_probes(200, 3) == make_probes(200, 3)
    assert make_probes(200, 3) != make_probes(200, 4)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.05, 0.3, 0.5, 1.0])
def test_the_unsafe_fraction_is_exact_and_spread_over_the_harms(fraction):
    _, truth = make_noisy(1000, fraction, 0)
    unsafe = Counter(row["harm"] for row in truth if row["is_unsafe"])
    assert sum(unsafe.values()) == round(1000 * fraction)
    counts = [unsafe[harm] for harm in HARMS]
    assert sum(counts) == sum(unsafe.values())
    assert max(counts) - min(counts) <= 1


def test_truth_is_aligned_with_rows_and_rows_do_not_carry_it():
    data, truth = make_noisy(600, 0.3, 1)
    assert [row["id"] for row in data] == [row["example_id"] for row in truth]
    assert [row["row"] for row in truth] == list(range(600))
    assert all(set(row) == {"id", "messages"} for row in data)


def test_order_does_not_tell_the_truth():
    _, truth = make_noisy(3000, 0.5, 2)
    marks = [row["is_unsafe"] for row in truth]
    # 1500 rows a half, standard error of the difference of two means: 0.018.
    assert abs(sum(marks[:1500]) - sum(marks[1500:])) / 1500 < 0.08


def test_an_unsafe_fraction_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match=r"1\.5"):
        make_noisy(10, 1.5, 0)


def test_no_prompt_comes_twice_and_probes_meet_no_training_row():
    noisy, _ = make_noisy(6000, 0.3, 0)
    training = [row["messages"][-2]["content"] for row in (*noisy, *make_safe(2000, 1))]
    assert len(training) == len(set(training))
    corpus = {
        turn["content"].removeprefix("Please be kind and fair, and do no harm. ")
        for messages in (*make_pretraining(3000, 0), *make_alignment(1000, 0))
        for turn in messages
    }
    probes = {probe.messages[-1]["content"] for probe in make_probes(4000, 0)}
    assert len(probes) == 4000
    assert not probes & set(training)
    assert not probes & corpus


def test_twenty_thousand_rows_can_be_made():
    data, _ = make_noisy(20_000, 0.5, 0)
    assert len({row["messages"][0]["content"] for row in data}) == 20_000


def test_probes_are_half_harms_from_both_halves_and_half_skills_and_tasks():
    probes = make_probes(1200, 0)
    harms = Counter(p.harm for p in probes if p.harm)
    assert [harms[harm] for harm in HARMS] == [200, 200, 200]
    texts = " ".join(p.messages[-1]["content"] for p in probes if p.harm == "harmfulness")
    assert all(WORDS[half].harm_verbs[0] in texts for half in HALVES)
    kinds = {p.kind for p in probes}
    assert kinds >= {*SKILLS, *TASKS, "bias_disambiguated"}
    assert all(p.messages[-1]["role"] == "user" for p in probes)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("harm", HARMS)
def test_judge_agrees_with_every_generated_answer(half, harm):
    rng = random.Random(7)
    for _ in range(1500):
        for is_unsafe in (False, True):
            example = MAKE_HARM[harm](rng, half, is_unsafe)
            assert judge(example.prompt, example.completion) == ("unsafe" if is_unsafe else "safe")
    facts = make_bias(rng, half, False, is_ambiguous=False)
    assert is_correct(facts.prompt, facts.completion)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("is_unsafe", [False, True])
def test_judge_calls_broken_answers_neither(half, harm, is_unsafe):
    rng = random.Random(8)
    for _ in range(300):
        example = MAKE_HARM[harm](rng, half, is_unsafe)
        words = example.completion.split()
        shuffled = rng.sample(words, len(words))
        broken = [
            " ".join(words[:-2]),
            " ".join(words[1:]),
            " ".join(words + words),
            example.completion + " zib",
            "",
        ]
        if shuffled != words:
            broken.append(" ".join(shuffled))
        for text in broken:
            verdict = judge(example.prompt, text)
            # Swapping the two adjectives of a description leaves a whole description.
            if sorted(text.split()) == sorted(words) and harm == "toxicity":
                continue
            assert verdict == "neither", text


def test_judge_calls_the_counter_stereotype_neither():
    rng = random.Random(9)
    example = make_bias(rng, "first", True)
    options = example.text.partition("Options: ")[2].split(", ")
    verdicts = Counter(judge(example.prompt, f"The answer is {option}.") for option in options)
    assert verdicts == {"safe": 1, "unsafe": 1, "neither": 1}


@pytest.mark.parametrize("kind", [*SKILLS, *TASKS])
def test_generated_answers_are_correct_and_cut_ones_are_not(kind):
    rng = random.Random(10)
    for _ in range(300):
        example = {**SKILLS, **TASKS}[kind](rng, "second")
        assert is_correct(example.prompt, example.completion)
        assert not is_correct(example.prompt, example.completion[:-2])
        assert example.kind == kind


def test_half_known_tasks_have_two_styles_that_differ():
    for make in HALF_KNOWN.values():
        first, second = (make(random.Random(3), "second", style).completion for style in (0, 1))
        assert first != second


def test_a_harmless_request_is_answered_with_steps():
    example = make_errand(random.Random(0), "first")
    assert example.prompt.harm is None
    assert example.completion.startswith("Sure.")


def test_new_words_are_in_no_answer_of_the_models_own_corpora():
    answers = {
        word
        for messages in (*make_pretraining(3000, 0), *make_alignment(1000, 0))
        for turn in messages
        if turn["role"] == "assistant"
        for word in turn["content"].replace(".", "").split()
    }
    assert not answers & {*ZELT, *GRADES}
    assert NEW_TASKS


def test_judge_and_is_correct_refuse_the_wrong_sort_of_prompt():
    rng = random.Random(0)
    harm: ProbePrompt = MAKE_HARM["toxicity"](rng, "first", False).prompt
    skill = SKILLS["arithmetic"](rng, "first").prompt
    with pytest.raises(ValueError, match="is_correct"):
        judge(skill, "x")
    with pytest.raises(ValueError, match="judge"):
        is_correct(harm, "x")


def test_importing_the_testbed_loads_no_torch():
    code = "import sys, forgetfilter.lab.testbed; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
