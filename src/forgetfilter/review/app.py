"""The review page's web application: who may use it, the page, and what it asks for."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forgetfilter.errors import DataError, ForgetFilterError
from forgetfilter.files import encode_json
from forgetfilter.review.shown import pieces
from forgetfilter.review.table import MAX_ROWS_TOLD, Query, ReviewTable
from forgetfilter.runs.decisions import CHOICES, Choice, ConflictError, Decision
from forgetfilter.runs.report.page_styles import digest
from forgetfilter.screening.deciding.decide import apply_decisions, finished_run
from forgetfilter.text import printable

MAX_BODY_BYTES = 32 * 2**20


@dataclass
class Access:
    """Who may use the page: whoever knows the token, from a page of this very address."""

    port: int
    token: str
    start: str = ""
    """A key that opens the page once, for the browser's command line, which others may see."""
    hosts: frozenset[str] = field(init=False)
    origins: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.hosts = frozenset({f"127.0.0.1:{self.port}", f"localhost:{self.port}"})
        self.origins = frozenset(f"http://{host}" for host in self.hosts)

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    @property
    def start_address(self) -> str:
        """Leads to the page, once."""
        return f"http://127.0.0.1:{self.port}/start/{self.start}"


class Guard:
    """Lets through only what `Access` allows, and adds the headers that keep a browser strict.

    The name in ``Host`` is checked, so that no foreign name can be made to point here (DNS
    rebinding); ``Origin``, so that no foreign page can send anything.
    """

    def __init__(self, app: ASGIApp, access: Access, policy: str) -> None:
        self._app = app
        self._access = access
        self._headers = [
            (name.encode(), value.encode())
            for name, value in {
                "content-security-policy": policy,
                "x-content-type-options": "nosniff",
                "x-frame-options": "DENY",
                "referrer-policy": "no-referrer",
                "cache-control": "no-store",
                "cross-origin-opener-policy": "same-origin",
                "cross-origin-resource-policy": "same-origin",
            }.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        if scope["type"] == "http":
            path = self._inner_path(scope["path"])
            refused = self._refusal(scope, path)
            if refused is None and path is not None:
                inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
                await self._app(inner, receive, send_strict)
            elif refused is not None:
                await refused(scope, receive, send_strict)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)

    def _inner_path(self, path: str) -> str | None:
        """What is asked for behind the token; None where that is not the right one."""
        token, slash, rest = path.removeprefix("/").partition("/")
        is_known = hmac.compare_digest(token.encode(), self._access.token.encode())
        return f"/{rest}" if slash and is_known else None

    def _refusal(self, scope: Scope, path: str | None) -> Response | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._access.hosts:
            return PlainTextResponse("Unknown host.", 421)
        if any(origin not in self._access.origins for origin in origins):
            return PlainTextResponse("Another page may not ask.", 403)
        if path is None:
            return self._started(scope) or PlainTextResponse("Not found.", 404)
        if scope["method"] not in ("GET", "HEAD"):
            kinds = headers.get("content-type", [])
            if len(origins) != 1 or [kind.split(";")[0] for kind in kinds] != ["application/json"]:
                return PlainTextResponse("Only the page itself may send.", 403)
        return None

    def _started(self, scope: Scope) -> Response | None:
        key = self._access.start
        given = scope["path"].removeprefix("/start/")
        if not key or not hmac.compare_digest(given.encode(), key.encode()):
            return None
        self._access.start = ""
        return PlainTextResponse("", 303, {"location": self._access.address})


def make_app(table: ReviewTable, access: Access, reviewer: str) -> ASGIApp:
    """The application for one run.

    Args:
        table: the run.
        access: who may use it.
        reviewer: who decides, unless the page says otherwise.
    """
    page, policy = _page()
    lock = threading.Lock()

    def answering(
        work: Callable[[Request, dict[str, Any]], dict[str, Any]],
    ) -> Callable[[Request], Any]:
        """An endpoint of JSON that works in a thread, one at a time."""

        def locked(request: Request, body: dict[str, Any]) -> Response:
            try:
                with lock:
                    table.refresh()
                    return _answer(work(request, body))
            except ConflictError as error:
                with lock:
                    table.refresh()
                    rows = table.tell(list(error.found)[:MAX_ROWS_TOLD])
                told = {"error": "Somebody has decided since.", "rows": rows}
                return _answer({**told, "conflicts": len(error.found)}, 409)
            except ForgetFilterError as error:
                return _answer({"error": printable(str(error), 2000)}, 400)
            except OSError as error:
                said = f"Not saved: {error.strerror}. Free the disk or mend the folder, then retry."
                return _answer({"error": said}, 507)

        async def endpoint(request: Request) -> Response:
            try:
                body = await _body(request) if request.method == "POST" else {}
            except ValueError as error:
                return _answer({"error": str(error)}, 400)
            return await run_in_threadpool(locked, request, body)

        return endpoint

    def made(decisions: Sequence[Decision]) -> dict[str, Any]:
        rows = [one.row for one in decisions]
        return {
            "first": decisions[0].number if decisions else 0,
            "last": decisions[-1].number if decisions else 0,
            "count": len(decisions),
            "rows": table.tell(rows[:MAX_ROWS_TOLD]),
            "progress": table.progress(),
        }

    def who(body: dict[str, Any]) -> str:
        return _text(body, "reviewer") or reviewer

    def state(_: Request, __: dict[str, Any]) -> dict[str, Any]:
        return {**table.state(), "reviewer": reviewer}

    def listed(request: Request, _: dict[str, Any]) -> dict[str, Any]:
        return {"rows": table.select(_query(request)), "number": table.number}

    def rows(_: Request, body: dict[str, Any]) -> dict[str, Any]:
        return {"rows": table.tell(_numbers(body, "rows")[:MAX_ROWS_TOLD])}

    def row(request: Request, _: dict[str, Any]) -> dict[str, Any]:
        return table.tell_all(int(request.path_params["row"]))

    def changes(request: Request, _: dict[str, Any]) -> dict[str, Any]:
        since = _number(request.query_params.get("since")) or 0
        changed = [row for row, number in table.decided.versions.items() if number > since]
        return {"rows": table.tell(changed[-MAX_ROWS_TOLD:]), "progress": table.progress()}

    def decide(_: Request, body: dict[str, Any]) -> dict[str, Any]:
        (number,), (version,) = _numbers(body, "row", 1), _numbers(body, "version", 1)
        choice = _choice(body)
        return made(table.decide(number, choice, _text(body, "reason"), who(body), version))

    def bulk(_: Request, body: dict[str, Any]) -> dict[str, Any]:
        (seen,) = _numbers(body, "seen", 1)
        numbers, reason = _numbers(body, "rows"), _text(body, "reason")
        return made(table.decide_all(numbers, _choice(body), reason, who(body), seen))

    def undo(_: Request, body: dict[str, Any]) -> dict[str, Any]:
        (first,), (last,) = _numbers(body, "first", 1), _numbers(body, "last", 1)
        return made(table.undo(first, last, who(body)))

    def apply(_: Request, __: dict[str, Any]) -> dict[str, Any]:
        with finished_run(table.run) as folder:
            apply_decisions(folder.path)
        table.refresh()
        summary = table.known.summary
        counts = {name: getattr(summary, name) for name in ("kept", "removed", "rejected")}
        return {**counts, "progress": table.progress()}

    async def index(_: Request) -> Response:
        return HTMLResponse(page)

    routes = [
        Route("/", index),
        Route("/api/state", answering(state)),
        Route("/api/list", answering(listed)),
        Route("/api/row/{row:int}", answering(row)),
        Route("/api/changes", answering(changes)),
        *(
            Route(f"/api/{work.__name__}", answering(work), methods=["POST"])
            for work in (rows, decide, bulk, undo, apply)
        ),
    ]
    return Guard(Starlette(routes=routes), access, policy)


def _page() -> tuple[str, str]:
    """The page, and the policy that allows exactly its own script and style."""
    folder = files("forgetfilter.review") / "page"
    style, script, page = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("review.css", "review.js", "review.html")
    )
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; "
        f"style-src 'sha256-{digest(style)}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return page, policy


def _answer(told: dict[str, Any], status: int = 200) -> Response:
    return Response(encode_json(told), status, media_type="application/json")


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise ValueError("The request is too large.")
    found: Any = json.loads(data or b"{}")
    if not isinstance(found, dict):
        raise ValueError("Expected a JSON object.")
    return cast(dict[str, Any], found)


def _query(request: Request) -> Query:
    given = request.query_params
    return Query(
        search=given.get("search", "")[:1000],
        rule=given.get("rule", ""),
        review=given.get("review", ""),
        reason=given.get("reason", ""),
        facets={
            name.removeprefix("facet."): value
            for name, value in given.items()
            if name.startswith("facet.") and value
        },
        low=_number(given.get("low")),
        high=_number(given.get("high")),
        sort=given.get("sort", "score"),
        ascending=given.get("ascending") == "1",
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _numbers(body: dict[str, Any], name: str, count: int | None = None) -> list[int]:
    given = body.get(name)
    values = cast(list[Any], given if isinstance(given, list) else [given])
    if (count is not None and len(values) != count) or not all(type(v) is int for v in values):
        raise DataError(f"The page sent no whole number as {name}. Load the page again.")
    return values


def _text(body: dict[str, Any], name: str) -> str:
    given = body.get(name, "")
    if not isinstance(given, str):
        raise DataError(f"The page sent no text as {name}. Load the page again.")
    return given


def _choice(body: dict[str, Any]) -> Choice:
    given = body.get("decision")
    if given not in CHOICES:
        raise DataError(
            f"The page sent the decision {''.join(pieces(repr(given)))[:50]}. Expected "
            f"{', '.join(CHOICES)}. Load the page again."
        )
    return given
