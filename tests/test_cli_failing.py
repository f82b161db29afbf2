"""What the operating system refuses is told in a sentence, with exit status 1 and no traceback."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from conftest import rows_of, write_rows
from forgetfilter.cli import main

NOISY = ["testbed", "noisy", "--rows", "200"]


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forgetfilter", *words],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def assert_told(said: str, found: str, expected: str) -> None:
    assert said.startswith("forgetfilter: ")
    assert found in said
    assert "Expected " in said
    assert expected in said
    assert "Traceback" not in said


@pytest.fixture
def full_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of its own with 4 KB on it; only root can mount one."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=20", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a full disk with")
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_nothing_half_written_is_left(
    full_disk: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    target = full_disk / "noisy.jsonl"
    assert main([*NOISY, "--output", str(target), "--truth", str(tmp_path / "t")]) == 1
    assert_told(capsys.readouterr().err, "No space left on device", "Free some")
    assert list(full_disk.iterdir()) == []


def test_a_full_disk_under_the_adapters_is_told_too(
    full_disk: Path, tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    """They are written by a library that is no Python, with errors of its own."""
    subprocess.run(["mount", "-o", "remount,size=48k,nr_inodes=200", str(full_disk)], check=True)
    data = write_rows(full_disk / "rows.jsonl", rows_of(6))
    words = ["screen", str(data), "--safe-data", str(data), "--model", str(tiny_model("llama"))]
    settings = ["learn.max_steps=1", "learn.batch_size=8"]
    words += [word for setting in settings for word in ("--set", setting)]
    capsys.readouterr()
    assert main([*words, "--output-dir", str(full_disk / "run"), "--quiet", "--force"]) == 1
    assert_told(capsys.readouterr().err, "No space left on device", "Free some")
    assert not list((full_disk / "run" / "stages").glob("learn-*[!t]"))


def test_a_file_larger_than_allowed_is_told(tmp_path: Path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    words = [*NOISY, "--output", str(tmp_path / "noisy"), "--truth", str(tmp_path / "truth")]
    done = run(*words, preexec_fn=limit)
    assert done.returncode == 1
    assert_told(done.stderr, os.strerror(errno.EFBIG), "ulimit -f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "found", "expected"),
    [
        ("file/noisy.jsonl", "file", "a folder where a file is"),
        ("folder", "folder", "a file where a folder is"),
        ("n" * 300, "name too long", "Expected a shorter name"),
        ("file/deeper/noisy.jsonl", "Not a directory", "choose another path"),
    ],
)
def test_a_path_that_cant_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, found: str, expected: str
):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    words = [*NOISY, "--output", str(tmp_path / path), "--truth", str(tmp_path / "truth")]
    assert main(words) == 1
    assert_told(capsys.readouterr().err, found, expected)
    assert (tmp_path / "file").read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tmp_path.chmod(0o500)
    words = [*NOISY, "--output", str(tmp_path / "noisy"), "--truth", str(tmp_path / "truth")]
    assert main(words) == 1
    assert_told(capsys.readouterr().err, "Permission denied", "Change its permissions")


def test_a_disk_that_is_read_only_is_told(full_disk: Path, capsys: pytest.CaptureFixture[str]):
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    words = [*NOISY, "--output", str(full_disk / "noisy"), "--truth", str(full_disk / "truth")]
    assert main(words) == 1
    assert_told(capsys.readouterr().err, "Read-only file system", "Choose another path")


def test_output_that_nobody_reads_ends_in_one_line():
    reading, writing = os.pipe()
    os.close(reading)
    done = run("testbed", "path", stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert_told(done.stderr, "Broken pipe", "read to its end")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_output_that_finds_no_room_is_told():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run("testbed", "path", stdout=full)
    assert done.returncode == 1
    assert_told(done.stderr, "No space left on device", "Free some")


def test_help_that_nobody_reads_leaves_no_trace():
    reading, writing = os.pipe()
    os.close(reading)
    done = run("screen", "--help", stdout=writing)
    os.close(writing)
    assert done.stderr == ""


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def wrong(*_: Any, **__: Any) -> None:
        raise KeyError("column")

    monkeypatch.setattr("forgetfilter.screening.deciding.decide.filter_run", wrong)
    with pytest.raises(KeyError, match="column"):
        main(["filter", "run", "--threshold", "phi:0.1"])


@pytest.mark.parametrize(
    "words",
    [
        ["noisy", "--rows", "3000", "--unsafe-fraction", "1", "--truth", "truth"],
        ["safe", "--rows", "3000", "--harms", "harmfulness"],
    ],
)
def test_more_rows_than_the_made_up_world_has_are_refused_with_how_many_it_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "forgetfilter.lab.testbed.draws._MAX_TRIES", 3
    )  # else it takes 100,000 rows
    assert main(["testbed", *words, "--output", "rows"]) == 1
    said = capsys.readouterr().err
    assert_told(said, "3,000 different prompts", "Ask for so many or fewer")
    assert list(tmp_path.iterdir()) == []
    fitting = said.split("at most ")[1].split(" ")[0].replace(",", "")
    assert 0 < int(fitting) < 3000
    words = [fitting if word == "3000" else word for word in words]
    assert main(["testbed", *words, "--output", "rows"]) == 0  # and so many it really has
    assert len((tmp_path / "rows").read_text().splitlines()) == int(fitting)
