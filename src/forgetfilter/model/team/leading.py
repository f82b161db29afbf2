"""Process 0 asks the others to work with it; each of them has the same model, rows and adapters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from forgetfilter.errors import ForgetFilterError, ModelError
from forgetfilter.model.processes.joining import (
    LostError,
    Processes,
    join,
    leave,
    together,
    working,
)
from forgetfilter.model.state import ModelState
from forgetfilter.model.team.member import How, model_in
from forgetfilter.model.team.messages import END_SECONDS, LEAST_PAUSE, NO_MORE, Team, packed
from forgetfilter.model.team.serving import read_too

if TYPE_CHECKING:
    from forgetfilter.model.workbench import Workbench

T = TypeVar("T")

_BEAT_SECONDS = 5.0

_team: Team | None = None


@contextmanager
def leading() -> Generator[None]:
    """Process 0: join the others, and let them go at the end, however that comes about."""
    global _team
    group = join()
    _team = Team(group)
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(group, over), daemon=True)
    beat.start()
    try:
        yield
    except LostError:
        _team.is_lost = True  # no time to wait: a launcher soon ends this process too
        raise
    finally:
        over.set()
        _let_go(_team)
        _team = None
        beat.join()
        leave()


def _let_go(team: Team) -> None:
    """Tell the others that there is no more work."""
    group = team.group
    with suppress(RuntimeError, LostError):  # they may be gone, and the store with one of them
        group.store.set("over", b"1")
        if not team.is_broken:
            group.store.set(f"work/{team.number + 1}", b"1")
            group.send(NO_MORE)
            return
        until = time.monotonic() + (0 if team.is_lost else END_SECONDS)
        while group.store.add("left", 0) < group.size - 1 and time.monotonic() < until:
            time.sleep(LEAST_PAUSE)


def _beat(group: Processes, over: threading.Event) -> None:
    """Tell the waiting processes again and again that process 0 is there."""
    while not over.is_set():
        try:
            group.store.add("beats", 1)
        except RuntimeError:
            return
        over.wait(_BEAT_SECONDS)


def everywhere(
    bench: Workbench, how: How, state: ModelState, function: Callable[..., T], *arguments: Any
) -> T:
    """``function(model in state, *arguments)``, computed by all processes together.

    A process that is alone just calls it. ``function`` is one of a module, and all of it that is
    dealt out is dealt by `dealing.deal`.
    """
    from forgetfilter.model.team.on_ray import cluster

    if (ray := cluster()) and ray.reads(function):
        return ray.read(bench, how, state, function, arguments)
    with all_doing(bench, read_too, how, state, function, arguments):
        return function(model_in(bench, how, state), *arguments)


@contextmanager
def all_doing(
    bench: Workbench, function: Callable[..., None], *arguments: Any, is_of_all: bool = True
) -> Generator[None]:
    """While process 0 does what is inside, the others call ``function(bench, *arguments)``.

    Not where ``is_of_all`` is false: then process 0 does it alone.

    Raises:
        ModelError: another process can't, has ended or doesn't answer.
    """
    team = _team
    if team is None or not is_of_all or together() is not None:
        yield
        return
    if team.is_broken:
        raise ModelError(
            "The processes stopped working together when something failed before. Expected the "
            "command to end there. Start it again; it goes on after the last finished stage."
        )
    group = team.group
    team.number += 1
    message = packed(team, bench, (function, arguments))
    group.store.set(f"work/{team.number}", b"1")
    group.send(message)
    failed: ForgetFilterError | None = None
    try:
        bench.model.load()
    except ForgetFilterError as error:
        failed = error
    refused = [said for said in group.gather(str(failed or "")) if said]
    if failed:
        raise failed
    if refused:
        raise ModelError(" ".join(refused))
    team.is_broken = True
    with group.attended():
        with working():
            yield
        group.gather("")
    team.is_broken = False
