"""Process 0 asks the others to work with it; each of them has the same model, rows and adapters.

What process 0 does goes to the others as a function and its arguments. Rows and adapters go along
the first time that they are needed, so that the others read nothing from the run folder, and write
nothing but scratch files of their own.
"""

from __future__ import annotations

import io
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from forgetfilter.data.records import EncodedRow
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
from forgetfilter.model.team.member import How, Member, adapter_files, model_in, opening_of
from forgetfilter.progress import Progress

if TYPE_CHECKING:
    from forgetfilter.model.training.plan import TrainPlan
    from forgetfilter.model.training.restoring import RestorePlan
    from forgetfilter.model.workbench import Workbench

T = TypeVar("T")

_BEAT_SECONDS = 5.0
_END_SECONDS = 5.0
"""How long one that failed waits to hear whether process 0 has failed of the same."""
_LEAST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two looks for work."""
_NO_MORE = b"no more work"


@dataclass
class _Team:
    """What process 0 knows of the others."""

    group: Processes
    number: int = 0
    """Of the last piece of work."""
    sent_rows: dict[int, tuple[Any, int]] = field(default_factory=dict[int, tuple[Any, int]])
    """Sequences of rows that the others have, by identity, with their numbers."""
    sent_states: set[str] = field(default_factory=set[str])
    is_lost: bool = False
    """Whether one of them has ended or doesn't answer."""
    is_broken: bool = False
    """Whether something failed while all were at work, so that nobody knows where each is."""


_team: _Team | None = None


@contextmanager
def leading() -> Generator[None]:
    """Process 0: join the others, and let them go at the end, however that comes about."""
    global _team
    group = join()
    _team = _Team(group)
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


def _let_go(team: _Team) -> None:
    """Tell the others that there is no more work."""
    group = team.group
    with suppress(RuntimeError, LostError):  # they may be gone, and the store with one of them
        group.store.set("over", b"1")
        if not team.is_broken:
            group.store.set(f"work/{team.number + 1}", b"1")
            group.send(_NO_MORE)
            return
        until = time.monotonic() + (0 if team.is_lost else _END_SECONDS)
        while group.store.add("left", 0) < group.size - 1 and time.monotonic() < until:
            time.sleep(_LEAST_PAUSE)


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
    with all_doing(bench, _read_too, how, state, function, arguments):
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
    message = _packed(team, bench, (function, arguments))
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


def serve() -> int:
    """Any process but 0: do what process 0 asks for until it ends; the exit status."""
    group = join()
    try:
        return _serve(group)
    except Exception as error:
        group.fail(" ".join(str(error).split()) or type(error).__name__)
        if not _is_over(group):
            raise
        return 1  # process 0 has met the same, and says it
    finally:
        leave()


def _serve(group: Processes) -> int:
    with tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch:
        member = Member(Path(scratch))
        number = 0
        while True:
            _await_work(group, number := number + 1)
            message = group.send()
            if message == _NO_MORE:
                return 0
            _work(group, member, message)


def _await_work(group: Processes, number: int) -> None:
    """Wait until process 0 asks for the next piece of work, which may be hours.

    Raises:
        ModelError: process 0 has ended, or gave no sign for too long.
    """
    beats, last, pause = -1, time.monotonic(), _LEAST_PAUSE
    try:
        while not group.store.check([f"work/{number}"]):
            now = group.store.add("beats", 0)
            if now != beats:
                beats, last = now, time.monotonic()
            elif time.monotonic() - last > group.patience:
                raise group.lost("process 0 gives no sign")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    except RuntimeError as error:
        raise group.lost(str(error)) from None


def _is_over(group: Processes) -> bool:
    """Whether process 0 ends of its own accord, which it may need a moment for."""
    until = time.monotonic() + _END_SECONDS
    with suppress(RuntimeError):
        group.store.add("left", 1)
        while time.monotonic() < until:
            if group.store.check(["over"]):
                return True
            time.sleep(_LEAST_PAUSE)
    return False


def _work(group: Processes, member: Member, message: bytes) -> None:
    """Do one piece of work with the other processes."""
    said, function = "", None
    arguments: tuple[Any, ...] = ()
    bench: Workbench | None = None
    try:
        content = io.BytesIO(message)
        bench = member.open(pickle.load(content))
        function, arguments = _Unpickler(content, member, bench).load()
    except ForgetFilterError as error:
        said = f"Process {group.rank} of {group.size}: {error}"
    refused = any(group.gather(said))
    if refused or function is None:
        return  # process 0 says so
    with group.attended():
        with working():
            function(bench, *arguments)
        group.gather("")


class _Pickler(pickle.Pickler):
    """Sends rows and adapters once, and no tokenizer and no progress bar."""

    def __init__(self, file: io.BytesIO, team: _Team, tokenizer: Any) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._team = team
        self._tokenizer = tokenizer

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Progress):
            return ("progress",)
        if obj is not None and obj is self._tokenizer:
            return ("tokenizer",)
        if isinstance(obj, ModelState) and obj.adapter is not None:
            return self._state(obj)
        if isinstance(obj, Sequence) and not isinstance(obj, str | bytes):
            items = cast(Sequence[Any], obj)
            if len(items) and isinstance(items[0], EncodedRow):
                return self._rows(items)
        return None

    def _state(self, state: ModelState) -> tuple[Any, ...]:
        files = None
        if state.fingerprint not in self._team.sent_states:
            files = adapter_files(state.adapter or "")
            self._team.sent_states.add(state.fingerprint)
        return "state", state.name, state.fingerprint, files

    def _rows(self, rows: Sequence[EncodedRow]) -> tuple[Any, ...]:
        known = self._team.sent_rows.get(id(rows))
        if known is not None:
            return "rows", known[1], None
        number = len(self._team.sent_rows)
        self._team.sent_rows[id(rows)] = rows, number  # kept, so that the identity stays its own
        # As bytes: a persistent id is pickled by the same pickler, which would ask again.
        return "rows", number, pickle.dumps(list(rows), protocol=pickle.HIGHEST_PROTOCOL)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, member: Member, bench: Workbench) -> None:
        super().__init__(file)
        self._member, self._bench = member, bench

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "progress":
            return Progress(is_silent=True)
        if pid[0] == "tokenizer":
            return self._bench.tokenizer
        if pid[0] == "state":
            _, name, fingerprint, files = pid
            return ModelState(name, fingerprint, self._member.keep_adapter(fingerprint, files))
        _, number, content = pid
        rows = None if content is None else cast(Sequence[EncodedRow], pickle.loads(content))
        return self._member.keep_rows(number, rows)


def _packed(team: _Team, bench: Workbench, work: Any) -> bytes:
    buffer = io.BytesIO(pickle.dumps(opening_of(bench)))
    buffer.seek(0, io.SEEK_END)
    _Pickler(buffer, team, bench.__dict__.get("tokenizer")).dump(work)
    return buffer.getvalue()


# -- what the others do ------------------------------------------------------------------------


def _read_too(
    bench: Workbench,
    how: How,
    state: ModelState,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    function(model_in(bench, how, state), *arguments)


def train_too(bench: Workbench, start: ModelState, plan: TrainPlan) -> None:
    """Train as process 0 does, and keep nothing."""
    from forgetfilter.model.training.fine_tuning import train

    train(bench.model.trainable(start, plan.phase), bench.tokenizer, plan, bench.progress)
    bench.model.release()


def restore_too(bench: Workbench, start: ModelState, plan: RestorePlan) -> None:
    """Restore as process 0 does, and keep nothing."""
    from forgetfilter.model.training.restoring import restore

    restore(bench.model.trainable(start, "restore").eval(), plan, bench.progress)
