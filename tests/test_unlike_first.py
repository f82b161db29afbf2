"""Rows to read first: high scores, and each unlike those before it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.scoring.unlike_first import unlike_first


def groups_of(kinds: list[int]) -> np.ndarray:
    """Each row's four neighbours: the next ones of its kind, in a ring."""
    found = np.zeros((len(kinds), 4), dtype=np.int64)
    for kind in set(kinds):
        own = np.flatnonzero(np.array(kinds) == kind)
        for at, place in enumerate(own):
            found[place] = own[(at + np.arange(1, 5)) % len(own)]
    return found


def test_every_kind_comes_up_before_any_comes_again():
    """Three kinds of five rows; one of them has all of the highest scores."""
    kinds = [0] * 5 + [1] * 5 + [2] * 5
    scores = np.arange(15.0)[::-1]
    order = unlike_first(scores, groups_of(kinds))
    assert [kinds[place] for place in order] == [0, 1, 2] * 5
    assert order[:3].tolist() == [0, 5, 10]  # the highest of each


def test_rows_like_no_other_are_in_the_order_of_their_scores():
    scores = np.array([0.3, 0.1, 0.9, 0.5])
    alone = np.repeat(np.arange(4)[:, None], 4, axis=1)  # a row that has no others is its own
    assert unlike_first(scores, alone).tolist() == [2, 3, 0, 1]


def test_after_as_many_as_anybody_reads_rows_follow_by_score():
    kinds = [0] * 5 + [1] * 5
    scores = np.arange(10.0)[::-1]
    assert unlike_first(scores, groups_of(kinds), most=2).tolist() == [0, 5, 1, 2, 3, 4, 6, 7, 8, 9]
    assert unlike_first(scores, groups_of(kinds), most=0).tolist() == list(range(10))


@given(
    st.integers(1, 40).flatmap(
        lambda size: st.tuples(
            st.lists(st.floats(-5, 5), min_size=size, max_size=size),
            st.lists(
                st.lists(st.integers(0, size - 1), min_size=4, max_size=4),
                min_size=size,
                max_size=size,
            ),
        )
    )
)
def test_all_rows_come_once_the_highest_first(made: tuple[list[float], list[list[int]]]):
    scores, near = np.array(made[0]), np.array(made[1])
    order = unlike_first(scores, near, most=5)
    assert sorted(order.tolist()) == list(range(len(scores)))
    assert scores[order[0]] == scores.max()
    assert (np.diff(scores[order[5:]]) <= 0).all()


def test_a_row_of_a_large_file_stands_for_more_than_its_own_neighbours():
    """Two kinds of 480 rows, in rings: next to each other in a ring, but no row is like all."""
    kinds = [0] * 480 + [1] * 480
    scores = np.arange(960.0)[::-1]
    order = unlike_first(scores, groups_of(kinds))
    apart = np.diff(sorted(place for place in order[:40].tolist() if kinds[place] == 0))
    assert apart.min() >= 20  # a forty-eighth of 960
    assert {kinds[place] for place in order[:40]} == {0, 1}


def test_an_empty_file_has_no_rows():
    assert len(unlike_first(np.zeros(0), np.zeros((0, 4), dtype=np.int64))) == 0
