"""SQuAD, ROUGE-1, closed answers and numbers: by hand, by another route, on real rows."""

from __future__ import annotations

import math
import random
import string
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import real_rows
from forgetfilter.errors import DataError
from forgetfilter.lab.metrics import (
    closed_accuracy,
    exact_match,
    final_number,
    number_accuracy,
    rouge1,
    squad,
    token_f1,
)

# Words that the normalisations treat specially, and a few that they don't.
WORDS = (
    *("the", "The", "a", "an", "AN", "cat", "cats", "Cat.", "cat,", "sat", "sitting", "sits"),
    *("theory", "a.", "(the", "don't", "U.S.", "1,000", "naïve", "--", "!", "running", "runs"),
    *("co-operate", "été", "snake_case", "x"),
)


def random_text(rng: random.Random) -> str:
    return rng.choice([" ", "  ", "\n"]).join(rng.choices(WORDS, k=rng.randint(0, 8)))


def test_squad_of_a_small_set_worked_by_hand():
    em, f1 = squad(
        ["The Denver Broncos!", "in Santa Clara, California", "42"],
        [["Denver Broncos", "Broncos"], ["Santa Clara", "Levi's Stadium"], ["forty-two"]],
    )
    # 1: "denver broncos" equals the first gold. 2: 4 tokens, 2 gold, 2 shared: P 1/2, R 1, F1 2/3.
    # 3: nothing shared.
    assert em.value == pytest.approx(1 / 3)
    assert f1.value == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert (em.direction, f1.direction) == ("higher", "higher")
    assert (em.n, f1.n) == (3, 3)
    assert f1.unit == "F1, 0..1"


def test_tokens_count_as_often_as_they_stand_in_both():
    # Multisets: "b b c" and "b c c" share one b and one c: P = R = 2/3. As sets it would be 1.
    assert token_f1("b b c", ["b c c"]) == pytest.approx(2 / 3)


def test_punctuation_goes_before_articles_and_leaves_no_space():
    assert exact_match("a-b", ["ab"]) == 1
    assert exact_match("the.", [""]) == 1  # "the." becomes "the", which is then an article
    assert exact_match("theory", ["ory"]) == 0


def test_questions_without_an_answer_want_an_empty_one():
    assert (exact_match("", []), token_f1("", [])) == (1, 1)
    assert (exact_match("yes", []), token_f1("yes", [])) == (0, 0)
    assert (exact_match("The", [""]), token_f1("The", [""])) == (1, 1)
    # A gold answer that normalises to nothing is passed over where there is another.
    assert (exact_match("", ["the", "cat"]), token_f1("", ["the", "cat"])) == (0, 0)


def independent_squad(prediction: str, golds: list[str]) -> tuple[bool, Fraction]:
    """EM and F1 by another route: letters one by one, tokens crossed off a list, fractions."""

    def tokens(text: str) -> list[str]:
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        words: list[str] = []
        run = ""
        # An article is one between word boundaries, which may stand inside what spaces part.
        for c in [*kept, " "]:
            if c.isalnum() or c == "_":
                run += c
                continue
            words.append(" " if run in ("a", "an", "the") else run)
            words.append(c)
            run = ""
        return "".join(words).split()

    said = tokens(prediction)
    choices = [t for t in map(tokens, golds) if t] or [[]]
    best = Fraction(0)
    for gold in choices:
        left, shared = list(gold), 0
        for token in said:
            if token in left:
                left.remove(token)
                shared += 1
        if not said and not gold:
            best = Fraction(1)
        elif shared:
            precision, recall = Fraction(shared, len(said)), Fraction(shared, len(gold))
            best = max(best, 2 * precision * recall / (precision + recall))
    return said in choices, best


def test_squad_agrees_with_an_independent_implementation_on_1000_random_cases():
    rng = random.Random(1)
    partial = 0
    for _ in range(1000):
        prediction = random_text(rng)
        golds = [random_text(rng) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.2:
            golds.append(prediction.upper())
        matches, f1 = independent_squad(prediction, golds)
        assert exact_match(prediction, golds) == matches
        assert token_f1(prediction, golds) == pytest.approx(float(f1), abs=1e-12)
        partial += 0 < f1 < 1
    assert partial > 300  # the cases are not all trivial


def test_rouge1_of_a_small_set_worked_by_hand():
    # Stems: "the cat sat run" and "the cat run": 3 shared, P = 3/4, R = 3/3, F = 6/7.
    value = rouge1(["The cats sat, running", "dogs"], ["the cat runs", "birds"])
    assert value.value == pytest.approx((6 / 7 + 0) / 2)
    assert (value.n, value.direction) == (2, "higher")


def independent_rouge1(prediction: str, reference: str) -> Fraction:
    """ROUGE-1 F by another route: ASCII runs read letter by letter, sorted lists merged."""
    from nltk.stem.porter import PorterStemmer

    def stems(text: str) -> list[str]:
        runs = [""]
        for c in text.lower():
            runs = (
                [*runs[:-1], runs[-1] + c]
                if c in "abcdefghijklmnopqrstuvwxyz0123456789"
                else [
                    *runs,
                    "",
                ]
            )
        return sorted(PorterStemmer().stem(run) if len(run) > 3 else run for run in runs if run)

    said, gold = stems(prediction), stems(reference)
    i = j = shared = 0
    while i < len(said) and j < len(gold):
        if said[i] == gold[j]:
            i, j, shared = i + 1, j + 1, shared + 1
        elif said[i] < gold[j]:
            i += 1
        else:
            j += 1
    return Fraction(2 * shared, len(said) + len(gold)) if shared else Fraction(0)


def test_rouge1_agrees_with_an_independent_implementation_on_1000_random_cases():
    rng = random.Random(2)
    pairs = [(random_text(rng), random_text(rng)) for _ in range(1000)]
    from forgetfilter.scoring.signals.rouge1 import rouge1_f

    ours = rouge1_f([said for said, _ in pairs], [gold for _, gold in pairs])
    theirs = [float(independent_rouge1(said, gold)) for said, gold in pairs]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-12)
    value = rouge1([said for said, _ in pairs], [gold for _, gold in pairs])
    assert value.value == pytest.approx(math.fsum(theirs) / 1000)


def test_closed_answers_are_read_from_their_first_line_and_normalised():
    said = ["Positive.", "\nthe negative\nSentence: ...", "positive or negative", ""]
    value = closed_accuracy(said, ["positive", "negative", "positive", "negative"])
    assert value.value == pytest.approx(2 / 4)
    assert value.direction == "higher"
    assert closed_accuracy(["sci/tech"], ["Sci/Tech"]).value == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48/2 = <<48/2=24>>24 clips.\n#### 72", "72"),
        ("#### $1,234.50", "1234.5"),
        ("#### -3 degrees", "-3"),
        ("#### 5\n#### 6", "5"),
        ("She has 3 apples and 4 pears, so 7.", "7"),
        ("from 3-4", "4"),
        (".5 of it", "0.5"),
        ("####\n8", None),
        ("none at all", None),
        ("", None),
    ],
)
def test_the_final_number_is_what_follows_the_mark_else_the_last(text: str, number: str | None):
    found = final_number(text)
    assert (found is None) == (number is None)
    assert found is None or found == Fraction(number or 0)


def test_numbers_match_by_value():
    value = number_accuracy(["#### 18.00", "It costs $1,000", "#### 7", "?"], ["18", "1000"] * 2)
    assert value.value == pytest.approx(2 / 4)
    with pytest.raises(DataError, match=r"Label 0 holds no number.*Use closed_accuracy"):
        number_accuracy(["5"], ["five"])


def test_unequal_lengths_are_refused():
    for call in (
        lambda: squad(["a"], []),
        lambda: rouge1(["a"], []),
        lambda: closed_accuracy(["a"], []),
        lambda: number_accuracy(["1"], []),
    ):
        with pytest.raises(DataError, match="1 predictions for 0 gold answers; expected one"):
            call()


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=3))
def test_any_text_scores_between_0_and_1_and_an_exact_match_has_full_f1(
    prediction: str, golds: list[str]
):
    em, f1 = exact_match(prediction, golds), token_f1(prediction, golds)
    assert em in (0, 1)
    assert 0 <= f1 <= 1
    assert em <= f1 + 1e-12
    final_number(prediction)


def test_real_gold_answers_are_right_and_others_are_not():
    rows = real_rows("task_squad.jsonl.gz", 300)
    golds = [row["response"] for row in rows]
    em, f1 = squad(golds, [[gold] for gold in golds])
    assert (em.value, f1.value) == (1, 1)
    em, f1 = squad(golds[1:] + golds[:1], [[gold] for gold in golds])
    assert em.value < 0.05
    assert em.value < f1.value < 0.2
    sums = real_rows("task_gsm8k.jsonl.gz", 300)
    labels = [row["meta"]["final_answer"] for row in sums]
    assert number_accuracy([row["response"] for row in sums], labels).value == 1
    # Without the mark the last number of a worked answer is nearly always the result.
    unmarked = [row["response"].partition("####")[0] for row in sums]
    assert number_accuracy(unmarked, labels).value > 0.9
    for name in ("task_sst2.jsonl.gz", "task_agnews.jsonl.gz"):
        said = [row["response"] for row in real_rows(name, 100)]
        assert closed_accuracy([f" {text}.\nNext:" for text in said], said).value == 1
