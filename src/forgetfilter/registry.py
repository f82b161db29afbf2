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
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from forgetfilter.errors import ConfigError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Maps names to factories of one kind of part (signals, threshold rules, strategies)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., T]] = {}

    def add(self, name: str) -> Callable[[F], F]:
        """Decorator: register a class or function under ``name``; a name can be taken only once."""
        if name in self._factories:
            raise ValueError(f"A {self.kind} named {name!r} is registered already.")

        def register(factory: F) -> F:
            self._factories[name] = factory
            return factory

        return register

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._factories)

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
        if name not in self._factories:
            near = difflib.get_close_matches(name, self._factories, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"Unknown {self.kind} {name!r}.{hint} Available: {', '.join(self.names())}."
            )
        factory = self._factories[name]
        return factory, self._options(name, factory, rest.strip())

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
