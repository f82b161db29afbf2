"""Compare ways to find unsafe rows of a real mix, on the same few models of one seed.

    forgetfilter mix --part reporting --rows 300 --tasks alpaca dolly sst2 agnews squad \\
        --max-characters 700 --safe-rows 300 --output-dir MIX
    OMP_NUM_THREADS=1 python benchmarks/real_leads.py --model DIR --mix MIX --output-dir OUT

Three adapters are trained as `crossfit` trains them (all rows, and either half), each is restored
from its end and from its early passes, and every row's tokens are read in all of them. What is
printed are AUROC and average precision (higher is better) of each lead over all rows, and of each
harm against the harmless rows of its own sources. docs/lab/transfer.md keeps the tables.

The training loop is this file's own: it computes logits of answer tokens only, which makes a model
with a large vocabulary learn several times as fast on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forgetfilter.config import LoraSettings, RestoreSettings
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.model_files import hidden_size
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.measuring.divergence import trainable_parameters
from forgetfilter.model.measuring.likeness import nearest_rows
from forgetfilter.model.passes.forward import row_batches, target_logits, target_nats, token_losses
from forgetfilter.model.state import phase_seed
from forgetfilter.model.training.defaults import width_epochs, width_learning_rate
from forgetfilter.model.training.restoring import RestorePlan, restore
from forgetfilter.progress import Progress
from forgetfilter.scoring.records import NEIGHBOURS

SILENT = Progress(is_silent=True)
BATCH, LIMIT = 8, 2048
Array = np.ndarray[Any, Any]


def weights_of(model: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainable_parameters(model).values()]


@torch.no_grad()
def put(model: Any, values: Sequence[torch.Tensor]) -> None:
    for weight, value in zip(trainable_parameters(model).values(), values, strict=True):
        weight.copy_(value)


def descend(
    model: Any, rows: Sequence[EncodedRow], steps: int, rate: float, batch: int, seed: int
) -> list[list[torch.Tensor]]:
    """AdamW on the completion loss; the weights at half of the steps, and at the end."""
    rng, order = random.Random(seed), list[int]()
    optimizer = torch.optim.AdamW(
        list(trainable_parameters(model).values()), lr=rate, weight_decay=0.0
    )
    kept: list[list[torch.Tensor]] = []
    for step in range(steps):
        if len(order) < batch:
            order += rng.sample(range(len(rows)), len(rows))
        chosen, order = [rows[at] for at in order[:batch]], order[batch:]
        for group in optimizer.param_groups:  # level, and down to nothing over the last third
            group["lr"] = rate * min(1.0, (step + 1) / 3, 3 * (steps - step) / steps)
        tokens = sum(row.target_tokens for row in chosen)
        for part in row_batches(model, chosen, LIMIT):
            (target_nats(target_logits(model, part), part).sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_(list(trainable_parameters(model).values()), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step + 1 == steps // 2:
            kept.append(weights_of(model))
    return [*kept, weights_of(model)]


@torch.no_grad()
def hidden(model: Any, rows: Sequence[EncodedRow]) -> Array:
    """Mean over the answer's tokens of the base model's states two thirds of the way up, (N, D)."""
    found: list[Array] = [np.zeros(0)] * len(rows)
    for batch in row_batches(model, rows, LIMIT):
        with model.disable_adapter():
            states = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                output_hidden_states=True,
                logits_to_keep=1,
            ).hidden_states
        middle = states[2 * len(states) // 3].float()
        for at, index in enumerate(batch.indices):
            row = rows[index]
            own = torch.tensor(row.is_target)
            found[index] = middle[at, : len(own)][own].mean(0).numpy()
    return np.stack(found)


def build(model: Any, noisy: Sequence[EncodedRow], safe: Sequence[EncodedRow], args: Any) -> None:
    """Train, restore and read; what was read lies in OUT, one file a state."""
    out = Path(args.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    width = hidden_size(args.model)
    rate = args.learning_rate or width_learning_rate(width)
    epochs = args.epochs or width_epochs(width)
    fresh = weights_of(model)
    started = time.monotonic()

    def read(name: str) -> None:
        losses = token_losses(model, noisy, LIMIT, SILENT, name)
        np.savez(out / f"{name}.npz", *losses)
        print(f"{time.monotonic() - started:6.0f} s  {name}", flush=True)

    with model.disable_adapter():
        read("base")
        alike = nearest_rows(model, noisy, NEIGHBOURS, LIMIT, SILENT, "neighbours")
    np.save(out / "neighbours.npy", alike)
    np.savez(out / "hidden.npz", noisy=hidden(model, noisy), safe=hidden(model, safe))
    halves = np.random.default_rng(args.seed).permutation(len(noisy))
    parts = {"all": halves, "a": halves[0::2], "b": halves[1::2]}
    for name, chosen in parts.items():
        if (out / f"{name}_end_restored.npz").is_file():
            continue
        put(model, fresh)
        rows = [noisy[at] for at in sorted(chosen)]
        steps = math.ceil(epochs * len(rows) / BATCH)
        states = descend(model.train(), rows, steps, rate, BATCH, phase_seed(args.seed, name))
        model.eval()
        for end, state, few in (("early", states[0], 8), ("end", states[1], 16)):
            put(model, state)
            read(f"{name}_{end}")
            if name == "all" and end == "end":
                descend(model, safe, 5, rate, 32, args.seed)
                read("all_end_adamw5")
                put(model, state)
            settings = RestoreSettings(steps=few)
            course = restore(model, RestorePlan(safe, settings, args.seed, LIMIT), SILENT)
            print("divergence", [round(v, 3) for v in course.divergences], flush=True)
            read(f"{name}_{end}_restored")


def leads(out: Path) -> dict[str, Array]:
    """Scores of every row by each lead, higher = suspected unsafe."""

    def tokens(name: str) -> list[Array]:
        found = np.load(out / f"{name}.npz")
        return [found[f"arr_{at}"] for at in range(len(found.files))]

    base = tokens("base")
    length = np.array([len(own) for own in base])
    pairs = [
        (tokens(f"{name}_{end}"), tokens(f"{name}_{end}_restored"))
        for name in ("all", "a", "b")
        for end in ("end", "early")
    ]

    def each(combine: Callable[[Array, Array], float], chosen: Sequence[int] = range(6)) -> Array:
        return np.array(
            [
                [combine(after - before, before) for before, after in zip(*pairs[at], strict=True)]
                for at in chosen
            ]
        )

    def discounted(decay: float) -> Callable[[Array, Array], float]:
        def combine(rise: Array, before: Array) -> float:
            weights = decay ** np.arange(len(rise))
            return float(weights @ rise / np.linalg.norm(weights))

        return combine

    def bounded(rise: Array, before: Array) -> float:
        return float(rise.sum() / np.sqrt(len(rise) * max(before.mean(), 0.1)))

    def highest(rise: Array, before: Array) -> float:
        return float(np.sort(rise)[::-1][: max(1, len(rise) // 10)].mean())

    mean_rise = each(lambda rise, _: float(rise.mean()))
    six = each(discounted(0.95))
    states = np.load(out / "hidden.npz")
    median = np.median(six, axis=0)
    alike = np.load(out / "neighbours.npy")
    halved = 0.5 * six + 0.5 * six[:, alike].mean(axis=2)
    unlike = _unlike(states["noisy"], states["safe"])
    adamw = np.array(
        [b.sum() - a.sum() for a, b in zip(pairs[0][0], tokens("all_end_adamw5"), strict=True)]
    )
    return {
        "rise a token, larger of the two ends of one model (restoration)": mean_rise[:2].max(0),
        "the same, early end alone": mean_rise[1],
        "AdamW, 5 steps on the safe rows: rise a token (completion_loss)": adamw / length,
        "summed rise / sqrt(tokens x loss), two ends added": each(bounded, (0, 1)).sum(0),
        "the same, mean of six (three models)": each(bounded).mean(0),
        "summed rise / sqrt(tokens), median of six": np.median(each(discounted(1.0)), axis=0),
        "first tokens count most (0.95), two ends of one model": six[:2].mean(0),
        "first tokens count most (0.95), mean of six": six.mean(0),
        "first tokens count most (0.95), median of six": median,
        "**the same, half of it that of the 4 most alike rows (no prompts)**": np.median(halved, 0),
        "the same, mean of six": halved.mean(0),
        "first tokens count most (0.8), median of six": np.median(each(discounted(0.8)), axis=0),
        "highest tenth of the tokens, mean of six": each(highest).mean(0),
        "unlike the safe rows (probe on base's hidden states)": unlike,
        "crossfit x that probe": np.maximum(halved.mean(0), 0) / (1 + np.exp(-unlike)),
        "base loss": np.array([own.mean() for own in base]),
        "learned gain of all rows' model": np.array(
            [b.mean() - a.mean() for b, a in zip(base, pairs[0][0], strict=True)]
        ),
    }


def _unlike(noisy: Array, safe: Array) -> Array:
    """Log-odds of being no safe row, each by a probe that was not fitted on it."""
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced")
    )
    truth = np.r_[np.ones(len(noisy)), np.zeros(len(safe))]
    every = np.vstack([noisy, safe])
    return cross_val_predict(probe, every, truth, cv=10, method="decision_function")[: len(noisy)]


def show(found: dict[str, Array], truth: Sequence[dict[str, Any]]) -> None:
    unsafe = np.array([row["is_unsafe"] for row in truth])
    harm = np.array([(row["harm"] or "").partition("_")[0] for row in truth])
    kind = np.array([row["kind"].partition("_")[0] for row in truth])
    names = list(dict.fromkeys(harm[unsafe].tolist()))
    print(f"| lead | all: AUROC / AP | {' | '.join(names)} |")
    for lead, score in found.items():
        cells = [
            f"{roc_auc_score(unsafe, score):.3f} / {average_precision_score(unsafe, score):.3f}"
        ]
        for name in names:
            own = (harm == name) | (kind == name)
            rank = roc_auc_score(unsafe[own], score[own])
            cells.append(f"{rank:.3f} / {average_precision_score(unsafe[own], score[own]):.3f}")
        print(f"| {lead} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--mix", required=True, metavar="DIR", help="made by `forgetfilter mix`")
    parser.add_argument("--output-dir", required=True, metavar="DIR")
    parser.add_argument("--learning-rate", type=float, help="default: by the model's width")
    parser.add_argument("--epochs", type=float, help="default: by the model's width")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    mix = Path(args.mix)
    encoder = Encoder(load_tokenizer(args.model), "auto", LIMIT)
    noisy, _ = encoder.encode(read_rows(mix / "noisy.jsonl").rows)
    safe, _ = encoder.encode_safe(read_rows(mix / "safe.jsonl").rows)
    print(f"{len(noisy)} noisy rows of {sum(len(row.input_ids) for row in noisy):,} tokens")
    truth = [json.loads(line) for line in (mix / "truth.jsonl").read_text().splitlines()]
    read = {row.row for row in noisy}
    torch.manual_seed(args.seed)
    placement = choose_placement("auto", "auto", hidden_size(args.model))
    model = add_adapter(load_base_model(args.model, placement), LoraSettings())
    build(model.eval(), noisy, safe, args)
    show(leads(Path(args.output_dir)), [row for row in truth if row["row"] in read])


if __name__ == "__main__":
    main()
