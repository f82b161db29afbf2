"""What every row format has to show; found by the folder that they are in."""

from __future__ import annotations

import pkgutil
from itertools import combinations

import pytest

from forgetfilter.data import formats as package
from forgetfilter.data.formats import UnreadableRow, formats, parse_messages

FORMATS = {each.name: each for each in formats()}


def test_every_file_of_the_folder_is_a_format():
    files = {found.name for found in pkgutil.iter_modules(package.__path__)} - {"base", "values"}
    assert {type(each).__module__.rpartition(".")[2] for each in formats()} == files
    assert len(FORMATS) == len(files) >= 3


def test_the_formats_say_in_which_order_they_are_tried():
    priorities = [each.priority for each in formats()]
    assert priorities == sorted(set(priorities))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_reads_its_example_and_nothing_less(name: str):
    each, example = FORMATS[name], dict(FORMATS[name].example)
    assert each.__doc__
    found = parse_messages(example)
    assert found == tuple(each.messages(example))
    assert (found[0].role, found[-1].role) == ("user", "assistant")
    assert [other.name for other in formats() if other.matches(example)] == [name]
    assert parse_messages({**example, "source": "web", "label": None}) == found
    for column in each.needs:
        rest = {key: value for key, value in example.items() if key != column}
        assert not each.matches(rest)
        with pytest.raises(UnreadableRow, match=f"expected one of .*{each.needs[0]}"):
            parse_messages({**rest, column: None})


@pytest.mark.parametrize(("first", "second"), combinations(FORMATS, 2))
def test_of_two_formats_the_first_reads_the_row(first: str, second: str):
    example = {**FORMATS[first].example, **FORMATS[second].example}
    assert parse_messages(example) == parse_messages(FORMATS[first].example)
