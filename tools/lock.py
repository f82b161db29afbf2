"""Write requirements/: every distribution of the runtime with its version and sha256 hashes.

Run by ``make lock``. Versions follow constraints.txt; hashes are those of the package index that
pip is set up with. Of torch there are two builds for Linux, each locked in a file of its own: the
one of the index, with the libraries of CUDA that it needs, and the one for CPUs, which needs none.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
OF_TORCH = ("torch ", "cuda-", "nvidia-", "triton ")
"""torch, and what only its build with CUDA asks for."""
BUILD = ("hatchling>=1.25", "editables", "setuptools", "wheel")
"""What builds this package, and the distributions of the runtime that come as sources."""
HEADER = """# {what}
# Written by `make lock`; installed with `pip install --require-hashes --no-deps`.
"""
WHAT = {
    "runtime": "All distributions of the runtime but for torch, for CPython 3.11 and later.",
    "torch-cuda": "torch as the index has it, and the libraries of CUDA that it needs on Linux.",
    "torch-cpu": "torch for CPUs, which other places than the index have.",
    "build": "What builds the package.",
}


def compiled(*arguments: str) -> dict[str, str]:
    """What `uv pip compile` resolves: by name the requirement with its hashes."""
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip() or os.environ.get("PIP_INDEX_URL", "")
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
        *("--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"),
        *("--constraint", str(ROOT / "constraints.txt")),
        *arguments,
    ]
    named = {"UV_DEFAULT_INDEX": index} if index else {}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **named}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"The versions can't be resolved:\n{done.stderr}")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", done.stdout.strip())
    return {f"{block.split('==')[0]} {number}": block for number, block in enumerate(blocks)}


def for_cpus(version: str) -> str | None:
    """torch's build for CPUs with the sha256 of the file that pip finds here; None if none is."""
    requirement = f"{version}+cpu"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        if subprocess.run([*command, folder, requirement], check=False).returncode:
            return None
        (path,) = Path(folder).iterdir()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{requirement} \\\n    --hash=sha256:{digest}"


def main() -> None:
    """Write the three files."""
    found = compiled("pyproject.toml")
    torch = next(one for name, one in found.items() if name.startswith("torch "))
    cpu = for_cpus(torch.split(" ")[0])
    with tempfile.NamedTemporaryFile("w", suffix=".in") as asked:
        asked.write("\n".join(BUILD))
        asked.flush()
        build = compiled(asked.name)
    files = {
        "runtime": {name: one for name, one in found.items() if not name.startswith(OF_TORCH)},
        "torch-cuda": {name: one for name, one in found.items() if name.startswith(OF_TORCH)},
        "build": build,
    }
    if cpu is None:
        print("pip finds no torch for CPUs here: requirements/torch-cpu.txt stays as it is")
    else:
        files["torch-cpu"] = {"torch": cpu}
    FOLDER.mkdir(exist_ok=True)
    for name, blocks in files.items():
        text = HEADER.format(what=WHAT[name]) + "\n".join(blocks.values()) + "\n"
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"requirements/{name}.txt: {len(blocks)} distributions")


if __name__ == "__main__":
    main()
