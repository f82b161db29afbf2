"""The output layer three ways: logits at once, in parts, and TRL's chunked head; time and memory.

    OMP_NUM_THREADS=1 python benchmarks/answer_head.py [--vocabulary 32000 128000 256000]

A Llama of one layer with random weights and one batch, half of its tokens to be learned; the
gradient of their loss, in turn. "at once" makes the logits of every completion token together, as
earlier versions did; "in parts" is what the package does; "TRL" is the head that its trainer puts
on a model, which without Triton scores every position. Memory is what the process holds more at
most (Linux). Lower is better.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgetfilter.config import LoraSettings
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.passes import answer_head, limits
from forgetfilter.model.passes.forward import row_batches
from matrix_peak import random_rows
from parts.side_by_side import keep, ratios, shown, spread, take_turns

AT_ONCE, IN_PARTS, TRL = "at once", "in parts", "TRL's chunked head"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32_000, 128_000, 256_000])
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128, help="of a row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parser.parse_args()
    found: dict[str, Any] = {"rounds": options.rounds}
    print("| vocabulary | way | seconds of the processor | times at once | memory, MB |")
    print("|---|---|---|---|---|")
    for vocabulary in options.vocabulary:
        found[str(vocabulary)] = measure(vocabulary, options)
    keep(options.json, found)


def measure(vocabulary: int, options: argparse.Namespace) -> dict[str, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(0)
    width = options.width
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=1,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        tie_word_embeddings=True,
    )
    base = LlamaForCausalLM(config).requires_grad_(False)
    add_fused_lm_head(base)
    model = add_adapter(base, LoraSettings()).eval()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rows = random_rows(options.rows, options.tokens, vocabulary)
    (batch,) = row_batches(model, rows, 2**20)
    labels = torch.where(
        torch.tensor(np.stack([row.is_target for row in rows])), batch.input_ids, -100
    )
    usual = limits.MOST_LOGITS["cpu"]
    values: dict[str, float] = {}
    memory: dict[str, list[float]] = {}

    def by_tokens(way: str) -> None:
        limits.MOST_LOGITS["cpu"] = 2**40 if way == AT_ONCE else usual
        loss = answer_head.token_nats(model, batch).mean()
        torch.autograd.grad(loss, weights)
        values[way] = float(loss.detach())

    def by_trl() -> None:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        loss = model(**inputs, labels=labels, fused_lm_head=True).loss
        torch.autograd.grad(loss, weights)
        values[TRL] = float(loss.detach())

    def noted(way: str, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            before = _held(is_reset=True)
            work()
            memory.setdefault(way, []).append((_held() - before) / 2**20)

        return run

    ways = {name: noted(name, lambda name=name: by_tokens(name)) for name in (AT_ONCE, IN_PARTS)}
    ways[TRL] = noted(TRL, by_trl)
    take_turns(ways, 1)  # warms up
    memory.clear()
    turns = take_turns(ways, options.rounds)
    limits.MOST_LOGITS["cpu"] = usual
    told: dict[str, Any] = {}
    for name, own in turns.items():
        seconds = spread([turn["cpu"] for turn in own])
        times = ratios(turns, name, AT_ONCE)
        more = spread(memory[name])
        told[name] = {"cpu_seconds": seconds, "times": times, "mb": more, "loss": values[name]}
        row = f"| {vocabulary:,} | {name} | {shown(seconds)} | {shown(times)} | {shown(more, 0)} |"
        print(row, flush=True)
    assert max(values.values()) - min(values.values()) < 1e-4, values
    return told


def _held(*, is_reset: bool = False) -> float:
    """Bytes that the process has held at most since the last reset; at a reset, that it holds."""
    name = "VmHWM"
    if is_reset:
        Path("/proc/self/clear_refs").write_text("5")
        name = "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
