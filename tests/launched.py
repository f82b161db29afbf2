"""Commands that are started in several processes, as a launcher does it."""

from __future__ import annotations

import json
from pathlib import Path

from warm import run_warm

# Starts one command in several processes, as a launcher would, and tells how each has ended. What
# is given as `early` runs in each process before the command, which it may change.
LAUNCH = """
    import json, os, socket, sys

    size, words, early, folder = json.loads(sys.argv[1])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            for number, name in ((1, "stdout"), (2, "stderr")):
                file = os.open(f"{folder}/{name}{rank}", os.O_WRONLY | os.O_CREAT)
                os.dup2(file, number)
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            status = 99
            try:
                exec(early)
                from forgetfilter.cli import main
                status = main(words)
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
    print(json.dumps(statuses))
"""


class Ended:
    """How the processes of a command have ended: the status and both streams of each."""

    def __init__(self, folder: Path, size: int, words: list[str], early: str = "") -> None:
        folder.mkdir(exist_ok=True)
        done = run_warm(LAUNCH, json.dumps([size, words, early, str(folder)]))
        assert done.returncode == 0, done.stderr
        self.statuses: list[int] = json.loads(done.stdout)
        self.out = [(folder / f"stdout{rank}").read_text() for rank in range(size)]
        self.err = [(folder / f"stderr{rank}").read_text() for rank in range(size)]
