"""What a plan counts is what a screen then does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetfilter.cli import main
from forgetfilter.config import LoraSettings, ScreenConfig, resolve
from forgetfilter.data.writing import write_records
from forgetfilter.lab.testbed import bundled_model_path, make_noisy, make_safe
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.passes.costs import count_costs
from forgetfilter.model.passes.gpu_memory import fitting_tokens
from forgetfilter.progress import Progress
from forgetfilter.screening.planning.planning import plan_screen
from forgetfilter.screening.screen import screen

LORA = LoraSettings(r=2, alpha=4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt", "gemma3", "qwen3_moe"])
def test_a_pass_costs_two_flops_a_parameter_and_gradients_as_much_again(
    tiny_tokenizer: Callable[..., Any], architecture: str
):
    model = build_model(architecture, tiny_tokenizer())
    costs = count_costs(model.config, LORA, torch.float32, autocast=False)
    assert costs.parameters == sum(weight.numel() for weight in model.parameters())
    assert costs.is_counted == (architecture != "qwen3_moe")
    wrapped = add_adapter(model.requires_grad_(False), LORA)
    assert costs.adapter == sum(w.numel() for w in wrapped.parameters() if w.requires_grad)
    products = [m for m in wrapped.modules() if isinstance(m, torch.nn.Linear)]
    output = wrapped.get_base_model().get_output_embeddings()
    passed = sum(module.weight.numel() for module in products if module is not output)
    if architecture == "gpt2":  # whose layers are of a class of their own
        layers = [m for m in wrapped.modules() if type(m).__name__ == "Conv1D"]
        passed += sum(module.weight.numel() for module in layers)
    if costs.is_counted:
        assert costs.forward.per_token == pytest.approx(2 * passed, rel=0.01)
        assert 1.9 < costs.training.per_token / costs.forward.per_token < 2.6
        assert costs.forward.per_square > 0 < costs.kept.per_token
    else:  # two of four experts are idle, in either layer
        embeddings, idle = 2 * output.weight.numel(), 2 * 2 * 3 * 32 * 32
        used = costs.parameters - embeddings - idle + costs.adapter
        assert costs.forward.per_token == 2 * used


def test_weights_in_fewer_bits_and_checkpointing_leave_more_room():
    import transformers

    config = transformers.LlamaConfig(num_hidden_layers=4, tie_word_embeddings=False)
    costs = count_costs(config, LoraSettings(), torch.bfloat16, autocast=False)
    assert costs.weights() == 2 * costs.parameters
    assert 0.5 < (costs.weights(4) - 2 * 2 * 32_000 * 4096) / costs.linear < 0.6
    assert costs.weights(4) < costs.weights(8) < costs.weights()
    assert costs.training_bytes(1, 512, checkpointed=True) < costs.training_bytes(1, 512)
    room = [
        fitting_tokens(costs, 6e9, costs.weights(), "cuda", is_training=t, checkpointed=c)
        for t, c in ((True, False), (True, True), (False, False))
    ]
    assert 256 <= room[0] < room[1]
    assert room[0] < room[2]


def test_a_screen_passes_over_the_tokens_that_were_planned(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from transformers.models.llama import modeling_llama

    config = quick_config(tmp_path / "run", coverage="off")
    plan = plan_screen(config, flops=1e12)
    plain = modeling_llama.LlamaModel.forward
    counted = {"learn": 0, "other": 0}

    def forward(self: Any, input_ids: Any = None, **inputs: Any) -> Any:
        counted["learn" if self.training else "other"] += input_ids.numel()
        return plain(self, input_ids=input_ids, **inputs)

    monkeypatch.setattr(modeling_llama.LlamaModel, "forward", forward)
    screen(config, Progress(is_silent=True))
    phases = {name: phase["tokens"] for name, phase in plan["phases"].items()}
    learned = phases["learn"] + phases["learn_halves"]
    assert counted["learn"] == pytest.approx(learned, rel=0.15)
    assert counted["other"] == pytest.approx(phases["restore"] + phases["score"], rel=0.25)


def test_a_plan_is_printed_and_says_what_does_not_fit(
    tiny_model: Callable[..., Path],
    make_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
):
    words = ["plan", str(make_rows(8)), "--model", str(tiny_model("llama")), "--flops", "1"]
    words += ["--safe-data", str(make_rows(4, start=100))]
    assert main([*words, "--gpu-memory", "80", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fits"]
    assert set(told["phases"]) >= {"learn", "learn_halves", "restore", "score", "retrain"}
    assert told["screen"]["seconds"] > 0
    assert main([*words, "--gpu-memory", "0.1"]) == 1
    said = capsys.readouterr().out
    assert "Doesn't fit" in said
    assert "Advice: " in said
    assert main([*words, "--gpu-memory", "80"]) == 0
    said = capsys.readouterr().out
    assert "whole screen" in said
    assert "more memory than is planned" not in said
    assert main([*words, "--set", "device=cpu", "--set", "dtype=bfloat16"]) == 0
    assert "In bfloat16 a CPU takes more memory than is planned" in capsys.readouterr().out


def test_help_of_the_command_loads_no_torch():
    code = (
        "import sys, contextlib\nfrom forgetfilter.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['plan', '--help'])\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"--gpu-memory" in done.stdout


@pytest.mark.slow
def test_a_plan_is_within_a_third_of_what_is_measured(tmp_path: Path):
    """In seconds of the processor, on the bundled model; benchmarks/plan_check.py has more."""
    import forgetfilter.runs.stages as stages

    write_records(tmp_path / "noisy.jsonl", make_noisy(96, 0.3, 0)[0])
    write_records(tmp_path / "safe.jsonl", make_safe(100, 0))
    given = {
        "noisy_data": str(tmp_path / "noisy.jsonl"),
        "safe_data": str(tmp_path / "safe.jsonl"),
        "model": str(bundled_model_path()),
        "output_dir": str(tmp_path / "run"),
        "coverage": "off",
        "force": True,
        "learn": {"num_train_epochs": 3, "stop": "epochs"},
    }
    config = resolve(ScreenConfig, given)
    plan = plan_screen(config, clock=time.process_time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages.time, "perf_counter", time.process_time)
        screen(config, Progress(is_silent=True))
    told = [json.loads(p.read_text())["seconds"] for p in (tmp_path / "run").rglob("stage.json")]
    assert plan["screen"]["seconds"] == pytest.approx(sum(told), rel=0.3)
