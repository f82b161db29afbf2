"""Kills at random instants, full disks, fuzzed inputs: run by `make slow`, recorded in
docs/lab/long_tests.md.

How many: FORGETFILTER_KILLS (100 in total) and FORGETFILTER_FUZZED (100,000 in total).
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import quick_settings, rows_of, write_rows
from decided_run import make_run, plain_rows
from forgetfilter.cli import main
from forgetfilter.config import load_yaml
from forgetfilter.data import read_rows
from forgetfilter.data.containers.tables import stream_of
from forgetfilter.data.records import Message
from forgetfilter.data.tokens.encoding import Encoder, UnrenderableError
from forgetfilter.data.validation.streaming import stream_file
from forgetfilter.errors import ForgetFilterError
from forgetfilter.runs.decisions import Journal
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.overruling import Overruling
from test_compare_data import TEST_LINES
from warm import run_warm

KILLS = int(os.environ.get("FORGETFILTER_KILLS", "100"))
FUZZED = int(os.environ.get("FORGETFILTER_FUZZED", "100000"))

KILL = """
    # Kills a command by SIGKILL at random instants of its course, up to three times, then lets it
    # end, and compares what it leaves with an unbroken one's.
    import json, os, random, shutil, signal, sys, time
    from pathlib import Path
    from forgetfilter.cli import main
    from forgetfilter.config import load_yaml

    what, root, count, settings = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    screened = ("kept.jsonl", "removed.jsonl", "rejected.jsonl", "scores.parquet",
                "readings.parquet", "evidence.parquet", "harms.parquet")

    def command(folder):
        if what == "screen":
            return ["screen", "--config", settings, "--output-dir", str(folder), "--quiet"]
        if what == "compare":
            return ["compare", settings, "--output-dir", str(folder), "--quiet"]
        if not folder.exists():
            shutil.copytree(Path(settings).parent / "finished", folder)
        return ["finetune", str(folder), "--output-dir", str(folder) + "-adapter"]

    def outcome(folder):
        if what == "screen":
            return {name: (folder / name).read_bytes() for name in screened}
        if what == "finetune":
            return Path(f"{folder}-adapter", "adapter_model.safetensors").read_bytes()
        import pandas as pd
        found = pd.read_parquet(folder / "results.parquet")
        return found[~found["metric"].str.startswith("seconds")].to_csv(index=False)

    def start(folder, seconds=None):
        words = command(folder)
        child = os.fork()
        if child == 0:
            os._exit(main(words))
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    began = time.perf_counter()
    assert start(root / "whole") == 0
    took = time.perf_counter() - began
    whole, made = outcome(root / "whole"), random.Random(what)
    kills = different = 0
    while kills < count:
        folder = root / f"killed-{kills}"
        for _ in range(min(made.randint(1, 3), count - kills)):
            status = start(folder, made.random() * took)
            assert status in (0, -signal.SIGKILL), status
            kills += status != 0
        status = start(folder)
        left = [str(path) for path in folder.rglob("*.part")]
        different += status != 0 or outcome(folder) != whole or bool(left)
        shutil.rmtree(folder)
        shutil.rmtree(f"{folder}-adapter", ignore_errors=True)
        print(f"{kills} kills, {different} differences", flush=True)
    print(json.dumps({"kills": kills, "different": different}))
"""


def settings_file(folder: Path, model: Path) -> Path:
    """The settings of a short screen, with the files that it reads."""
    write_rows(folder / "noisy.jsonl", rows_of(16))
    write_rows(folder / "safe.jsonl", rows_of(8, start=100))
    paths = {name: str(folder / f"{name}.jsonl") for name in ("noisy", "safe")}
    settings = {
        **quick_settings(threshold="fraction:0.25", signal="restoration"),
        "noisy_data": paths["noisy"],
        "safe_data": paths["safe"],
        "reference_data": paths["safe"],
        "model": str(model),
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder / "settings.yaml"


def grid_file(folder: Path, model: Path) -> Path:
    """A comparison of two strategies on files."""
    rows = [{**row, "id": f"r{at}"} for at, row in enumerate(rows_of(12))]
    truth = [{"example_id": f"r{at}", "is_unsafe": at % 3 == 1} for at in range(12)]
    files = {"noisy": rows, "safe": rows_of(6, start=100), "test": TEST_LINES, "truth": truth}
    paths = {name: str(write_rows(folder / f"{name}.jsonl", own)) for name, own in files.items()}
    grid = {
        "model": str(model),
        "strategies": ["none", "forget_filter"],
        "datasets": [{"kind": "files", "max_new_tokens": 4, **paths}],
        "seeds": [0],
        "settings": quick_settings(signal="completion_loss", threshold="fraction:0.3"),
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    return folder / "grid.yaml"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("what", "share"), [("screen", 0.6), ("finetune", 0.2), ("compare", 0.2)])
def test_a_command_killed_at_random_instants_ends_with_the_bytes_of_an_unbroken_one(
    tiny_model: Callable[..., Path], tmp_path: Path, what: str, share: float
):
    model = tiny_model("llama")
    make_settings = grid_file if what == "compare" else settings_file
    settings = make_settings(tmp_path, model)
    if what == "finetune":
        words = ["--config", str(settings), "--output-dir", str(tmp_path / "finished"), "--quiet"]
        assert main(["screen", *words]) == 0
    (tmp_path / "runs").mkdir()
    done = run_warm(KILL, what, tmp_path / "runs", max(1, round(KILLS * share)), settings)
    assert done.returncode == 0, done.stderr
    print(f"{what}: {done.stdout}")
    assert json.loads(done.stdout.splitlines()[-1])["different"] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``small_disk(pages)``: a disk of so many pages of 4,096 bytes; again: the same, resized."""
    place = tmp_path / "disk"
    place.mkdir()
    is_mounted = False

    def make(pages: int) -> Path:
        nonlocal is_mounted
        options = f"{'remount,' if is_mounted else ''}size={4096 * pages}"
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a small disk")
        is_mounted = True
        return place

    yield make
    if is_mounted:
        subprocess.run(["umount", str(place)], check=True)


ROOM = 2**16


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_filter_on_a_full_disk_loses_nothing_whichever_write_fails(
    tmp_path: Path, small_disk: Callable[[int], Path]
):
    whole = make_run(tmp_path / "whole", plain_rows(40))
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    filter_run(other, "fraction:0.3")
    old, new = decided_lines(whole), decided_lines(other)
    refused = 0
    place = small_disk(ROOM)
    for free in range(400):
        run = place / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        disk = os.statvfs(place)
        small_disk(disk.f_blocks - disk.f_bfree + free)
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = main(["filter", str(run), "--threshold", "fraction:0.3"])
        small_disk(ROOM)
        if status == 0:
            assert decided_lines(run) == new
            break
        refused += 1
        assert "Expected room to write" in errors.getvalue(), errors.getvalue()
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["report", str(run)]) == 0  # completes what was committed
        assert decided_lines(run) in (old, new)
        filter_run(run, "fraction:0.3")
        assert decided_lines(run) == new
    else:
        pytest.fail("it never had enough room")
    print(f"filter: the disk was full at {refused} sizes")
    assert refused > 10


def decided_lines(run: Path) -> dict[str, bytes]:
    return {name: (run / f"{name}.jsonl").read_bytes() for name in ("kept", "removed", "rejected")}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_screen_on_a_full_disk_goes_on_once_there_is_room(
    tiny_model: Callable[..., Path],
    tmp_path: Path,
    small_disk: Callable[[int], Path],
):
    settings = settings_file(tmp_path, tiny_model("llama"))
    words = ["screen", "--config", str(settings), "--quiet", "--output-dir"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    wanted = decided_lines(tmp_path / "whole")
    size = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    place = small_disk(ROOM)
    refused = 0
    for part in range(24):
        run = place / "run"
        shutil.rmtree(run, ignore_errors=True)
        small_disk(4 + round(size / 4096 * part / 20))
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            status = main([*words, str(run)])
        small_disk(ROOM)
        if status:
            refused += 1
            said = errors.getvalue()
            assert "Expected room to write" in said or "Expected a folder" in said, said
            assert main([*words, str(run)]) == 0
        assert decided_lines(run) == wanted
    print(f"screen: the disk was full at {refused} of 24 sizes")
    assert refused > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_work_where_there_is_no_network_at_all(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    """In a network namespace without any interface; nothing is switched off by the environment."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    settings, run = settings_file(tmp_path, tiny_model("llama")), str(tmp_path / "run")
    adapter = str(tmp_path / "adapter")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRL_"))
    }
    for words in (
        ["validate", str(tmp_path / "noisy.jsonl"), "--model", str(tiny_model("llama"))],
        ["check-safe", str(tmp_path / "safe.jsonl")],
        ["screen", "--config", str(settings), "--output-dir", run, "--quiet"],
        ["filter", run, "--threshold", "fraction:0.5"],
        ["show", run, "--row", "1"],
        ["report", run],
        ["finetune", run, "--output-dir", adapter],
        ["export", run, "--to", "axolotl", "--output-dir", str(tmp_path / "out")],
    ):
        command = ["unshare", "-n", sys.executable, "-m", "forgetfilter", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)


def mutated(data: bytes, made: random.Random) -> bytes:
    """A file with a few changes: bits, cuts, repeats, pieces that parsers trip over."""
    odd = (b'"', b"\\", b"{", b"]", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"1e999",
           b"\\ud800", b"[[[[", b"NaN", b"{%", b"}}", b",,", b"\xe2\x80\xae", b"-0")  # fmt: skip
    found = bytearray(data)
    for _ in range(made.randint(1, 4)):
        at = made.randrange(len(found) + 1)
        match made.randrange(5):
            case 0:
                found[at : at + 1] = bytes([made.randrange(256)])
            case 1:
                del found[at : at + made.randint(1, 20)]
            case 2:
                found[at:at] = made.choice(odd) * made.choice((1, 1, 3, 200))
            case 3:
                found[at:at] = found[at : at + made.randint(1, 60)]
            case _:
                del found[at:]
    return bytes(found)


ROWS = [{"prompt": f"Who is it, {i}?", "completion": f'A "friend", {i}.'} for i in range(4)]
TURNS = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


SEEDS: dict[str, bytes] = {
    "rows.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in (*ROWS, *TURNS)),
    "rows.json": json.dumps([*ROWS, *TURNS]).encode(),
    "rows.csv": pd.DataFrame(ROWS).to_csv(index=False).encode(),
    "rows.tsv": pd.DataFrame(ROWS).to_csv(index=False, sep="\t").encode(),
    "rows.jsonl.gz": gzip.compress(json.dumps(ROWS[0]).encode() + b"\n", mtime=0),
    "rows.arrow": stream_of(pa.Table.from_pylist(ROWS)),
    "rows.parquet": _parquet(),
    "settings.yaml": b"model: path\nlearn:\n  batch_size: 8\nseed: 0\nsignal: restoration\n",
    "template": b"{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{% endfor %}",
    "decisions.jsonl": b"",
}
SHARES = {"rows.arrow": 0.3, "rows.parquet": 0.3, "template": 0.3}
"""Less of what starts a process when it breaks."""


def parse(name: str, path: Path, made: random.Random, tokenizer: Any) -> None:
    """Give a file to its parser."""
    if name == "settings.yaml":
        load_yaml(path)
    elif name == "template":
        tokenizer.chat_template = path.read_bytes().decode("utf-8", "replace")
        turns = [Message("user", "Who is it?"), Message("assistant", "A friend.")]
        Encoder(tokenizer, "auto", 1000).render(turns)
    elif name == "decisions.jsonl":
        Journal(path.parent).read()
    elif made.random() < 0.3:
        list(stream_file(path).records)
    else:
        file = read_rows(path)
        numbers = sorted(row.row for row in (*file.rows, *file.rejected))
        assert numbers == list(range(len(file)))


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_no_fuzzed_input_is_anything_but_read_or_refused(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    run = make_run(tmp_path / "run", plain_rows(4))
    tokenizer = tiny_tokenizer()
    filter_run(run, overruling=Overruling(keep=(3,), reason="checked", reviewer="Ada"))
    seeds = {**SEEDS, "decisions.jsonl": (run / "decisions.jsonl").read_bytes()}
    weights = [SHARES.get(name, 1.0) for name in seeds]
    made = random.Random(int(os.environ.get("FORGETFILTER_SEED", "0")))
    counts: Counter[str] = Counter()
    faults: list[str] = []
    for _ in range(FUZZED):
        (name,) = made.choices(list(seeds), weights)
        data = mutated(seeds[name], made)
        path = tmp_path / name
        path.write_bytes(data)
        try:
            parse(name, path, made, tokenizer)
            counts[f"{name} read"] += 1
        except (ForgetFilterError, UnrenderableError):  # the second costs a row
            counts[f"{name} refused"] += 1
        except Exception as error:
            faults.append(f"{name}: {type(error).__name__}: {error}: {data[:300]!r}")
    print(dict(sorted(counts.items())))
    assert faults == []
