"""Processes to kill: forked from one that has imported the training stack, which takes seconds."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_SERVER = """
import gc, json, os, sys
import peft, torch, transformers, trl
import forgetfilter.model.training.fine_tuning, forgetfilter.model.workbench
import forgetfilter.screening.screen
gc.freeze()
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        for number, name in ((0, os.devnull), (1, job["stdout"]), (2, job["stderr"])):
            file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
            os.dup2(file, number)
        sys.argv = ["-c", *job["arguments"]]
        status = 1
        try:
            exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
            status = 0
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended; as of `subprocess.CompletedProcess`."""

    pid: int
    returncode: int
    stdout: str
    stderr: str


@cache
def _server() -> subprocess.Popen[str]:
    """One for each test process, started when it is first asked for."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.wait)
    atexit.register(server.kill)  # the last comes first
    return server


def run_warm(code: str, *arguments: Any) -> Ended:
    """What ``python -c code arguments`` does, in a session of its own.

    For scripts that end; the time limit of the test is theirs.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: str(Path(folder, name)) for name in ("stdout", "stderr")}
        words = {"code": textwrap.dedent(code), "arguments": [*map(str, arguments)]}
        server.stdin.write(json.dumps(words | streams) + "\n")
        server.stdin.flush()
        try:
            pid, status = (int(server.stdout.readline()) for _ in range(2))
        except BaseException:  # a time limit; the next script gets a server of its own
            server.kill()
            _server.cache_clear()
            raise
        said = {name: Path(path).read_text(encoding="utf-8") for name, path in streams.items()}
    return Ended(pid, status, **said)
