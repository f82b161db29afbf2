"""Where interchangeable parts are: files of a folder, and entry points of installed packages.

Nothing is imported to list them. What a file registers is read from its source, and what a package
offers from its metadata, so that the command line can name all parts at once; a part is imported
when it is built.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from forgetfilter.errors import ConfigError


@dataclass(frozen=True)
class FilePart:
    """A part that a module of this package registers with ``@REGISTRY.add("name")``."""

    name: str
    module: str

    def __str__(self) -> str:
        return f"the module {self.module}"

    def load(self, kind: str) -> Any:
        """Import the module, which registers the part; nothing is returned."""
        importlib.import_module(self.module)


@dataclass(frozen=True)
class InstalledPart:
    """A part that an installed package offers: an entry point that names its class or module."""

    name: str
    entry: EntryPoint

    @property
    def package(self) -> str:
        """Name of the distribution."""
        return self.entry.dist.name if self.entry.dist is not None else "(unknown)"

    def __str__(self) -> str:
        return f"the package {self.package} ({self.entry.value})"

    def load(self, kind: str) -> Any:
        """The class or function of the entry point, or the module that registers it.

        Raises:
            ConfigError: it can't be imported, whatever the reason.
        """
        try:
            return self.entry.load()
        except Exception as error:  # a package of somebody else may raise anything
            raise ConfigError(
                f"The {kind} {self.name!r} of {self} can't be loaded "
                f"({type(error).__name__}: {' '.join(str(error).split())}). Expected a package "
                f"that can be imported. Update or uninstall {self.package}, or choose another "
                f"{kind}."
            ) from error


def parts_in(package: str) -> list[FilePart]:
    """All parts that the modules of ``package`` register."""
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    modules = [f"{package}.{found.name}" for found in pkgutil.iter_modules(folders)]
    return [FilePart(name, module) for module in modules for name in _registered(module)]


def parts_installed(group: str) -> list[InstalledPart]:
    """All parts that installed packages offer under the entry-point ``group``."""
    return [InstalledPart(entry.name, entry) for entry in entry_points(group=group)]


def _registered(module: str) -> Iterator[str]:
    """The names under which a module registers classes or functions."""
    spec = find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    if source is None:  # compiled without its source: importing it registers what it holds
        importlib.import_module(module)
        return
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for decorator in node.decorator_list:
                match decorator:
                    case ast.Call(func=ast.Attribute(attr="add"), args=[ast.Constant(value=name)]):
                        yield str(name)
                    case _:
                        pass
