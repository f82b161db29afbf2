"""The lab's commands: listed apart, imported only when called, and known by their earlier names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import quick_settings
from forgetfilter.cli import build_parser, main
from forgetfilter.cli.laboratory import NAMES
from warm import run_warm

SCRIPT = """
import contextlib, sys
from forgetfilter.cli import main
for words in {commands!r}:
    with contextlib.suppress(SystemExit):
        assert main(words) == {status}, words
loaded = {{name for name in sys.modules if name.startswith({forbidden!r})}}
assert not loaded, sorted(loaded)
"""


def run(commands: list[list[str]], forbidden: tuple[str, ...], status: int = 0) -> str:
    """Run commands in a new process in which nothing ``forbidden`` may be imported."""
    script = SCRIPT.format(commands=commands, forbidden=forbidden, status=status)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_no_command_of_the_product_imports_the_lab(
    tiny_model: Callable[..., Path], make_rows: Callable[..., Path], tmp_path: Path
):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(quick_settings()))
    folder = str(tmp_path / "run")
    inputs = ["--model", str(tiny_model("llama")), "--safe-data", str(make_rows(2))]
    commands = [
        ["--help"],
        ["--version"],
        ["screen", "--help"],
        [
            *("screen", str(make_rows(4)), "--output-dir", folder, "--config", str(settings)),
            *(*inputs, "--quiet"),
        ],
        ["filter", folder, "--threshold", "fraction:0.25", "--force"],
        ["finetune", folder, "--output-dir", str(tmp_path / "adapter")],
        ["report", folder],
        ["gc", folder],
        ["safe", "--output", str(tmp_path / "safe.jsonl")],
        ["check-safe", "packaged:general"],
    ]
    done = run_warm(SCRIPT.format(commands=commands, forbidden=("forgetfilter.lab",), status=0))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--signal", "rouge2"], "Did you mean 'rouge1'?"),
        (["--threshold", "pih:0.1"], "Did you mean 'phi'?"),
        (["--signal", "rouge1", "--threshold", "auto"], "Use phi:0.1"),
    ],
)
def test_a_wrong_part_is_refused_before_torch_is_imported(words: list[str], said: str):
    command = ["screen", "rows.jsonl", "--model", "nowhere", "--output-dir", "none", *words]
    assert said in run([command], ("torch", "transformers"), status=1)


def test_the_help_lists_the_products_commands_and_the_lab_in_one_place(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "]
    products = [
        "demo",
        "screen",
        "finetune",
        "report",
        "convert",
        "gc",
        "plan",
        "validate",
        "filter",
    ]
    assert listed == [*products, "show", "review", "export", "safe", "check-safe", "lab"]


def test_every_command_of_the_lab_has_its_earlier_name_too():
    def choices(parser: object) -> dict[str, object]:
        return dict(parser._subparsers._group_actions[0].choices)  # type: ignore[attr-defined]

    top = choices(build_parser())
    assert {"lab", *choices(top["lab"])} == NAMES
    assert top.keys() >= NAMES
    assert choices(build_parser(has_lab=False)).keys() == top.keys()


@pytest.mark.parametrize("words", [["testbed"], ["lab", "testbed"]], ids=" ".join)
def test_a_command_of_the_lab_runs_by_both_names(words: list[str], tmp_path: Path):
    output = tmp_path / "safe.jsonl"
    assert main([*words, "safe", "--rows", "3", "--output", str(output)]) == 0
    assert len(output.read_bytes().splitlines()) == 3
