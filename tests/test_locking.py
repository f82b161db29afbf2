"""A run folder and a stage are held by one process, and by a dead one no longer."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from forgetfilter.errors import RunExistsError
from forgetfilter.runs.folder import LOCK_FILE, RunFolder
from forgetfilter.runs.locking import InUseError, locked
from forgetfilter.runs.stages import StageStore

HOLDER = """
    import signal, sys, time
    from pathlib import Path
    from forgetfilter.runs.locking import locked

    # A shell that starts tests in the background has told them to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    with locked(Path(sys.argv[1]), waits=True):
        print("locked", flush=True)
        time.sleep(120)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, number: int):
    path = tmp_path / LOCK_FILE
    code = [sys.executable, "-c", textwrap.dedent(HOLDER), str(path)]
    with subprocess.Popen(
        code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(InUseError), locked(path, waits=False):
            pytest.fail("two processes hold one lock")
        child.send_signal(number)
        child.wait(timeout=20)
    start = time.perf_counter()
    with locked(path, waits=False):
        assert time.perf_counter() - start < 1
    assert path.is_file()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    """A file that stands for the lock would outlive a killed process."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunExistsError, match="can't be locked"), RunFolder(tmp_path).lock():
        pytest.fail("locked without a lock")
    with pytest.raises(RunExistsError, match="can't be locked"):
        StageStore(tmp_path / "stages").stage("s", {}, lambda folder: None)


def test_a_lock_that_cant_be_opened_is_no_traceback(tmp_path: Path):
    (tmp_path / LOCK_FILE).mkdir()
    refused = pytest.raises(RunExistsError, match=r"is a folder\. Expected a plain file")
    with refused, RunFolder(tmp_path).lock():
        pytest.fail("locked a folder as if it were a file")
