"""Imports point down only: a module imports from lower floors, or from above it on its own."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "forgetfilter"

# Patterns of module names below `forgetfilter`, lowest floor first; within a floor a module may
# import from those listed before it, and modules of one pattern from each other.
FLOORS: list[list[str]] = [
    # words: import nothing of ours but each other
    ["errors", "finite", "records", "discovery", "registry", "progress", "text", "files", "places"],
    # settings and pure maths
    ["config", "signals*", "thresholds*", "metrics*"],
    # the outside world
    ["provenance", "stages", "changes", "store", "pending", "data*", "safe*", "testbed*", "mix*"],
    # working a model
    [
        "encoding",
        "strata",
        "modeling",
        "adapters",
        "scorers*",
        "measuring",
        "stopping",
        "ordering",
        "training",
        "trained",
        "loaded",
        "divergence",
        "grouping",
        "rates",
        "restoring",
        "workbench",
    ],
    # strategies
    ["strategies*"],
    # stories
    [
        "showing",
        "display",
        "charts",
        "run_files",
        "report",
        "coverage_verdict",
        "decision",
        "stage_gc",
        "evidence",
        "coverage_cost",
        "coverage",
        "suspects",
        "safe_check",
        "safe_check_text",
        "screen",
        "adapter_folder",
        "finetune",
        "testbed.evaluate",
        "testbed.pretraining",
        "testbed.build",
        "testbed.real_corpus",
        "testbed.real_build",
        "demo",
        "studies.datasets*",
        "studies.cells",
        "studies.results",
        "studies.tables",
        "studies.plots",
        "studies.settings",
        "studies.page",
        "studies.boundaries",
        "studies.workers",
        "studies.grid",
        "studies.working",
        "studies.compare",
        "studies.interleave",
        "studies.points",
        "studies.course",
        "studies.curve_tables",
        "studies.kept",
        "studies.curves",
        "studies",
    ],
    # doors
    ["api", "cli*", "__init__", "__main__"],
]
# torch and what stands on it may be imported at a module's top only from this floor up.
MODEL_FLOOR = 3
HEAVY = frozenset({"torch", "transformers", "trl", "peft", "accelerate"})
# Names that the package's top offers and that lie on no floor above the asker.
ALLOWED_FROM_TOP = frozenset({"__version__"})


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def place_of(module: str) -> tuple[int, int] | None:
    """Floor and place on it; an exact name goes before a pattern."""
    places = [(f, p, pattern) for f, floor in enumerate(FLOORS) for p, pattern in enumerate(floor)]
    for f, p, pattern in places:
        if pattern == module:
            return f, p
    for f, p, pattern in places:
        if fnmatch(module, pattern) and (module + ".").startswith(pattern.rstrip("*") + "."):
            return f, p
    return None


def imports_of(path: Path, *, only_top: bool = False) -> list[tuple[str, str]]:
    """``(module, name)`` of each import that runs; ``name`` is empty for ``import module``."""
    found: list[tuple[str, str]] = []

    def visit(node: ast.AST, is_top: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child, is_top)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            is_top = False
        if isinstance(node, ast.Import) and (is_top or not only_top):
            found.extend((alias.name, "") for alias in node.names)
        if isinstance(node, ast.ImportFrom) and (is_top or not only_top):
            base = node.module or ""
            if node.level:
                package = ["forgetfilter", *path.relative_to(PACKAGE).parent.parts]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, base] if base else package)
            found.extend((base, alias.name) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, is_top)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def ours_imported_by(path: Path) -> set[str]:
    """Modules of the package that ``path`` imports, by their names below it."""
    targets: set[str] = set()
    for module, name in imports_of(path):
        if module == "forgetfilter" and name in ALLOWED_FROM_TOP:
            continue
        if module != "forgetfilter" and not module.startswith("forgetfilter."):
            continue
        below = module.removeprefix("forgetfilter").removeprefix(".")
        inner = f"{below}.{name}".removeprefix(".")
        targets.add(inner if name and inner in MODULES else below or "__init__")
    return targets


def test_every_module_stands_on_a_floor():
    assert [module for module in MODULES if place_of(module) is None] == []


def test_every_listed_name_is_a_module():
    names = [pattern for floor in FLOORS for pattern in floor]
    unused = [n for n in names if not any(fnmatch(module, n) for module in MODULES)]
    assert unused == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module: str):
    mine = place_of(module)
    assert mine is not None
    wrong = [
        target
        for target in sorted(ours_imported_by(MODULES[module]))
        if (theirs := place_of(target)) is None
        or theirs > mine
        or (theirs == mine and target == module)
    ]
    assert wrong == [], f"{module} imports {wrong} from above it"


@pytest.mark.parametrize("module", MODULES)
def test_the_training_stack_is_imported_at_the_top_only_where_models_are_worked(module: str):
    place = place_of(module)
    assert place is not None
    heavy = {name.partition(".")[0] for name, _ in imports_of(MODULES[module], only_top=True)}
    if place[0] < MODEL_FLOOR or module in {"cli", "__init__", "__main__"}:
        assert not heavy & HEAVY


def test_only_the_training_module_imports_trl():
    users = [
        module
        for module, path in MODULES.items()
        if any(name.partition(".")[0] == "trl" for name, _ in imports_of(path))
    ]
    assert users == ["training"]


def test_no_import_runs_in_a_circle():
    graph = {module: ours_imported_by(path) & MODULES.keys() for module, path in MODULES.items()}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for target in sorted(graph[module]):
                # A package's own parts import its base through the package's folder name.
                walk(target, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())
