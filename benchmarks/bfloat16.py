"""float32 against bfloat16 on this machine's CPU: speed, and how far losses and divergences move.

    python benchmarks/bfloat16.py MODEL [--rows 16] [--tokens 80] [--repeats 3]
    python benchmarks/bfloat16.py --width 192 --width 576   # random models instead

The ways take turns, so that other work on the machine slows all of them alike. "plain" is bfloat16
weights with float32 adapters that multiply in float32; "autocast" is what the package does on a
CPU. A small adapter is drawn at random; its divergence from base is known from float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgetfilter.config import LoraSettings
from forgetfilter.data.records import EncodedRow
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, quiet_dependencies
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring.divergence import divergences, safe_gradient
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)
BATCH_TOKENS = 8192
WAYS = ("float32", "plain", "autocast")


def random_model(width: int, folder: Path) -> str:
    """A six-layer Llama of this width with random weights and 8,192 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=6,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def load(source: str, way: str, scale: float) -> Any:
    """The model with an adapter whose second matrices are drawn with this standard deviation."""
    dtype: Any = "float32" if way == "float32" else "bfloat16"
    model = load_base_model(source, choose_placement("cpu", dtype))
    if way == "plain":
        model.__dict__.pop("forward", None)
    torch.manual_seed(0)
    wrapped = add_adapter(model, LoraSettings())
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, scale)
    return wrapped


def random_rows(count: int, tokens: int, vocabulary: int) -> list[EncodedRow]:
    """Rows of random tokens, the second half of each to be learned."""
    generator = np.random.default_rng(0)
    rows: list[EncodedRow] = []
    for at in range(count):
        ids = generator.integers(100, vocabulary - 100, tokens, dtype=np.int32)
        is_target = np.arange(tokens) >= tokens // 2
        row = EncodedRow(
            row=at, input_ids=ids, is_target=is_target, prompt_length=tokens // 2, target=""
        )
        rows.append(row)
    return rows


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@quiet_dependencies()
def measure(source: str, options: argparse.Namespace) -> None:
    """Print one line a way."""
    models = {way: load(source, way, options.scale) for way in WAYS}
    vocabulary = int(models["float32"].config.vocab_size)
    rows = random_rows(options.rows, options.tokens, vocabulary)
    tokens = options.rows * options.tokens
    seconds: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for _ in range(options.repeats + 1):
        for way, model in models.items():
            found = seconds[way]

            def train(model: Any = model) -> None:
                safe_gradient(model, rows, "completion_loss", BATCH_TOKENS, SILENT, "")

            def read(model: Any = model) -> None:
                completion_losses(model, rows, BATCH_TOKENS, SILENT, "")

            found.setdefault("train", []).append(timed(train))
            found.setdefault("read", []).append(timed(read))
    losses: dict[str, Any] = {}
    apart: dict[str, Any] = {}
    for way, model in models.items():
        targets = np.array([row.target_tokens for row in rows])
        losses[way] = completion_losses(model, rows, BATCH_TOKENS, SILENT, "").loss_sum / targets
        apart[way] = divergences(model, rows, BATCH_TOKENS, SILENT, "").mean()
    print(
        f"\n{source}: {options.rows} rows of {options.tokens} tokens, {torch.get_num_threads()} "
        f"threads, adapter scale {options.scale:g}"
    )
    print(
        "| way | tokens/s, gradient | ratio | tokens/s, forward | ratio | loss off by, nats a token"
        " (largest) | divergence from base, nats a token |"
    )
    print("|---|---|---|---|---|---|---|")
    base = {kind: statistics.median(seconds["float32"][kind][1:]) for kind in ("train", "read")}
    for way in WAYS:
        own = {kind: statistics.median(seconds[way][kind][1:]) for kind in ("train", "read")}
        off = float(np.abs(losses[way] - losses["float32"]).max())
        cells = [f"{tokens / own[k]:.0f} | {base[k] / own[k]:.2f}" for k in ("train", "read")]
        print(f"| {way} | {cells[0]} | {cells[1]} | {off:.4f} | {apart[way]:.2e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="folder or GGUF file")
    parser.add_argument("--width", type=int, action="append", default=[], help="random models")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--scale", type=float, default=1e-4, help="of the adapter's second matrices"
    )
    options = parser.parse_args()
    for width in options.width:
        with tempfile.TemporaryDirectory() as folder:
            measure(random_model(width, Path(folder)), options)
    if options.model:
        measure(options.model, options)


if __name__ == "__main__":
    main()
