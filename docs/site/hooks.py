"""What mkdocs does beyond its own: one set of links for the repository and for the site.

Documents link to whatever the repository has, also outside of docs/. What they link to there
becomes a page of the site: Markdown as it stands, other texts as listings. So each link leads to
the same on both, no address of a repository is needed, and a link to nothing fails the build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of their own from outside docs/, by their place in the repository."""

_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^(`{3,}|~{3,}).*?^\2[ \t]*$|(?<!`)(`+)(?!`).+?(?<!`)\3(?!`))", re.M | re.S)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
_PARTS = ("src", "href", "data", "poster", "action")
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'self' 'unsafe-inline' "
    'file: data: blob:">'
)
_FOREIGN = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object|form)\b[^>]*\b"
    rf"(?:{'|'.join(_PARTS)})=[\"']?(?:https?:)?//[^>]*>|<link\b(?![^>]*\bcanonical)[^>]*"
    r"\bhref=[\"']?(?:https?:)?//[^>]*>|@import[^;]*//[^;]*;|url\([\"']?(?:https?:)?//[^)]*\)"
)


def on_config(config: Any) -> Any:
    """Replace each folder in the navigation by its pages."""
    config.nav = _expanded(config.nav)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, and whatever they and the others link to there."""
    from mkdocs.structure.files import File, InclusionLevel

    waiting = [*PAGES, *(DOCS + file.src_uri for file in files.documentation_pages())]
    known = set(waiting)
    while waiting:
        source = waiting.pop()
        if not source.startswith(DOCS):
            shown = InclusionLevel.INCLUDED if source in PAGES else InclusionLevel.NOT_IN_NAV
            place, text = site_place(source), _content(source)
            files.append(File.generated(config, place, content=text, inclusion=shown))
        for target in linked(_content(source), source):
            is_new = target not in known and (ROOT / target).exists()
            if is_new and not target.startswith(DOCS):
                known.add(target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between places of the repository into links between places of the site."""
    return relinked(markdown, repository_place(page.file.src_uri))


def on_post_page(output: str, **_: Any) -> str:
    """Forbid the page's scripts, those of the theme too, to load anything from elsewhere."""
    return output.replace("<head>", f"<head>\n{_POLICY}", 1)


def on_post_build(config: Any) -> None:
    """Refuse a site that would load anything from elsewhere."""
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*")):
        found = path.suffix in (".html", ".css") and foreign(path.read_text(encoding="utf-8"))
        if found:
            raise PluginError(
                f"{path.name} loads something from elsewhere: {found[:200]}. Expected a site that "
                "works offline. Keep a copy below docs/, or turn the feature off."
            )


def foreign(page: str) -> str | None:
    """The first thing that a page or a style would load from elsewhere."""
    found = _FOREIGN.search(page)
    return found and found[0]


def site_place(source: str) -> str:
    """Where a file of the repository stands in the site."""
    if source.startswith(DOCS):
        return source.removeprefix(DOCS)
    return PAGES.get(source) or f"source/{source.removesuffix('.md')}.md"


def repository_place(page: str) -> str:
    """The file of the repository that a page of the site is made of."""
    for source, place in PAGES.items():
        if page == place:
            return source
    if page.startswith("source/"):
        source = page.removeprefix("source/")
        return source if (ROOT / source).exists() else source.removesuffix(".md")
    return DOCS + page


def linked(markdown: str, source: str) -> list[str]:
    """What a document links to, as places in the repository."""
    found: list[str] = []
    _each_link(markdown, lambda target: found.append(_place(target, source)) or target)
    return found


def relinked(markdown: str, source: str) -> str:
    """A document with its links as they are in the site."""
    start = posixpath.dirname(site_place(source)) or "."

    def moved(target: str) -> str:
        place = _place(target, source)
        if not (ROOT / place).exists():
            return target
        return posixpath.relpath(site_place(place), start)

    return _each_link(markdown, moved)


def _each_link(markdown: str, change: Callable[[str], str]) -> str:
    """Change the target of each link to a file; what stands in code is no link."""

    def changed(link: re.Match[str]) -> str:
        start, target, part = link.groups()
        return link[0] if ":" in target else f"{start}{change(target)}{part or ''})"

    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(markdown):
        parts += (_LINK.sub(changed, markdown[end : code.start()]), code[0])
        end = code.end()
    return "".join(parts) + _LINK.sub(changed, markdown[end:])


def _place(target: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _content(source: str) -> str:
    """A file as a page: Markdown as it is, others as listings, a folder as links to its files."""
    path = ROOT / source
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        return f"# {source}\n\n" + "\n".join(f"- [{name}]({path.name}/{name})" for name in names)
    text = path.read_text(encoding="utf-8")
    fence = "`" * max(4, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"# {source}\n\n{fence}{_LANGUAGES.get(path.suffix, 'text')}\n{text}\n{fence}\n"


def _expanded(nav: Any) -> Any:
    """The navigation with the pages of each folder that is named in it."""
    if isinstance(nav, list):
        return [one for one in map(_expanded, nav) if one]
    if isinstance(nav, dict):
        inside = {name: _expanded(part) for name, part in nav.items()}
        return {name: part for name, part in inside.items() if part}
    if nav.endswith("/"):
        pages = sorted((ROOT / DOCS / nav).glob("*.md"), key=lambda path: path.name)
        return [f"{nav}{path.name}" for path in pages]
    return nav
