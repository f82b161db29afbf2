"""Speed and memory on a GPU, with random weights of real sizes: about ten minutes, one command.

    python benchmarks/gpu.py [--sizes 0.5B 1.5B 8B] [--rounds 5] [--json FILE]

For each size: tokens a second of scoring and of learning, and their share of the GPU's matrix peak
in bfloat16 (counted FLOPs, peak measured in the same process); the most memory in use; and whether
bfloat16 ranks rows as float32 does (Spearman's correlation of the rise of losses under a small
random adapter, where float32 fits). Ways take turns, and the first round warms up. Without a GPU it
says so and ends with status 0; `--sizes tiny --device cpu` runs anywhere.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgetfilter.config import LoraSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.placement import Placement
from forgetfilter.model.measuring.divergence import safe_gradient
from forgetfilter.model.passes.costs import Costs, count_costs
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.model.passes.gpu_memory import fitting_tokens
from forgetfilter.model.training.speed import matrix_peak, timed
from forgetfilter.progress import Progress
from parts.side_by_side import keep, shown, spread

SILENT = Progress(is_silent=True)
SIZES: dict[str, dict[str, Any]] = {
    # As Qwen2.5-0.5B and -1.5B, and Llama-3.1-8B.
    "0.5B": {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "1.5B": {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "8B": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
_RANKED = 128
"""Rows that both formats rank."""


def rows_of(count: int, tokens: int, vocabulary: int) -> list[EncodedRow]:
    """Random rows, the last third of each to be learned."""
    generator = np.random.default_rng(0)
    given = {"is_target": np.arange(tokens) >= 2 * tokens // 3, "prompt_length": 2 * tokens // 3}
    ids = generator.integers(0, vocabulary, (count, tokens), dtype=np.int32)
    return [EncodedRow(row=at, input_ids=own, target="", **given) for at, own in enumerate(ids)]


def load(size: str, placement: Placement) -> Any:
    """A random model with a small random adapter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SIZES[size])
    with torch.device(placement.device):
        model = LlamaForCausalLM._from_config(config, dtype=torch.float32)
    model = model.to(placement.dtype).requires_grad_(False).eval()
    if placement.has_autocast:
        model.forward = torch.autocast(placement.device, placement.dtype)(model.forward)
    wrapped = add_adapter(model, LoraSettings()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return wrapped


def measure(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """One size: speeds, shares, memory, and the ranking against float32."""
    device = options.device
    placement = Placement(device, torch.bfloat16, "benchmark")
    model = load(size, placement)
    config = model.get_base_model().config
    costs = count_costs(config, LoraSettings(), torch.bfloat16, autocast=placement.has_autocast)
    tokens = options.tokens
    memory = _memory(device)
    limits = (memory, costs.weights(), device)
    budgets = [min(8192, fitting_tokens(costs, *limits, is_training=t)) for t in (False, True)]
    rows = rows_of(max(1, budgets[0] // tokens) * options.passes, tokens, config.vocab_size)
    learned = rows[: max(1, budgets[1] // tokens)]
    work = {"scoring": rows, "learning": learned}

    def run(name: str) -> None:
        if name == "scoring":
            completion_losses(model, rows, budgets[0], SILENT, "")
        else:
            safe_gradient(model, learned, "completion_loss", budgets[1], SILENT, "")

    found: dict[str, list[float]] = {"peak": []}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for turn in range(options.rounds + 1):
        peak = matrix_peak(torch.bfloat16, device)
        for name, over in work.items():
            seconds = timed(lambda name=name: run(name), device)
            if turn:
                flops = _flops(costs, over, is_training=name == "learning")
                found.setdefault(f"{name}, tokens/s", []).append(len(over) * tokens / seconds)
                found.setdefault(f"{name}, share of peak", []).append(flops / seconds / peak)
        if turn:
            found["peak"].append(peak / 1e12)
    told: dict[str, Any] = {name: spread(values) for name, values in found.items()}
    told["parameters"] = costs.parameters
    if device == "cuda":
        told["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    ranked = rows_of(_RANKED, tokens, config.vocab_size)
    low = _rises(model, ranked, budgets[0])
    model = None
    _free(device)
    if costs.parameters * 4 < 0.7 * memory:
        exact = load(size, Placement(device, torch.float32, "benchmark"))
        told["rank_correlation"] = _spearman(low, _rises(exact, ranked, budgets[0]))
    return told


def _flops(costs: Costs, rows: list[EncodedRow], *, is_training: bool) -> float:
    growth = costs.training if is_training else costs.forward
    targets = sum(row.target_tokens for row in rows)
    return growth.of(len(rows), len(rows[0].input_ids)) + costs.head(
        targets, is_training=is_training
    )


def _rises(model: Any, rows: list[EncodedRow], budget: int) -> Any:
    """How much the adapter raises each row's loss, nats."""
    after = completion_losses(model, rows, budget, SILENT, "").loss_sum
    with model.disable_adapter():
        return after - completion_losses(model, rows, budget, SILENT, "").loss_sum


def _spearman(one: Any, other: Any) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def _memory(device: str) -> float:
    if device == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory)
    return 4e9


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.5B", "1.5B", "8B"])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tokens", type=int, default=512, help="of a row")
    parser.add_argument("--passes", type=int, default=2, help="of scoring, each as full as fits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=540, help="no size begins after these")
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("No GPU here: nothing was measured. `--sizes tiny --device cpu` runs anywhere.")
        return
    begun = time.monotonic()
    found: dict[str, Any] = {}
    for size in options.sizes:
        if time.monotonic() - begun > options.seconds:
            print(f"{size}: left out, the time is over")
            continue
        told = found[size] = measure(size, options)
        print(f"{size}: {told['parameters'] / 1e6:,.1f}M parameters")
        for name, values in told.items():
            if isinstance(values, dict):
                print(f"  {name}: {shown(values, 3 if 'share' in name else 1)}")
        for name in ("memory_gb", "rank_correlation"):
            if name in told:
                print(f"  {name}: {told[name]:.4f}", flush=True)
        keep(options.json, {"rounds": options.rounds, "sizes": found})


if __name__ == "__main__":
    main()
