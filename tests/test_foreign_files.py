"""Broken files: what they are, in which line, and a way out that works."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from forgetfilter.data import read_rows
from forgetfilter.data.containers.convert import convert_file
from forgetfilter.errors import DataError

A = '{"prompt": "q", "completion": "a"}'
B = '{"prompt": "p", "completion": "b", "list": [1, {"x": "a, ]"}]}'
PRETTY = "\n".join(json.dumps(json.loads(row), indent=2) for row in (A, B))


def archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, A)
    return buffer.getvalue()


CONVERTIBLE: list[tuple[str, bytes, str]] = [
    ("rows.txt", f"{A}\n{B}\n".encode("utf-16"), "looks like UTF-16"),
    ("rows.jsonl", f"{A}\n{B}\n".encode("utf-16-le"), "looks like UTF-16"),
    ("rows.jsonl", f"{A}\n{B}\n".encode("utf-16-be"), "looks like UTF-16"),
    ("rows.jsonl", f"{A}\n{B}\n".encode("utf-32"), "looks like UTF-16"),
    ("rows.csv", "prompt,completion\nq,a\np,b\n".encode("utf-16"), "looks like UTF-16"),
    ("my rows.json", f"[\n{A},\n{B},\n]\n".encode(), "before a closing bracket, in line 3"),
    ("rows.json", f"[{A}, {B[:-1]},\n}}]".encode(), "before a closing bracket, in line 1"),
    ("rows.jsonl", f"{A[:-1]},}}\n{B[:-1]},}}\n".encode(), "before a closing bracket, in line 1"),
    ("rows.jsonl", f"\n{PRETTY}\n".encode(), "not on one line each, from line 2"),
    ("rows.json", f"{A},\n{B},\n".encode(), "not on one line each, from line 1"),
    ("rows.jsonl", f"{A}{B}".encode(), "not on one line each, from line 1"),
    ("it's.json", b'{\n"data": [' + f"{A},{B}".encode() + b"]}", "one line each, from line 1"),
    ("rows.jsonl", f"{json.loads(A)}\n{json.loads(B)}\n".encode(), "as Python prints them"),
    ("rows.txt", f"{[json.loads(A), json.loads(B)]}".encode(), "as Python prints them"),
    ("rows.jsonl.bz2", bz2.compress(f"{A}\n{B}\n".encode()), "looks like bzip2"),
    ("rows.jsonl.xz", lzma.compress(f"{A}\n{B}\n".encode()), "looks like xz"),
    ("rows.jsonl", bz2.compress(f"{A}\n{B}\n".encode()), "looks like bzip2"),
    ("rows.json", f"[{A}]\n[{B}]".encode(), "in a broken array (line 2, character 1"),
]


COLUMNS = {"prompt": ["q", "p"], "completion": ["a", "b"]}
CONVERTIBLE += [
    ("rows.json", json.dumps(COLUMNS).encode(), "2 rows stored by column, in line 1"),
    (
        "rows.json",
        json.dumps({n: dict(enumerate(v)) for n, v in COLUMNS.items()}).encode(),
        "2 rows stored by column, in line 1",
    ),
    ("rows.json", json.dumps(COLUMNS, indent=1).encode(), "not on one line each, from line 1"),
    ("rows.json", f'{{"train": [{A}],\n"test": [{B}]}}'.encode(), "one line each, from line 1"),
    (
        "rows.json",
        f'{{"features": [{{"name": "x"}}],\n"rows": [{{"row": {A}}}, {{"row": {B}}}]}}'.encode(),
        "one line each, from line 1",
    ),
]


@pytest.mark.parametrize(("name", "data", "says"), CONVERTIBLE)
def test_the_advice_makes_a_new_file_and_leaves_the_old(
    tmp_path: Path, name: str, data: bytes, says: str
):
    """The command is run in a shell as it stands in the message, beside other files."""
    path = tmp_path / name
    path.write_bytes(data)
    for taken in ("rows.converted.jsonl", "rows.utf8.txt"):
        (tmp_path / taken).write_text("mine")
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(DataError) as caught:
        read_rows(path)
    said = str(caught.value)
    assert says in said
    assert ". Expected rows as JSON Lines" in said
    command = said.partition("screen that: ")[2]
    assert command.startswith("forgetfilter convert ")
    tools = tmp_path.parent / f"{tmp_path.name}-tools"
    tools.mkdir()
    shim = tools / "forgetfilter"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m forgetfilter "$@"\n')
    shim.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = [each for each in tmp_path.iterdir() if each.name not in before]
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each != made} == before
    rows = read_rows(made).rows
    assert [(row.messages[0].content, row.target) for row in rows] == [("q", "a"), ("p", "b")]
    with pytest.raises(DataError, match="is there already"):
        convert_file(path, made)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "data", "found", "way_out"),
    [
        ("empty.jsonl", b"", "has 0 rows", "Check that it is the file"),
        ("blank.csv", b"\n \r\n\n", "has 0 rows", "Check that it is the file"),
        ("none.json", b"[]\n", "has 0 rows", "Check that it is the file"),
        ("mark.jsonl", b"\xef\xbb\xbf", "has 0 rows", "Check that it is the file"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "has 0 rows", "Check that it is the file"),
        ("head.csv", b"prompt,completion\n", "has 0 rows", "Check that it is the file"),
        ("rows.jsonl", LFS, "a Git LFS pointer", "git lfs pull --include rows.jsonl"),
        ("rows.csv", LFS, "a Git LFS pointer", "git lfs pull"),
        ("rows.parquet", LFS, "a Git LFS pointer", "git lfs pull"),
        ("rows.jsonl", b"<!DOCTYPE html><html></html>", "a web page (HTML)", "/resolve/"),
        ("rows.csv", b"\n<html lang=en>\n", "a web page (HTML)", "/resolve/"),
        ("rows.jsonl", b"<?xml version='1.0'?><Error/>", "XML", "Download the file itself"),
        ("rows.zip", archive("rows.jsonl"), "looks like zip", "python -m zipfile -e"),
        ("rows.xlsx", archive("xl/workbook.xml"), "an Excel workbook", "Save it as CSV"),
        ("rows.7z", b"7z\xbc\xaf\x27\x1c00", "a 7z archive", "Unpack it"),
        ("rows.pdf", b"%PDF-1.7\n", "a PDF", "Save its rows"),
        ("rows.db", b"SQLite format 3\0", "an SQLite database", "Save the table"),
        ("rows.pkl", b"\x80\x04\x95\x10\0\0\0", "a Python pickle", "save it as JSON Lines"),
        ("rows.bin", b"a\0\0b\0" * 50, "binary data", "Name the file that holds"),
        ("rows.parquet", b"PAR1\x15\x04", "starts like Parquet", "Copy or download it again"),
        ("rows.arrow", b"ARROW1\0\0\xff", "starts like Arrow", "Copy or download it again"),
        (
            "rows.gz",
            gzip.compress(b"x" * 99, mtime=0)[:-9],
            "starts like a gzip file",
            "compress it anew",
        ),
        ("rows.zst", b"\x28\xb5\x2f\xfd\0", "starts like a zstd file", "compress it anew"),
        (
            "cut.json",
            f"[{A},\n{B},\n{A[:20]}".encode(),
            "breaks: line 3, character 17",
            "Mend line 3",
        ),
        (
            "open.json",
            f"[{A},\n{B}\n".encode(),
            "(line 3, character 1: the array isn",
            "forgetfilter convert",
        ),
        ("odd.json", f"[{A}\n{B}]".encode(), "line 2, character 1: expected a comma", "forgetf"),
        ("word.json", f"[{A},\n nil]".encode(), "line 2, character 2: expecting", "Mend line 2"),
        ("twice.csv", b"prompt,prompt\nq,a\n", "names 'prompt' twice", "Mend the first line"),
        ("quote.csv", b'"prompt,completion\nq,a\n', "first line of the table can't", "Mend the"),
    ],
)
def test_other_files_are_told_in_three_beats(
    tmp_path: Path, name: str, data: bytes, found: str, way_out: str
):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    said = str(caught.value)
    assert found in said
    assert "Expected" in said
    assert way_out in said
    assert name in said
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "first", [b"{", b"[1]", b"{'prompt': 'q'}", A[:-1].encode() + b",}", A.encode() + b",", b"<a>"]
)
def test_one_bad_line_turns_no_file_of_good_rows_away(tmp_path: Path, first: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(first + b"\n" + f"{A}\n{B}\n".encode())
    file = read_rows(path)
    assert (len(file.rows), [row.line for row in file.rejected]) == (2, [1])


def test_a_wrong_file_is_told_before_torch_is_loaded(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_bytes(LFS)
    (tmp_path / "bad.jsonl").write_text(f"{A}\n{{oops\n{{oops\n")
    (tmp_path / "other.jsonl").write_text('{"frage": "q", "antwort": "a"}\n' * 3)
    script = (
        "import sys\n"
        "from forgetfilter.cli import main\n"
        "for name in ('rows.jsonl', 'bad.jsonl', 'other.jsonl', 'missing.jsonl'):\n"
        "    assert main(['screen', name, '--model', 'm', '--output-dir', 'run']) == 1\n"
        "assert main(['screen', 'other.jsonl', '--model', 'm', '--output-dir', 'run',\n"
        "             '--format', 'nothing']) == 1\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lfs, bad, other, missing, wrong = done.stderr.splitlines()
    assert "a Git LFS pointer" in lfs
    assert "2 of 3 rows are malformed; the first that can't be used is line 2" in bad
    assert "reading.max_malformed" in bad
    assert "found columns frage, antwort" in other
    assert other.endswith("--column-map prompt=frage,completion=antwort")
    assert "Can't read noisy_data 'missing.jsonl'" in missing
    assert re.search(r"expected auto or one of chat, sharegpt", wrong)
    assert not (tmp_path / "run").exists()
