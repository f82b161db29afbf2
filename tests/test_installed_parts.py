"""A part in an installed package: listed, accepted and held to the contract like those in here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import quick_settings
from forgetfilter.cli import main
from warm import run_warm

ROOT = Path(__file__).parent.parent
PARTS = '''
import numpy as np

from forgetfilter.scoring.records import Cut, Probe, Readings, SignalScores


class Steady:
    """Rise of the completion loss over a forgetting run, doubled; nats per two tokens."""

    name = "steady"
    unit = "nats per two tokens"
    default_rule = "upper_half"
    probes = (Probe("loss", "base"), Probe("loss", "learned"), Probe("loss", "forgotten"))

    def combine(self, readings: Readings) -> SignalScores:
        base, before = readings.loss_mean("base"), readings.loss_mean("learned")
        after = readings.loss_mean("forgotten")
        return SignalScores(base, before, after, forgetting_score=2 * (after - before))


class UpperHalf:
    """Cut at the median of the scores that may be cut."""

    name = "upper_half"
    units = frozenset({"nats per two tokens"})

    def cut(self, scores, is_eligible, readings):
        return Cut(float(np.median(scores[is_eligible])) if is_eligible.any() else 0.0)
'''
STRATEGY = '''
from forgetfilter.lab.strategies import STRATEGIES, Strategy


@STRATEGIES.add("plain")
class Plain(Strategy):
    """Fine-tune on all rows."""

    name = "plain"
'''
ENTRIES = """
[forgetfilter.signals]
steady = steady_parts:Steady
[forgetfilter.thresholds]
upper_half = steady_parts:UpperHalf
[forgetfilter.strategies]
plain = steady_strategy
"""


def install(folder: Path, distribution: str, entries: str, **modules: str) -> Path:
    """What an installer leaves in a folder of the search path: modules and metadata."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    modules = {"steady_parts": PARTS, "steady_strategy": STRATEGY}
    return install(folder, "steady-forgetting", ENTRIES, **modules)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    entries = "[forgetfilter.signals]\ncracked = cracked_parts:Cracked\n"
    module = "import no_such_module_anywhere\n"
    return install(tmp_path / "broken", "cracked-forgetting", entries, cracked_parts=module)


COMMAND = """
import sys
folder, *words = sys.argv[1:]
sys.path.insert(0, folder)
from forgetfilter.cli import main
sys.exit(main(words))
"""
"""A command for which the packages in a folder are installed."""


def run(folder: Path, *words: str, timeout: float = 250) -> subprocess.CompletedProcess[str]:
    """A process of its own, for which the packages in ``folder`` are installed."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        cwd=ROOT,
    )


@pytest.mark.parametrize(
    ("command", "listed"),
    [
        (
            "screen",
            "completion_loss, contradiction, crossfit, rate, restoration, rouge1, "
            "self_training, steady",
        ),
        ("screen", "auto, conformal, fraction, phi, reviewed, upper_half"),
        ("filter", "auto, conformal, fraction, phi, reviewed, upper_half"),
        (
            "demo",
            "completion_loss, contradiction, crossfit, rate, restoration, rouge1, "
            "self_training, steady",
        ),
        ("compare", "none, oracle_removal, plain, random_removal"),
        ("interleave", "none, oracle_removal, plain, random_removal"),
    ],
)
def test_the_help_lists_installed_parts_and_imports_none(steady: Path, command: str, listed: str):
    script = (
        "import sys\n"
        "from forgetfilter.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "loaded = {'torch', 'pandas', 'steady_parts', 'steady_strategy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = run(steady, "-c", script)
    assert done.returncode == 0, done.stderr
    assert listed in " ".join(done.stdout.split())


def screen_words(
    tiny_model: Callable[..., Path], make_rows: Callable[..., Path], output: Path
) -> list[str]:
    settings = quick_settings(
        noisy_data=str(make_rows(8)),
        safe_data=str(make_rows(4, start=100)),
        reference_data=str(make_rows(4, start=200)),
        model=str(tiny_model("llama")),
        output_dir=str(output),
        learn={"max_steps": 40, "batch_size": 8, "learning_rate": 2e-2},
        lora={"r": 8, "alpha": 16},
    )
    file = output.with_name("settings.yaml")
    file.write_text(yaml.safe_dump(settings))
    return ["screen", "--config", str(file), "--quiet"]


def test_a_screen_runs_with_an_installed_signal_and_its_own_rule(
    steady: Path, tiny_model: Any, make_rows: Any, tmp_path: Path
):
    words = screen_words(tiny_model, make_rows, tmp_path / "run")
    done = run_warm(COMMAND, steady, *words, "--signal", "steady")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["signal"], summary["unit"]) == ("steady", "nats per two tokens")
    assert summary["threshold"]["rule"] == "upper_half"
    assert 0 < summary["removed"] < summary["rows"]
    # Without the package the run can be decided again, by a rule for any unit.
    assert main(["filter", str(tmp_path / "run"), "--threshold", "phi:1e9", "--force"]) == 0


def test_a_wrong_name_is_answered_with_the_installed_ones(steady: Path):
    done = run(steady, "-m", "forgetfilter", "filter", "nowhere", "--threshold", "uper_half")
    assert done.returncode == 1
    assert "Did you mean 'upper_half'?" in done.stderr
    assert "auto, conformal, fraction, phi, reviewed, upper_half" in done.stderr


def test_a_package_that_cant_be_loaded_is_told_in_a_line_and_costs_no_other_part(
    broken: Path, tiny_model: Any, make_rows: Any, tmp_path: Path
):
    words = screen_words(tiny_model, make_rows, tmp_path / "run")
    done = run_warm(COMMAND, broken, *words, "--signal", "cracked")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "package cracked-forgetting" in line
    assert "No module named 'no_such_module_anywhere'" in line
    assert not (tmp_path / "run").exists()
    script = (
        "from forgetfilter.scoring.signals import SIGNALS as S; S.build('rouge1'); print(S.names())"
    )
    assert "'cracked'" in run(broken, "-c", script).stdout


@pytest.mark.slow
def test_the_contract_finds_installed_parts(steady: Path):
    words = ["-m", "pytest", "tests/test_contract.py", "-p", "no:cacheprovider", "-p", "no:xdist"]
    chosen = "steady or upper_half or (plain and not budget) or documented"
    done = run(steady, *words, "-v", "-k", chosen, timeout=290)
    assert done.returncode == 0, done.stdout
    passed = [line for line in done.stdout.splitlines() if "PASSED" in line]
    for part in ("steady", "upper_half", "plain"):
        assert sum(part in line for line in passed) >= 3, part
