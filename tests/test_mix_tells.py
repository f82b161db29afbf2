"""What can be told of a label without a model: found where it is, and not where it isn't."""

from __future__ import annotations

import random

import pytest

from forgetfilter.errors import DataError
from forgetfilter.lab.mix.offers import Offer
from forgetfilter.lab.mix.tells import tells

WORDS = [f"word{n}" for n in range(14)]


def offers(seed: int, tell: str, count: int = 160) -> list[Offer]:
    """Rows of random words, two a group; ``tell`` says where their label shows."""
    rng = random.Random(seed)
    rows: list[Offer] = []
    for at in range(count):
        is_unsafe = at % 2 == 0
        prompt, answer = (rng.choices(WORDS, k=8) for _ in range(2))
        if is_unsafe and tell == "prompt":
            prompt[3] = "bomb"
        if is_unsafe and tell == "length":
            answer += rng.choices(WORDS, k=8)
        rows.append(
            Offer(
                kind="harmfulness",
                prompt=" ".join(prompt),
                response=" ".join(answer),
                is_unsafe=is_unsafe,
                roles=frozenset(("unsafe",)),
                group=f"{seed} {at // 2}",
                source="s",
                source_id=str(at),
                meta={},
            )
        )
    return rows


@pytest.mark.parametrize(
    ("tell", "reading"),
    [
        ("prompt", "words of the prompt, naive Bayes"),
        ("prompt", "words of the prompt, logistic"),
        ("length", "words in the answer, counted"),
    ],
)
def test_a_tell_is_found_in_what_has_it_and_in_nothing_else(tell: str, reading: str):
    found = {one.reading: one for one in tells(offers(1, tell), offers(2, tell))}
    assert found[reading].auroc.value > 0.98
    assert found[reading].unsafe_right > 0.85
    assert found[reading].harmless_right > 0.85
    assert found["all of these, logistic"].auroc.value > 0.98
    assert (found[reading].unsafe, found[reading].harmless) == (80, 80)
    other = "answer" if tell == "prompt" else "prompt"
    for name, one in found.items():
        if other in name:
            assert 0.3 < one.auroc.value < 0.7, name
            assert one.auroc.low <= 0.5 <= one.auroc.high, name


def test_intervals_are_of_groups_and_not_of_rows():
    few = [row for row in offers(2, "none") for _ in range(5)]
    repeated = {one.reading: one.auroc for one in tells(offers(1, "none"), few)}
    plain = {one.reading: one.auroc for one in tells(offers(1, "none"), offers(2, "none"))}
    for name, auroc in plain.items():
        # The same rows five times say no more than once.
        width = auroc.high - auroc.low
        assert repeated[name].high - repeated[name].low == pytest.approx(width, rel=0.2), name


def test_rows_of_one_label_are_refused():
    rows = offers(1, "none")
    safe = [row for row in rows if not row.is_unsafe]
    with pytest.raises(DataError, match="80 rows to judge have one label"):
        tells(rows, safe)
