"""Memory and time of `forgetfilter validate` on a large file of JSON Lines.

    python benchmarks/validate_memory.py --megabytes 250

Rows are ShareGPT conversations of about 500 bytes with ids of their own; every 1000th is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [f"word{number}" for number in range(5000)]


def write(path: Path, size: int) -> int:
    random.seed(0)
    rows = 0
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < size:
            asked, said = (" ".join(random.choices(WORDS, k=25)) for _ in range(2))
            turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
            if rows % 1000 == 999:
                turns.pop()
            row = {"id": f"row-{rows:09d}", "conversations": turns, "source": "made"}
            file.write(json.dumps(row) + "\n")
            rows += 1
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=250)
    size = parser.parse_args().megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        rows = write(path, size)
        command = [sys.executable, "-m", "forgetfilter", "validate", str(path)]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        seconds = time.monotonic() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(done.stdout.splitlines()[-3] if done.returncode < 2 else done.stderr)
        print(
            f"{path.stat().st_size / 1e6:,.0f} MB, {rows:,} rows: peak {used.ru_maxrss / 1024:.0f} "
            f"MB of memory, {used.ru_utime + used.ru_stime:.0f} s of processor, {seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
