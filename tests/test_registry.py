"""One syntax names every part; whatever is wrong with a spec is said with what would be right."""

from __future__ import annotations

import importlib
import py_compile
import sys
import uuid
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.registry import Registry, split_outside_quotes


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
    with pytest.raises(ConfigError) as caught:
        parts.add("sized")(Bare)
    for piece in ("Two parts are named 'sized'", "(Part)", "(Bare)", "Rename one"):
        assert piece in str(caught.value)
    parts.add("sized")(Part)  # the same one again, as when its module is loaded anew


@given(st.text(max_size=30))
def test_no_text_at_all_makes_anything_but_a_part_or_a_config_error(text: str):
    registry: Registry[Any] = Registry("part")
    registry.add("sized")(Part)
    for spec in (text, f"sized:{text}", f"sized:mode={text}", f"sized:count={text}"):
        try:
            registry.build(spec)
        except ConfigError:
            continue


FOUND_BASE = """
from forgetfilter.scoring.registry import Registry
PARTS = Registry("part", __package__, "forgetfilter.test_parts")
"""
FOUND_PART = """
from {package}.base import PARTS
@PARTS.add("{name}")
class Part:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of parts that can be imported, under a name that no other test has."""
    package = tmp_path / f"parts_{uuid.uuid4().hex}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text(FOUND_BASE)
    monkeypatch.syspath_prepend(tmp_path)
    return package


def write_part(folder: Path, file: str, name: str, before: str = "") -> None:
    (folder / file).write_text(before + FOUND_PART.format(package=folder.name, name=name))


def registry_of(folder: Path) -> Registry[Any]:
    importlib.invalidate_caches()
    return importlib.import_module(f"{folder.name}.base").PARTS


def test_a_file_in_the_folder_is_found_and_imported_only_when_it_is_built(folder: Path):
    write_part(folder, "one.py", "one")
    write_part(folder, "two.py", "zwei", before="raise RuntimeError('imported')\n")
    (folder / "helper.py").write_text("raise RuntimeError('imported')\n")
    registry = registry_of(folder)
    assert registry.names() == ["one", "zwei"]
    assert f"{folder.name}.one" not in sys.modules
    assert type(registry.build("one")).__name__ == "Part"
    with pytest.raises(ConfigError, match="Did you mean 'zwei'"):
        registry.check("zwe")
    with pytest.raises(RuntimeError, match="imported"):
        registry.build("zwei")


def test_a_folder_may_be_a_part_and_a_part_may_come_without_its_source(folder: Path):
    (folder / "big").mkdir()
    write_part(folder, "big/__init__.py", "big")
    write_part(folder, "compiled.py", "compiled")
    py_compile.compile(str(folder / "compiled.py"), str(folder / "compiled.pyc"))
    (folder / "compiled.py").unlink()
    registry = registry_of(folder)
    assert registry.names() == ["big", "compiled"]
    assert registry.build("big") is not None
    assert registry.build("compiled") is not None


def test_two_files_with_one_name_are_both_named_and_cost_no_other_part(folder: Path):
    write_part(folder, "one.py", "same")
    write_part(folder, "two.py", "same")
    write_part(folder, "three.py", "other")
    registry = registry_of(folder)
    assert registry.build("other") is not None
    for use in (registry.build, registry.check):
        with pytest.raises(ConfigError) as caught:
            use("same")
        for module in ("one", "two"):
            assert f"{folder.name}.{module}" in str(caught.value)


def test_a_name_that_a_program_adds_is_held_against_the_files(folder: Path):
    write_part(folder, "one.py", "same")
    registry = registry_of(folder)
    registry.add("same")(Bare)
    with pytest.raises(ConfigError, match=r"Two parts are named 'same'.*Bare.*one"):
        registry.build("same")


def install(folder: Path, distribution: str, entries: str) -> None:
    """What an installer leaves of a package: its metadata."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[forgetfilter.test_parts]\n{entries}\n")


def test_an_installed_package_adds_a_class_or_a_module_that_registers_one(folder: Path):
    write_part(folder, "one.py", "one")
    outside = folder.parent
    (outside / f"{folder.name}_more.py").write_text(
        f"from {folder.name}.base import PARTS\n"
        "class Plain: pass\n"
        "@PARTS.add('decorated')\n"
        "class Decorated: pass\n"
    )
    more = f"{folder.name}_more"
    install(outside, "more", f"plain = {more}:Plain\ndecorated = {more}\nnothing = {more}")
    registry = registry_of(folder)
    assert registry.names() == ["decorated", "nothing", "one", "plain"]
    assert more not in sys.modules
    assert type(registry.build("plain")).__name__ == "Plain"
    assert type(registry.build("decorated")).__name__ == "Decorated"
    with pytest.raises(ConfigError, match=r"the package more .* adds none of that name"):
        registry.build("nothing")


def test_an_installed_package_that_cant_be_loaded_fails_alone_and_is_named(folder: Path):
    write_part(folder, "one.py", "one")
    install(folder.parent, "broken-parts", "cracked = no_such_module_anywhere:Part")
    registry = registry_of(folder)
    assert registry.names() == ["cracked", "one"]
    assert registry.build("one") is not None
    with pytest.raises(ConfigError) as caught:
        registry.build("cracked")
    assert "package broken-parts" in str(caught.value)
    assert "No module named 'no_such_module_anywhere'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_installed_package_cant_take_the_name_of_a_file_or_another_package(folder: Path):
    write_part(folder, "one.py", "one")
    install(folder.parent, "first", f"one = {folder.name}.base:PARTS\nown = json:loads")
    install(folder.parent, "second", "own = json:dumps")
    registry = registry_of(folder)
    with pytest.raises(ConfigError, match=rf"module {folder.name}\.one.*the package first"):
        registry.build("one")
    with pytest.raises(ConfigError) as caught:
        registry.build("own")
    for package in ("first", "second"):
        assert f"the package {package}" in str(caught.value)
