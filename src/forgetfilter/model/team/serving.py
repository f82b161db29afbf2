"""What any process but 0 does: what process 0 asks for, until it ends.

It writes nothing but scratch files of its own.
"""

from __future__ import annotations

import io
import pickle
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ForgetFilterError
from forgetfilter.model.processes.joining import Processes, join, leave, working
from forgetfilter.model.state import ModelState
from forgetfilter.model.team.member import How, Member, model_in
from forgetfilter.model.team.messages import END_SECONDS, LEAST_PAUSE, NO_MORE, unpacked

if TYPE_CHECKING:
    from forgetfilter.model.training.plan import TrainPlan
    from forgetfilter.model.training.restoring import RestorePlan
    from forgetfilter.model.workbench import Workbench

_LONGEST_PAUSE = 0.5
"""Seconds between two looks for work, at most."""


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
            if message == NO_MORE:
                return 0
            _work(group, member, message)


def _await_work(group: Processes, number: int) -> None:
    """Wait until process 0 asks for the next piece of work, which may be hours.

    Raises:
        ModelError: process 0 has ended, or gave no sign for too long.
    """
    beats, last, pause = -1, time.monotonic(), LEAST_PAUSE
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
    until = time.monotonic() + END_SECONDS
    with suppress(RuntimeError):
        group.store.add("left", 1)
        while time.monotonic() < until:
            if group.store.check(["over"]):
                return True
            time.sleep(LEAST_PAUSE)
    return False


def _work(group: Processes, member: Member, message: bytes) -> None:
    """Do one piece of work with the other processes."""
    said, function = "", None
    arguments: tuple[Any, ...] = ()
    bench: Workbench | None = None
    try:
        content = io.BytesIO(message)
        bench = member.open(pickle.load(content))
        function, arguments = unpacked(content, member, bench)
    except ForgetFilterError as error:
        said = f"Process {group.rank} of {group.size}: {error}"
    refused = any(group.gather(said))
    if refused or function is None:
        return  # process 0 says so
    with group.attended():
        with working():
            function(bench, *arguments)
        group.gather("")


def read_too(
    bench: Workbench,
    how: How,
    state: ModelState,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Compute as process 0 does, with whatever is dealt to this process."""
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
