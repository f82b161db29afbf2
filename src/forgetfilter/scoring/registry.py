"""One small registry for interchangeable parts, and the one syntax that names them.

A part is named by a *spec*: ``name``, ``name:value`` or ``name:key=value,key=value``.
``phi:0.1`` and ``rouge1:reference=learned_output`` are specs. A bare value goes to the factory's
first parameter; every value is converted to the type that the parameter is annotated with. A value
that holds a comma or a plus sign stands in double quotes: ``self_correction:cue="Kind, please"``.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from forgetfilter.errors import ConfigError
from forgetfilter.scoring.discovery import FilePart, InstalledPart, parts_in, parts_installed

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Maps names to factories of one kind of part (signals, threshold rules, strategies).

    A part is found by itself: each module of ``package`` that holds a class or function under
    ``@REGISTRY.add("name")``, and each entry point that an installed package declares in ``group``.
    They are looked for when the registry is first asked, and imported when they are built.

    Args:
        kind: what a part is called in messages.
        package: dotted name of the package whose modules are searched, as a rule the
            ``__package__`` of the module that holds the registry.
        group: entry-point group, such as ``forgetfilter.signals``. An entry point's name is the
            part's; it refers to the class or function, or to a module that adds it.
    """

    def __init__(self, kind: str, package: str | None = None, group: str | None = None) -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self._added: dict[str, Callable[..., T]] = {}

    def add(self, name: str) -> Callable[[F], F]:
        """Decorator: register a class or function under ``name``.

        Raises:
            ConfigError: another one has the name.
        """

        def register(factory: F) -> F:
            known = self._added.get(name)
            if known is not None and _place(known) != _place(factory):
                raise self._taken_twice(name, [_place(known), _place(factory)])
            self._added[name] = factory
            return factory

        return register

    def names(self) -> list[str]:
        """All names that can be built, sorted; imports none of the parts."""
        return sorted({*self._found, *self._added})

    def build(self, spec: str) -> T:
        """Build the part that ``spec`` names.

        Raises:
            ConfigError: the name or an option is unknown, or a value has the wrong type.
        """
        factory, options = self._parse(spec)
        return factory(**options)

    def check(self, spec: str) -> None:
        """Raise what `build` would of the words of ``spec``, and build nothing."""
        self._parse(spec)

    def _parse(self, spec: str) -> tuple[Callable[..., T], dict[str, Any]]:
        """The factory that ``spec`` names, and its keyword arguments."""
        name, _, rest = spec.partition(":")
        name = name.strip()
        names = self.names()
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Unknown {self.kind} {name!r}.{hint} Available: {', '.join(names)}.")
        factory = self.factory(name)
        return factory, self._options(name, factory, rest.strip())

    @cached_property
    def _found(self) -> dict[str, list[FilePart | InstalledPart]]:
        """By name, where a part of that name is; more than one place is an error once asked for."""
        found: dict[str, list[FilePart | InstalledPart]] = {}
        files = parts_in(self.package) if self.package else []
        installed = parts_installed(self.group) if self.group else []
        for part in dict.fromkeys((*files, *installed)):
            found.setdefault(part.name, []).append(part)
        return found

    def factory(self, name: str) -> Callable[..., T]:
        """Import what is registered under ``name``, one of `names`.

        Raises:
            ConfigError: what is said to hold it doesn't, or more than one part has the name.
        """
        places = self._found.get(name, [])
        if len(places) > 1:
            raise self._taken_twice(name, [str(place) for place in places])
        for place in places:
            loaded = place.load(self.kind)
            if loaded is None or inspect.ismodule(loaded):
                continue  # its decorator has added the part
            known = self._added.setdefault(name, loaded)
            if known is not loaded:
                raise self._taken_twice(name, [_place(known), str(place)])
        if name not in self._added:
            raise ConfigError(
                f"{places[0]} is said to hold the {self.kind} {name!r}, but adds none of that name "
                f"when it is imported. Expected a class or function that is registered as {name!r}."
                " Mend it, or uninstall the package."
            )
        return self._added[name]

    def _taken_twice(self, name: str, places: list[str]) -> ConfigError:
        return ConfigError(
            f"Two {self.kind}s are named {name!r}: one of {', another of '.join(places)}. Expected "
            "each name once. Rename one of them, or uninstall one of the packages."
        )

    def _options(self, name: str, factory: Callable[..., T], text: str) -> dict[str, Any]:
        """Parse the part of a spec after the colon into keyword arguments."""
        if not text:
            return {}
        parameters = list(inspect.signature(factory).parameters)
        target = factory.__init__ if inspect.isclass(factory) else factory
        hints = get_type_hints(target)
        options: dict[str, Any] = {}
        for index, item in enumerate(split_outside_quotes(text, ",")):
            key, equals, value = item.partition("=")
            if not equals:
                if index > 0 or not parameters:
                    raise ConfigError(
                        f"{self.kind} {name!r} was given {item!r}; expected key=value. "
                        f"Options: {', '.join(parameters) or 'none'}."
                    )
                key, value = parameters[0], item
            key = key.strip()
            if key not in parameters:
                raise ConfigError(
                    f"{self.kind} {name!r} has no option {key!r}. "
                    f"Options: {', '.join(parameters) or 'none'}."
                )
            if key in options:
                raise ConfigError(
                    f"{self.kind} {name!r} was given {key!r} twice; expected each option once. "
                    "Remove one."
                )
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            options[key] = _convert(self.kind, name, key, value, hints.get(key, str))
        return options


def _place(factory: Callable[..., Any]) -> str:
    """Where a factory is defined, for people."""
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    return f"{factory.__module__} ({name})"


def split_outside_quotes(text: str, mark: str) -> list[str]:
    """``text`` parted at each ``mark`` (one character) that is not between double quotes."""
    return re.split(f'{re.escape(mark)}(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def _convert(kind: str, name: str, key: str, value: str, hint: Any) -> Any:
    """Turn the text of one option into the annotated type."""
    choices = get_args(hint)
    if choices and all(isinstance(choice, str) for choice in choices):
        if value not in choices:
            raise ConfigError(
                f"{kind} {name!r}: {key} is {value!r}; expected one of {', '.join(choices)}."
            )
        return value
    kinds = [hint, *choices]
    if bool in kinds:
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"{kind} {name!r}: {key} is {value!r}; expected true or false.")
        return value.lower() == "true"
    for number in (int, float):
        if number in kinds:
            try:
                return number(value)
            except ValueError:
                if number is int and float in kinds:
                    continue
                raise ConfigError(
                    f"{kind} {name!r}: {key} is {value!r}; expected a number "
                    f"(for example {name}:{key}=1)."
                ) from None
    return value
