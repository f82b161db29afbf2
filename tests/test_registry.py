"""One syntax names every part; whatever is wrong with a spec is said with what would be right."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.errors import ConfigError
from forgetfilter.registry import Registry, split_outside_quotes


class Part:
    def __init__(
        self,
        value: float = 0.5,
        mode: Literal["fast", "exact"] = "fast",
        count: int | None = None,
        is_loud: bool = False,
    ) -> None:
        self.options = {"value": value, "mode": mode, "count": count, "is_loud": is_loud}


class Bare:
    """A part without options."""


class Worded:
    def __init__(self, text: str = "", count: int = 0) -> None:
        self.options = (text, count)


@pytest.fixture
def parts() -> Registry[Any]:
    registry: Registry[Any] = Registry("part")
    registry.add("sized")(Part)
    registry.add("bare")(Bare)
    return registry


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        ("sized", {}),
        (" sized ", {}),
        ("sized:", {}),
        ("sized:0.25", {"value": 0.25}),
        ("sized:2e-4", {"value": 2e-4}),
        ("sized:value=1", {"value": 1.0}),
        ("sized:1,mode=exact", {"value": 1.0, "mode": "exact"}),
        ("sized: 1 , mode = exact , count = 3", {"value": 1.0, "mode": "exact", "count": 3}),
        ("sized:is_loud=True", {"is_loud": True}),
    ],
)
def test_a_spec_builds_its_part_with_typed_options(
    parts: Registry[Any], spec: str, changed: dict[str, Any]
):
    default = {"value": 0.5, "mode": "fast", "count": None, "is_loud": False}
    assert parts.build(spec).options == default | changed


@pytest.mark.parametrize(
    ("value", "text"),
    [('"a, b"', "a, b"), ('"a"', "a"), ("a=b", "a=b"), ('"', '"'), ('say "no"', 'say "no"')],
)
def test_a_text_in_double_quotes_may_hold_commas(value: str, text: str):
    registry: Registry[Any] = Registry("part")
    registry.add("worded")(Worded)
    spec = f"worded:text={value},count=3" if value.count('"') != 1 else f"worded:text={value}"
    assert registry.build(spec).options == (text, 3 if "count" in spec else 0)


def test_a_mark_between_quotes_parts_nothing():
    assert split_outside_quotes('a:x="1+2"+b', "+") == ['a:x="1+2"', "b"]
    assert split_outside_quotes("", "+") == [""]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("sizd", ["Unknown part 'sizd'", "Did you mean 'sized'?", "Available: bare, sized"]),
        ("zzz", ["Unknown part 'zzz'", "Available: bare, sized"]),
        ("", ["Unknown part ''", "Available: bare, sized"]),
        ("sized:abc", ["value is 'abc'", "expected a number", "for example sized:value=1"]),
        ("sized:1,exact", ["was given 'exact'", "expected key=value", "Options: value, mode"]),
        ("sized:vaule=1", ["no option 'vaule'", "Options: value, mode, count, is_loud"]),
        ("sized:mode=slow", ["mode is 'slow'", "expected one of fast, exact"]),
        ("sized:is_loud=1", ["is_loud is '1'", "expected true or false"]),
        ("sized:count=1.5", ["count is '1.5'", "expected a number"]),
        ("bare:1", ["was given '1'", "Options: none"]),
        ("bare:a=1", ["no option 'a'", "Options: none"]),
    ],
)
def test_a_wrong_spec_is_answered_with_what_is_expected(
    parts: Registry[Any], spec: str, said: list[str]
):
    with pytest.raises(ConfigError) as caught:
        parts.build(spec)
    for piece in said:
        assert piece in str(caught.value)


def test_an_option_given_twice_is_refused(parts: Registry[Any]):
    with pytest.raises(ConfigError, match="value"):
        parts.build("sized:1,value=2")


def test_a_name_can_be_taken_only_once(parts: Registry[Any]):
    with pytest.raises(ValueError, match="'sized' is registered already"):
        parts.add("sized")


@given(st.text(max_size=30))
def test_no_text_at_all_makes_anything_but_a_part_or_a_config_error(text: str):
    registry: Registry[Any] = Registry("part")
    registry.add("sized")(Part)
    for spec in (text, f"sized:{text}", f"sized:mode={text}", f"sized:count={text}"):
        try:
            registry.build(spec)
        except ConfigError:
            continue
