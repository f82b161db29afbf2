"""The rooms of the house: imports point down, between rooms and within; and two nevers hold."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "forgetfilter"

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "arrays",
        "errors",
        "files",
        "finite",
        "pipes",
        "places",
        "progress",
        "settings",
        "text",
        "yaml_text",
    ),
    ("data", "scoring", "config"),
    ("runs",),
    ("model", "safe"),
    ("screening",),
    ("review",),
    ("api",),
    ("integrations",),
    ("lab",),
    ("cli", "lab.cli", "__main__", "__init__"),
)
"""Rooms from the ground up. A module imports from its own room or from a lower floor, never from a
neighbour on its own floor; modules on the ground may use each other."""

WITHIN: dict[str, tuple[tuple[str, ...], ...]] = {
    "data": (
        ("records",),
        ("formats", "strata"),
        ("containers",),
        ("many_rows",),
        ("sources",),
        ("reading", "trainers", "spreadsheets"),
        ("writing", "tokens"),
        ("validation",),
    ),
    "model": (
        ("state",),
        ("processes",),
        ("loading",),
        ("passes",),
        ("measuring",),
        ("training", "recorded"),
        ("team",),
        ("stages",),
        ("workbench",),
    ),
    "screening": (
        ("set_aside", "sampling"),
        ("method",),
        ("checks", "annotations"),
        ("deciding", "inputs"),
        ("planning", "again"),
        ("screen", "finetune"),
    ),
}
"""The same within a room of many parts: its folders and single files, from the ground up."""

HEAVY = frozenset({"torch", "transformers", "trl", "peft", "accelerate"})
"""What takes seconds to import: only the room `model` does so when it is itself imported."""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module: str, floors: tuple[tuple[str, ...], ...] = FLOORS) -> tuple[int, str]:
    """The floor and the room of a module; the longest name that fits decides."""
    fitting = [
        (len(room), floor, room)
        for floor, rooms in enumerate(floors)
        for room in rooms
        if module == room or module.startswith(room + ".")
    ]
    assert fitting, (
        f"{module} belongs to no room: give it a place in FLOORS (or WITHIN), or move it into one"
    )
    _, floor, room = max(fitting)
    return floor, room


def parts_of(room: str) -> list[str]:
    """The modules in a room, as they are called within it."""
    return [name.removeprefix(f"{room}.") for name in MODULES if name.startswith(f"{room}.")]


@cache
def imports_of(module: str, *, at_top_only: bool = False) -> tuple[str, ...]:
    """What a module imports, as full dotted names; imports for type checkers alone don't count."""

    def visit(node: ast.AST, is_top: bool) -> Iterator[str]:
        if isinstance(node, ast.expr):  # which no import stands in
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from from_names(module, node)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if inside and at_top_only:
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, is_top and not inside)

    return tuple(visit(ast.parse(MODULES[module].read_text(encoding="utf-8")), True))


def from_names(module: str, node: ast.ImportFrom) -> Iterator[str]:
    """``from a import b`` as ``a.b`` where that is a module of ours, else as ``a``."""
    origin = node.module or ""
    if node.level:
        own = ["forgetfilter", *module.split(".")]
        is_package = MODULES[module].name == "__init__.py"
        base = own[: len(own) - node.level + is_package]
        origin = ".".join([*base, *([node.module] if node.module else [])])
    for alias in node.names:
        full = f"{origin}.{alias.name}"
        yield full if full.removeprefix("forgetfilter.") in MODULES else origin


def ours(names: Iterable[str]) -> set[str]:
    found = {
        name.removeprefix("forgetfilter").removeprefix(".")
        for name in names
        if name == "forgetfilter" or name.startswith("forgetfilter.")
    }
    return {name or "__init__" for name in found}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str):
    floor, room = floor_of(module)
    for other in ours(imports_of(module)):
        if other == "__init__":  # the version, which the package's top alone knows
            continue
        below, there = floor_of(other)
        is_open = floor in (0, len(FLOORS) - 1) and below == floor
        is_fine = below < floor or there == room or is_open
        assert is_fine, f"{module} ({room}) imports {other} ({there}), which is not below it"


@pytest.mark.parametrize(("room", "part"), [(room, p) for room in WITHIN for p in parts_of(room)])
def test_imports_point_down_within_a_room(room: str, part: str):
    floor, folder = floor_of(part, WITHIN[room])
    for other in ours(imports_of(f"{room}.{part}")):
        if not other.startswith(f"{room}."):
            continue
        below, there = floor_of(other.removeprefix(f"{room}."), WITHIN[room])
        is_fine = below < floor or there == folder
        assert is_fine, f"{room}.{part} ({folder}) imports {other} ({there}), not below it"


@pytest.mark.parametrize("room", WITHIN)
def test_no_part_of_a_room_is_without_modules(room: str):
    used = {floor_of(part, WITHIN[room])[1] for part in parts_of(room)}
    assert used == {part for parts in WITHIN[room] for part in parts}


@pytest.mark.parametrize("module", MODULES)
def test_the_product_never_imports_the_lab(module: str):
    room = module.split(".")[0]
    if room == "lab":
        return
    # The command line does so inside the function that adds the lab's commands, when one is called.
    names = imports_of(module, at_top_only=room == "cli")
    used = sorted(name for name in ours(names) if name.split(".")[0] == "lab")
    assert used == [], f"{module} imports {used}"


@pytest.mark.parametrize("module", MODULES)
def test_only_the_model_room_imports_torch_at_the_top(module: str):
    if module.split(".")[0] == "model":
        return
    heavy = {name.split(".")[0] for name in imports_of(module, at_top_only=True)} & HEAVY
    assert not heavy, f"{module} imports {sorted(heavy)} when it is itself imported"


def test_no_module_is_without_a_room_and_no_room_without_a_module():
    used = {floor_of(module)[1] for module in MODULES}
    assert used == {room for rooms in FLOORS for room in rooms}


def test_no_file_of_the_product_is_above_four_hundred_lines():
    long = {
        name: lines
        for name, path in MODULES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def test_no_module_is_ignored_by_git():
    """What git ignores is left out of the package that is built."""
    root = PACKAGE.parent.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    names = [*(str(path.relative_to(root)) for path in MODULES.values()), "demo-run/x", "runs/x"]
    command = ["git", "-C", str(root), "check-ignore", "--no-index", *names]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["demo-run/x", "runs/x"]
