"""The site of the documents: its links are those of the repository, and it loads nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_has_a_place_in_the_navigation(hooks: ModuleType):
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = hooks.on_config(Config(nav=yaml.safe_load(text)["nav"])).nav
    named = set(re.findall(r"[\w/-]+\.md", str(nav)))
    own = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == own | {"index.md", "contributing.md", "changelog.md"}


class Config:
    def __init__(self, **settings: Any) -> None:
        self.__dict__.update(settings)


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("README.md", "[a](docs/review.md) [b](#limits)", "[a](review.md) [b](#limits)"),
        ("README.md", "![a](docs/report.png)", "![a](report.png)"),
        ("README.md", "[a](docs/lab/mix.md#x)", "[a](lab/mix.md#x)"),
        ("docs/lab/mix.md", "[a](../../README.md#limits)", "[a](../index.md#limits)"),
        ("docs/review.md", "[a](../tests/warm.py)", "[a](source/tests/warm.py.md)"),
        ("docs/review.md", "[a](../examples/paper)", "[a](source/examples/paper.md)"),
        ("CONTRIBUTING.md", "[a](CHANGELOG.md)", "[a](changelog.md)"),
        ("README.md", "[a](https://example.org/docs/review.md)", None),
        ("README.md", "`[a](docs/review.md)`", None),
        ("README.md", "```\n[a](docs/review.md)\n```\n", None),
        ("README.md", "[a](docs/nothing.md)", None),  # left as it is, so that the build names it
    ],
)
def test_links_lead_to_the_same_in_the_repository_and_on_the_site(
    hooks: ModuleType, source: str, text: str, expected: str | None
):
    assert hooks.relinked(text, source) == (text if expected is None else expected)


@pytest.mark.parametrize(
    "source", ["README.md", "docs/review.md", "tests/warm.py", "examples/paper"]
)
def test_a_page_of_the_site_knows_which_file_it_is_of(hooks: ModuleType, source: str):
    assert hooks.repository_place(hooks.site_place(source)) == source


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://example.org/a.js"></script>',
        "<img alt='' src='//example.org/a.png'>",
        '<link rel="stylesheet" href="https://fonts.example.org/css">',
        "@import url(https://example.org/a.css);",
        "a { background: url(https://example.org/a.png) }",
    ],
)
def test_what_loads_from_elsewhere_is_found(hooks: ModuleType, page: str):
    assert hooks.foreign(page) is not None


@pytest.mark.parametrize(
    "page",
    [
        '<a href="https://arxiv.org/abs/2312.12736">paper</a>',
        '<script src="assets/a.js"></script><img src="data:image/png;base64,AA==">',
        '<link rel="canonical" href="https://example.org/">',
    ],
)
def test_links_and_own_files_are_not(hooks: ModuleType, page: str):
    assert hooks.foreign(page) is None
