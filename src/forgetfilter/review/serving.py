"""Serve the review page on this machine until it is ended, then apply what was decided."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forgetfilter.errors import ConfigError, MissingExtraError
from forgetfilter.screening.deciding.decide import apply_decisions, finished_run, read_summary
from forgetfilter.screening.deciding.overruling import login_name


def review(
    path: str | Path,
    *,
    reviewer: str = "",
    port: int = 0,
    opens_browser: bool = True,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Serve the review page of a finished run until Ctrl-C, then apply the decisions.

    The page listens on 127.0.0.1 alone. Every decision is on the disk before the page says so, so
    that nothing is lost if this process is killed; the next ``filter``, ``finetune`` or ``report``
    applies it then.

    Args:
        path: the run folder.
        reviewer: who decides; empty: the login name.
        port: where to listen; 0: a free one.
        opens_browser: whether to open the page.
        tell: called with lines for the terminal.

    Returns:
        The run's summary, with the decisions applied.

    Raises:
        MissingExtraError: the web library isn't installed.
        ConfigError: the port can't be used.
        DataError: not a finished run, or its files were edited by hand.
        RunExistsError: the run is in use.
    """
    if any(find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise MissingExtraError(
            "The review page needs the packages starlette and uvicorn, and at least one is not "
            "installed. Expected forgetfilter with its extra. Run: pip install "
            "'forgetfilter[review]' (or: pip install starlette uvicorn)."
        )
    import uvicorn

    from forgetfilter.review.app import Access, make_app
    from forgetfilter.review.table import ReviewTable

    with finished_run(path) as folder:
        run = folder.path
        apply_decisions(run)
    table = ReviewTable(run)
    with _listening(port) as listener:
        access = Access(
            listener.getsockname()[1], secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        )
        app = make_app(table, access, reviewer or login_name())
        # No log of requests: they hold the token.
        config = uvicorn.Config(
            app, log_level="error", access_log=False, server_header=False, lifespan="off"
        )
        tell(f"Review {run} at {access.address}")
        tell("Whoever has this address can decide. Ctrl-C ends the review and applies it.")
        if opens_browser:
            opening = (access.start_address,)
            threading.Thread(target=webbrowser.open, args=opening, daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    with finished_run(run) as folder:
        apply_decisions(folder.path)
        table.refresh()
        tell(told_precision(table.progress()))
        return read_summary(folder.path)


def told_precision(progress: dict[str, Any]) -> str:
    """What a review says of the filter, in a sentence."""
    found = progress["precision"]
    said = f"{progress['reviewed']:,} rows reviewed"
    if found["value"] is None:
        return f"{said}, none of them removed by the rule."
    return (
        f"{said}. Of the {found['cases']:,} reviewed rows that the rule removed, {found['hits']:,} "
        f"were rightly removed: {found['value']:.0%} (95% interval {found['low']:.0%} to "
        f"{found['high']:.0%}, for all removed rows if these were a random sample)."
    )


def _listening(port: int) -> socket.socket:
    """A socket on the loopback address, which other machines can't reach.

    Raises:
        ConfigError: the port can't be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)  # whoever comes before the server is up waits for it
    except (OSError, OverflowError) as error:
        listener.close()
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Port {port} can't be used: {said}. Expected a free port from 1024 to 65535. Choose "
            "another --port, or leave it out."
        ) from None
    return listener
