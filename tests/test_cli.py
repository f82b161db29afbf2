"""The command line: every command explains itself, and a wrong setup gets a sentence, no trace."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import forgetfilter
from conftest import quick_settings
from forgetfilter.cli import build_parser, main
from forgetfilter.config import ScreenConfig, load_yaml, resolve
from forgetfilter.errors import ConfigError

ROOT = Path(__file__).parent.parent


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command of the parser with the words that lead to it."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from commands(child, (*path, name))


COMMANDS = dict(commands(build_parser()))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_prints_its_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as done:
        main([*words, "--help"])
    assert done.value.code == 0
    assert "usage: forgetfilter" in capsys.readouterr().out


def test_the_commands_are_those_of_the_documentation():
    top = {words[0] for words in COMMANDS if words}
    assert {
        "demo",
        "screen",
        "filter",
        "finetune",
        "report",
        "safe",
        "check-safe",
        "mix",
        "testbed",
    } <= top
    assert {"compare", "interleave"} <= top
    assert {words[1] for words in COMMANDS if words[:1] == ("testbed",) and words[1:]} == {
        "build",
        "path",
        "safe",
        "noisy",
    }


def test_help_and_version_import_nothing_heavy():
    script = (
        "import sys\n"
        "from forgetfilter.cli import main\n"
        "try: main(['screen', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'pandas', 'numpy', 'datasets', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [None, "true"])
def test_the_host_programs_tokenizer_threads_are_left_alone(value: str | None):
    script = (
        "import os\n"
        "import forgetfilter, forgetfilter.cli\n"
        "print(os.environ.get('TOKENIZERS_PARALLELISM'))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    environment |= {} if value is None else {"TOKENIZERS_PARALLELISM": value}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(value)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == forgetfilter.__version__


def test_the_module_is_the_command_line_too():
    done = subprocess.run(
        [sys.executable, "-m", "forgetfilter", "filter", "nowhere", "--threshold", "phi:0.1"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("forgetfilter: 'nowhere' is not a run folder")
    assert "Traceback" not in done.stderr


@pytest.fixture
def arguments(
    tiny_model: Callable[..., Path], make_rows: Callable[..., Path], tmp_path: Path
) -> dict[str, str]:
    return {
        "noisy": str(make_rows(4)),
        "--model": str(tiny_model("llama")),
        "--safe-data": str(make_rows(2)),
        "--output-dir": str(tmp_path / "run"),
    }


def command(arguments: dict[str, str]) -> list[str]:
    flags = [word for pair in arguments.items() if pair[0] != "noisy" for word in pair]
    return ["screen", arguments["noisy"], *flags] if arguments["noisy"] else ["screen", *flags]


@pytest.mark.parametrize(
    ("changes", "found", "remedy"),
    [
        ({"noisy": "nothing.jsonl"}, "Can't read noisy_data 'nothing.jsonl'", "Check the path"),
        ({"--safe-data": "nothing.jsonl"}, "Can't read safe_data", "Check the path"),
        ({"--model": "nothing"}, "Can't load the config of 'nothing'", "Check --model"),
        ({"--signal": "rouge2"}, "Unknown signal 'rouge2'", "Did you mean 'rouge1'?"),
        ({"--signal": "rouge1:x=1"}, "has no option 'x'", "Options: reference"),
        ({"--threshold": "fraction:2"}, "fraction is 2", "for example fraction:0.1"),
        ({"--threshold": "pih:0.1"}, "Unknown threshold rule 'pih'", "Did you mean 'phi'?"),
        (
            {"--signal": "rouge1", "--threshold": "auto"},
            "'auto' is made for scores in nats per token",
            "Use phi:0.1",
        ),
        ({"--signal": "rate"}, "'rate' has no threshold rule of its own", "Name one of fraction"),
        ({"--preset": "papper"}, "preset is 'papper'", "expected one of default, paper"),
        ({"--seed": "-1"}, "Setting 'seed' is -1", "greater than or equal to 0"),
        ({"--device": "tpu"}, "Setting 'device' is 'tpu'", "'cpu'"),
        ({"--set": "learn.epochs=3"}, "Unknown setting 'learn.epochs'", "did you mean 'learn."),
        ({"--set": "learn"}, "--set was given 'learn'", "for example --set"),
        ({"--config": "nothing.yaml"}, "Can't read the settings file nothing.yaml", "--config"),
        ({"--safe-data": "packaged"}, "Can't read safe_data 'packaged'", "Check the path"),
        ({"noisy": ""}, "Setting 'noisy_data' is missing", "give it as a flag or in the YAML"),
    ],
)
def test_a_wrong_setup_is_told_in_a_sentence_and_nothing_is_written(
    arguments: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    found: str,
    remedy: str,
):
    assert main(command({**arguments, **changes})) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("forgetfilter: ")
    assert found in said.err
    assert remedy in said.err
    assert "Traceback" not in said.err
    assert not Path(arguments["--output-dir"]).exists()


def test_a_broken_settings_file_is_told(
    arguments: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    path = tmp_path / "bad.yaml"
    path.write_text("seed: [1")
    assert main(command({**arguments, "--config": str(path)})) == 1
    assert "is not valid YAML" in capsys.readouterr().err


def test_flags_win_over_assignments_and_those_over_the_file(
    arguments: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(quick_settings(seed=1, threshold="phi:0.3")))
    changes = {"--config": str(settings), "--seed": "3", "--set": "threshold=phi:0.2"}
    assert main([*command({**arguments, **changes}), "--quiet"]) == 0
    config = resolve(ScreenConfig, load_yaml(Path(arguments["--output-dir"], "config.yaml")))
    assert (config.seed, config.threshold) == (3, "phi:0.2")
    assert config.learn.max_steps == 2
    said = capsys.readouterr()
    assert "(contradiction, phi:0.2)" in said.out
    # Silent, the libraries below too; but what is wrong with the scores is told.
    told = ("forgetfilter: severe: ", "forgetfilter: warning: ")
    assert all(line.startswith(told) for line in said.err.splitlines())
    assert "noisy_rows_unknown" in said.err


@pytest.mark.parametrize(("signal", "threshold"), [("rouge1", "phi:0.1"), ("rate", "fraction:0.1")])
def test_a_run_is_never_decided_by_a_rule_for_another_unit_and_the_advice_works(
    arguments: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    signal: str,
    threshold: str,
):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(quick_settings(signal=signal)))
    given = command({**arguments, "--config": str(settings), "--threshold": threshold})
    assert main([*given, "--quiet"]) == 0
    run = Path(arguments["--output-dir"])
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    capsys.readouterr()
    assert main(["filter", str(run), "--threshold", "auto"]) == 1
    said = capsys.readouterr().err
    assert "'auto' is made for scores in nats per token" in said
    assert {p: p.read_bytes() for p in before} == before
    assert threshold in said  # what the screen ran with, and `filter` takes
    assert main(["filter", str(run), "--threshold", threshold, "--force"]) == 0


def test_a_demo_with_a_rule_for_another_unit_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--output-dir", str(tmp_path / "demo"), "--signal", "rouge1", "--threshold", "auto"]
    assert main(["demo", *words]) == 1
    assert "Use phi:0.1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_python_class_refuses_a_rule_for_another_unit_at_once():
    with pytest.raises(ConfigError, match=r"Use phi:0\.1"):
        forgetfilter.ForgetFilter("nowhere", signal="rouge1", threshold="auto")


@pytest.mark.parametrize(
    "words",
    [
        ["screen", "--preset", "paper", "--nonsense"],
        ["filter"],
        ["filter", "run", "--action", "drop"],
        ["show", "run"],
        ["finetune", "run"],
        ["testbed", "noisy", "--output", "a", "--truth", "b", "--unsafe-fraction", "2"],
        ["testbed", "safe", "--output", "a", "--rows", "0"],
        ["safe"],
        ["safe", "--output", "a", "--categories"],
        [],
    ],
)
def test_wrong_words_are_answered_with_the_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 2
    assert "usage: forgetfilter" in capsys.readouterr().err


def test_an_interrupted_command_says_that_it_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("forgetfilter.screening.deciding.decide.filter_run", interrupted)
    assert main(["filter", "run", "--threshold", "phi:0.1"]) == 130
    said = capsys.readouterr().err
    assert "interrupted" in said
    assert "Traceback" not in said


def test_every_command_in_the_readme_is_one():
    words = [
        line.strip().removeprefix("$ ").split()
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.strip().removeprefix("$ ").startswith("forgetfilter ")
    ]
    assert len({line[1] for line in words}) >= 4  # the README does show how to use it
    for line in words:
        stated = [word for word in line[1:] if not word.startswith("#")]
        known = [path for path in COMMANDS if path and tuple(stated[: len(path)]) == path]
        assert known, " ".join(line)
        parser = COMMANDS[max(known, key=len)]
        flags = {flag for action in parser._actions for flag in action.option_strings}
        used = {word.partition("=")[0] for word in stated if word.startswith("--")}
        assert used <= flags, " ".join(line)
