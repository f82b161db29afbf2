"""How much of the machine's matrix peak passes over a large model reach, by number format.

    OMP_NUM_THREADS=1 python benchmarks/matrix_peak.py [--parameters 110] [--rows 8] [--rounds 5]

A Llama of so many million random parameters, random rows. FLOPs are counted
(`forgetfilter.model.passes.costs`), the output layer for completion tokens alone; the peak is that
of square matrix products in the same process and format, measured in turn with the passes. Higher
shares are better.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgetfilter.config import LoraSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring.divergence import safe_gradient
from forgetfilter.model.passes.costs import count_costs
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.model.training.speed import matrix_peak
from forgetfilter.progress import Progress
from parts.side_by_side import keep, shown, spread

SILENT = Progress(is_silent=True)
FORMATS = ("float32", "bfloat16")


def llama(millions: float) -> Any:
    """The config of a Llama with about so many parameters and 32,000 tokens."""
    from transformers import LlamaConfig

    width = 768 if millions < 300 else 1536
    layer = 4 * width * width * 0.75 + 3 * width * width * 8 // 3
    vocabulary = 32_000
    layers = max(1, round((millions * 1e6 - vocabulary * width) / layer))
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        tie_word_embeddings=True,
    )


def random_rows(count: int, tokens: int, vocabulary: int) -> list[EncodedRow]:
    """Rows of random tokens, the second half of each to be learned."""
    generator = np.random.default_rng(0)
    given = {"is_target": np.arange(tokens) >= tokens // 2, "prompt_length": tokens // 2}
    ids = generator.integers(0, vocabulary, (count, tokens), dtype=np.int32)
    return [EncodedRow(row=at, input_ids=own, target="", **given) for at, own in enumerate(ids)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parameters", type=float, default=110, help="millions")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of a row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM

    config = llama(options.parameters)
    rows = random_rows(options.rows, options.tokens, config.vocab_size)
    targets = sum(row.target_tokens for row in rows)
    models: dict[str, Any] = {}
    flops: dict[str, float] = {}
    for name in FORMATS:
        placement = choose_placement("cpu", name)  # pyright: ignore[reportArgumentType]
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(config, dtype=placement.dtype)
        base.requires_grad_(False)
        if placement.has_autocast:
            base.forward = torch.autocast("cpu", placement.dtype)(base.forward)
        models[name] = add_adapter(base.eval(), LoraSettings()).eval()
    costs = count_costs(config, LoraSettings(), torch.float32, autocast=False)
    flops["scoring"] = costs.forward.of(options.rows, options.tokens)
    flops["scoring"] += costs.head(targets, is_training=False)
    flops["gradient"] = costs.training.of(options.rows, options.tokens)
    flops["gradient"] += costs.head(targets, is_training=True)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in FORMATS}
    for turn in range(options.rounds + 1):
        for name, model in models.items():
            peak = matrix_peak(getattr(torch, name), "cpu", time.process_time)
            seconds = {"scoring": 0.0, "gradient": 0.0}
            begun = time.process_time()
            completion_losses(model, rows, 8192, SILENT, "")
            seconds["scoring"] = time.process_time() - begun
            begun = time.process_time()
            safe_gradient(model, rows, "completion_loss", 8192, SILENT, "")
            seconds["gradient"] = time.process_time() - begun
            if turn:  # the first warms up
                found[name].setdefault("peak", []).append(peak)
                for work, spent in seconds.items():
                    found[name].setdefault(work, []).append(flops[work] / spent)
    print(
        f"{costs.parameters / 1e6:.0f}M parameters, {options.rows} rows of {options.tokens} tokens,"
        f" {options.rounds} rounds in turn\n"
    )
    print("| format | work | GFLOP/s | share of the peak | times float32 |\n|---|---|---|---|---|")
    told: dict[str, Any] = {}
    for name, own in found.items():
        for work in ("peak", "scoring", "gradient"):
            pairs = zip(own[work], own["peak"], found["float32"][work], strict=True)
            shares = [(speed / peak, speed / plain) for speed, peak, plain in pairs]
            share, faster = (spread(list(values)) for values in zip(*shares, strict=True))
            speed = spread([value / 1e9 for value in own[work]])
            told[f"{name}, {work}"] = {"gflops": speed, "share": share, "times_float32": faster}
            print(f"| {name} | {work} | {shown(speed, 1)} | {shown(share)} | {shown(faster)} |")
    keep(options.json, {"parameters": costs.parameters, "rounds": options.rounds, "found": told})


if __name__ == "__main__":
    main()
