"""Files and streams without end, in size, length or depth, are refused in a sentence."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from forgetfilter import pipes
from forgetfilter.cli import main
from forgetfilter.cli.failing import explain
from forgetfilter.config import load_yaml, parse_assignments
from forgetfilter.data import containers, read_rows
from forgetfilter.data.containers import compression
from forgetfilter.data.containers.convert import convert_file
from forgetfilter.data.trainers import axolotl
from forgetfilter.data.validation.streaming import stream_file
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.pipes import pipes_read_once

ROW = b'{"prompt": "q", "completion": "a"}\n'


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can reach."""
    monkeypatch.setattr(compression, "LEAST_BYTES", 2**20)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("pack", "command"), [(gzip.compress, "gzip -dk"), (zstd, "zstd -d")])
def test_a_small_file_that_expands_without_end_is_refused_while_it_expands(
    tmp_path: Path, pack: Callable[[bytes], bytes], command: str
):
    path = tmp_path / "rows.jsonl.packed"
    path.write_bytes(pack(ROW + b"\n" * 2**23))
    for read in (read_rows, lambda where: list(stream_file(where).records)):  # type: ignore[unknown-lambda]
        with pytest.raises(DataError) as error:
            read(path)
        said = str(error.value)
        assert "expands to more than" in said
        assert "Expected at most 200 times its size" in said
        assert f"decompress it first ({command} FILE)" in said


@pytest.mark.usefixtures("small")
def test_what_compresses_well_is_read_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(ROW * 3_000))  # under the size that is always read
    assert len(read_rows(path).rows) == 3_000
    varied = b"".join(
        json.dumps({"prompt": f"q{n}", "completion": os.urandom(99).hex()}).encode() + b"\n"
        for n in range(1_000)
    )
    path.write_bytes(gzip.compress(varied, 1))  # over it, at a ratio that text has
    monkeypatch.setattr(compression, "LEAST_BYTES", 1000)
    assert len(read_rows(path).rows) == 1_000
    monkeypatch.setattr(compression, "MAX_BYTES", 100_000)
    with pytest.raises(DataError, match="more than 100,000"):
        read_rows(path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_convert_holds_to_the_same_limit(tmp_path: Path, pack: Callable[[bytes], bytes]):
    path, output = tmp_path / "rows", tmp_path / "new.jsonl"
    path.write_bytes(pack(ROW * 40_000))
    with pytest.raises(DataError, match="expands to more than"):
        convert_file(path, output)
    assert not output.exists()
    path.write_bytes(pack(ROW * 9))
    convert_file(path, output)
    assert output.read_bytes() == ROW * 9


def test_a_first_line_beyond_the_limit_is_never_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    parsed: list[int] = []
    known = containers.is_object
    monkeypatch.setattr(
        containers, "is_object", lambda line: parsed.append(len(line)) or known(line)
    )
    for module in (containers, sys.modules["forgetfilter.data.many_rows.line_files"]):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "' + b"x" * 5000 + b'", "completion": "a"}\n' + ROW)
    file = read_rows(path)
    assert [row.line for row in file.rows] == [2]
    assert "at most 1000 are read" in file.rejected[0].reason
    assert parsed == []


def feed(path: Path, data: bytes) -> threading.Thread:
    """Write to a named pipe once, when somebody opens it."""
    writer = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    writer.start()
    return writer


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("the system has no named pipes")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read_once(pipe: Path, pack: Callable[[bytes], bytes]):
    found: list[int] = []
    for data in (ROW * 3, ROW * 5):  # a second use of the pipe gives what comes then
        feed(pipe, pack(data))
        reader = threading.Thread(
            target=lambda: found.append(len(read_rows(pipe).rows)), daemon=True
        )
        reader.start()
        reader.join(20)
        assert not reader.is_alive(), "waits for a second writer"
    assert found == [3, 5]


def test_a_command_that_looks_twice_sees_the_same(pipe: Path):
    feed(pipe, ROW * 3)
    with pipes_read_once():
        first = read_rows(pipe)
        feed(pipe, ROW * 9)  # so that another look would not wait but be wrong
        assert read_rows(pipe).fingerprint == first.fingerprint


def test_rows_come_in_through_standard_input():
    done = subprocess.run(
        [sys.executable, "-m", "forgetfilter", "validate", "-"],
        input=ROW * 3,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"3 rows, 3 usable" in done.stdout, done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="the system has no /dev/zero")
def test_a_stream_without_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(pipes, "MAX_BYTES", 2**22)
    words = ["screen", "/dev/zero", "--model", "x", "--output-dir", str(tmp_path / "run")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "has given more than 4,194,304 bytes" in said
    assert "Write it to a file" in said
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_is_told():
    said = explain(MemoryError())
    assert said is not None
    assert said.startswith("Memory ran out. Expected ")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_command_that_is_told_to_end_says_that_it_resumes(name: str, tmp_path: Path):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"the system has no {name}")
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetfilter", "validate", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(
            number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler
        ),
    )
    assert process.stdin is not None
    # More than a pipe holds: once it is written, the command is reading.
    process.stdin.write(ROW * 5_000)
    process.stdin.flush()
    time.sleep(0.2)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert said.decode() == "forgetfilter: interrupted; the same command resumes.\n"
    assert process.returncode == 128 + number


def test_a_signal_that_is_ignored_stays_ignored():
    """As nohup does it."""
    code = (
        "import os, signal, sys\n"
        "from forgetfilter.cli.interrupts import signals_interrupt\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with signals_interrupt():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learn: " + "[" * 20_000, "nested more than 50 deep"),
        ("learn: " + "{a: " * 60 + "1" + "}" * 60, "nested more than 50 deep"),
        (BOMB + "seed: *i\n", "aliases stand for more than 100,000 values"),
        ("seed: 2024-99-99\n", "a value can't be read"),
        (f"seed: {'9' * 5000}\n", "a value can't be read"),
        ("# " + "x" * 2**20, "more than 1,048,576 characters"),
    ],
)
def test_yaml_beyond_any_settings_is_refused(tmp_path: Path, text: str, said: str):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (load_yaml, axolotl):
        with pytest.raises(ConfigError, match=said):
            read(str(path))


def test_values_on_the_command_line_are_bounded_too():
    for value in ("[" * 5_000, "9" * 5_000):
        with pytest.raises(ConfigError, match="expected NAME=VALUE"):
            parse_assignments([f"learn.num_train_epochs={value}"])


def test_anchors_of_honest_settings_are_read(tmp_path: Path):
    path = tmp_path / "settings.yaml"
    path.write_text("learn: &phase {batch_size: 4}\nforget: {<<: *phase, max_steps: 3}\n")
    assert load_yaml(path)["forget"] == {"batch_size": 4, "max_steps": 3}
