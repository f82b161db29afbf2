"""Renders chat templates in a process of its own; a script that `template_process` starts.

A template comes with a model that a stranger may have made. jinja2's sandbox keeps it from Python's
internals, but not from an endless loop or from building gigabytes, and neither can be stopped from
within the process that renders. Here the operating system stops them: each request has so much
processor time and so much memory, and nothing but this process is lost.

Requests and replies are JSON, one a line. The process ends when its input does. It imports nothing
of this package, so that it starts fast.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import jinja2.utils

try:
    import resource
except ImportError:  # Windows, where only the time on the clock is limited, by the parent
    resource = None

OPEN, CLOSE = "\ue0f1\ue0f3\ue0f2", "\ue0f2\ue0f3\ue0f1"
"""Stand around what a template marks as generated, until the text is finished."""

MEMORY_FACTOR = 24
"""Bytes for each byte of a request, beside the fixed limit: a long row is no attack."""
IDLE_SECONDS = 60
"""After so long without a request the process ends; another one is started when needed."""
TEXT_FACTOR = 8
TEXT_CHARACTERS = 2**24
"""A rendering has at most so many characters, and `TEXT_FACTOR` for each byte of its request."""


class Generation(jinja2.ext.Extension):
    """``{% generation %}``: what stands in it is said by the assistant."""

    tags = {"generation"}  # noqa: RUF012  # the name and kind that jinja2 asks for

    def parse(self, parser: Any) -> Any:
        """The block as a call of `mark`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("mark")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def mark(self, caller: Any) -> str:
        """The block's text between marks."""
        return f"{OPEN}{caller()}{CLOSE}"


class Fields(jinja2.utils.Namespace):
    """jinja2's ``namespace``, without names that begin with an underscore, as in transformers."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class Mappings:
    """``dict`` as templates may call it, without the type itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A new mapping."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """A new mapping with the same value for each key."""
        return dict.fromkeys(*args)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace can't have the name {name!r}")


def make_environment(date: str) -> Any:
    """What transformers gives to chat templates, with nothing that depends on clock or chance.

    Args:
        date: what ``strftime_now`` goes by, as ISO 8601.
    """
    now = datetime.fromisoformat(date)
    environment: Any = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def raise_exception(message: Any) -> None:
        raise jinja2.exceptions.TemplateError(str(message))

    def first(values: Any) -> Any:
        return next(iter(values), environment.undefined())

    environment.filters.update(tojson=tojson, random=first)
    environment.globals.update(
        raise_exception=raise_exception,
        strftime_now=now.strftime,
        namespace=Fields,
        dict=Mappings(),
    )
    environment.globals.pop("lipsum", None)
    return environment


def load(source: str, date: str) -> tuple[Any, dict[str, Any]]:
    """A compiled template, and what is to be known of its code.

    Raises:
        jinja2.TemplateError: it is no template.
    """
    environment = make_environment(date)
    tree = environment.parse(source)
    constants = {
        node.value
        for node in tree.find_all(jinja2.nodes.Const)
        if isinstance(node.value, str) and node.value
    }
    names = {node.name for node in tree.find_all(jinja2.nodes.Name)}
    known = {"constants": sorted(constants), "tells_date": "strftime_now" in names}
    return environment.from_string(source), known


def without_marks(text: str) -> tuple[str, list[list[int]]]:
    """The text, and the spans in it that stood between marks; none within another."""
    pieces: list[str] = []
    spans: list[list[int]] = []
    length = depth = at = start = 0
    while at < len(text):
        stops = [found for mark in (OPEN, CLOSE) if (found := text.find(mark, at)) >= 0]
        stop = min(stops, default=len(text))
        pieces.append(text[at:stop])
        length += stop - at
        at = stop + len(OPEN)
        if not stops:
            break
        if text.startswith(OPEN, stop):
            start = length if depth == 0 else start
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                spans.append([start, length])
    return "".join(pieces), spans


def render(template: Any, variables: dict[str, Any], most: int) -> dict[str, Any]:
    """One rendering: its text and marks, or the error that the template raised.

    Raises:
        MemoryError: more than ``most`` characters.
    """
    pieces: list[str] = []
    length = 0
    try:
        for piece in template.generate(**variables):
            length += len(piece)
            if length > most:
                raise MemoryError
            pieces.append(piece)
    except MemoryError:
        raise
    except Exception as error:  # templates raise what their author chose
        return {"error": str(error) or type(error).__name__}
    text, spans = without_marks("".join(pieces))
    return {"text": text, "marks": spans}


def limit(seconds: int, megabytes: int, request: int) -> None:
    """Set what the next request may take; a request longer than that in bytes takes more."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime) + 1 + seconds + request // 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, hard))
    space = megabytes * 2**20 + MEMORY_FACTOR * request
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        space = min(space, hard)
    # macOS knows no such limit; that of characters holds there.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (space, hard))


def rest(seconds: int) -> None:
    """End this process unless it is asked for something within so many seconds; 0: don't."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def main() -> None:
    """Answer requests until there are no more."""
    seconds, megabytes = int(sys.argv[1]), int(sys.argv[2])
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the parent tells when it is interrupted
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    loaded: dict[str, Any] = {}
    rest(IDLE_SECONDS)
    for line in sys.stdin.buffer:
        rest(0)
        limit(seconds, megabytes, len(line))
        try:
            request = json.loads(line)
            key = request["key"]
            if "source" in request:
                try:
                    loaded[key], reply = load(request["source"], request["date"])
                except MemoryError:
                    raise
                except Exception as error:
                    reply = {"error": str(error) or type(error).__name__}
            else:
                most = TEXT_CHARACTERS + TEXT_FACTOR * len(line)
                given = request["variables"]
                reply = {
                    "renderings": [
                        render(loaded[key], {**given, **task}, most) for task in request["tasks"]
                    ]
                }
            answer = json.dumps(reply).encode()
        except MemoryError:
            reply = request = None
            answer = b'{"failure": "memory"}'
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()
        rest(IDLE_SECONDS)


if __name__ == "__main__":
    main()
