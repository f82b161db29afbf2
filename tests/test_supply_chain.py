"""What is installed is locked by version and hash, and of a licence that may be used."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILES = ("runtime", "torch-cuda", "torch-cpu", "build")
_BLOCK = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+))?"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
    re.MULTILINE,
)


def text_of(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def locked(name: str) -> list[re.Match[str]]:
    return list(_BLOCK.finditer(text_of(name)))


def needed() -> dict[str, str]:
    """Every distribution that the installed package needs here, by name with its version."""
    found: dict[str, str] = {}
    waiting = [(name, "") for name in dependencies()]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        distribution = metadata.distribution(name)
        found[canonicalize_name(name)] = distribution.version
        for text in distribution.requires or []:
            asked = Requirement(text)
            here = {**default_environment(), "extra": extra}
            if asked.marker is None or asked.marker.evaluate(here):
                waiting += [(asked.name, each) for each in ("", *asked.extras)]
    return found


def dependencies() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text[text.index("\ndependencies = [") : text.index("\n]", text.index("dependencies"))]
    return re.findall(r'"([A-Za-z0-9-]+)', listed)


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_with_hashes_and_names_no_index(name: str):
    text = text_of(name)
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(lines) == len(locked(name)) > 0
    assert "://" not in text
    assert "--index" not in text


def test_every_distribution_of_the_runtime_is_locked():
    """A package that is needed and isn't locked would be missing: nothing else brings it in."""
    own = {one["name"] for name in ("runtime", "torch-cpu") for one in locked(name)}
    assert len(needed()) > 40
    assert set(needed()) - own == set()


def test_what_is_tested_is_what_is_locked():
    versions: dict[str, set[str]] = {}
    for one in (one for name in FILES for one in locked(name)):
        versions.setdefault(one["name"], set()).add(one["version"].partition("+")[0])
    pinned = re.findall(
        r"^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    both = {name: version for name, version in pinned if canonicalize_name(name) in versions}
    assert len(both) > 20
    wrong = [name for name, own in both.items() if own not in versions[canonicalize_name(name)]]
    assert wrong == []


def test_make_installs_nothing_without_a_hash():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^LOCKED := .*--require-hashes --no-deps --no-build-isolation$", text, re.M)
    recipe = text[text.index("$(VENV)/.runtime:") :].partition("\n\n")[0]
    installs = [line for line in recipe.splitlines() if "install" in line or "LOCKED" in line]
    for line in installs:
        assert "$(LOCKED)" in line or "--no-deps --no-build-isolation --editable ." in line
    for name in FILES:
        assert f"requirements/{name}.txt" in recipe


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "tools" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_licence_of_the_runtime_is_allowed(licences: ModuleType):
    assert "torch" in licences.names()
    assert licences.findings() == []


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("MIT", True),
        ("Apache Software License", True),
        ("Apache-2.0 OR GPL-2.0-only", True),
        ("BSD-3-Clause AND MIT AND CC0-1.0", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-or-later", False),
        ("MIT AND AGPL-3.0-only", False),
        ("GNU Affero General Public License v3", False),
        ("MIT AND (GPL-2.0-only OR LGPL-2.1-only)", False),
        ("LicenseRef-Proprietary", False),
        ("Other/Proprietary License", False),
        ("", False),
    ],
)
def test_licences_are_told_apart(licences: ModuleType, expression: str, is_allowed: bool):
    assert licences.is_allowed(expression) == is_allowed


def test_a_licence_that_is_not_allowed_is_named(
    licences: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(licences, "ALLOWED", licences.ALLOWED - {"MPL-2.0"})
    assert licences.main() == 1
    assert "tqdm states 'MPL-2.0 AND MIT'" in capsys.readouterr().err
