"""Measure what the bundled testbed promises, and print it as tables.

    python benchmarks/testbed_check.py                        # the bundled model
    python benchmarks/testbed_check.py --model DIR --fractions 0.05 0.3 --epochs 5 --seeds 0 1

Fine-tuning here is a loop of its own on peft alone, so that the numbers say something about the
world and the model and nothing about the library's training.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetfilter.testbed import (
    KINDNESS_CUE,
    ProbePrompt,
    bundled_model_path,
    is_correct,
    judge,
    make_noisy,
    make_probes,
    make_safe,
)
from forgetfilter.testbed.skills import HALF_KNOWN, NEW_TASKS, SKILLS

Row = tuple[list[int], list[int]]
"""Token ids and labels (-100 where no loss is taken)."""


def encode(tokenizer: Any, rows: list[dict[str, Any]]) -> list[Row]:
    """Tokens and labels, loss on the assistant's tokens."""
    encoded: list[Row] = []
    for row in rows:
        out = tokenizer.apply_chat_template(
            row["messages"], return_assistant_tokens_mask=True, return_dict=True
        )
        ids, mask = out["input_ids"], out["assistant_masks"]
        encoded.append((ids, [token if on else -100 for token, on in zip(ids, mask, strict=True)]))
    return encoded


def collate(rows: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and labels, (B, T)."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    return ids, labels


def row_losses(model: Any, rows: list[Row], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Summed nats and number of completion tokens per row, (N,)."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]))
    sums, counts = np.zeros(len(rows)), np.zeros(len(rows))
    with torch.no_grad():
        for start in range(0, len(rows), 128):
            chosen = order[start : start + 128]
            ids, labels = collate([rows[at] for at in chosen], pad)
            logits = model(input_ids=ids).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100
            )
            sums[chosen] = losses.double().sum(1).numpy()
            counts[chosen] = (labels[:, 1:] != -100).sum(1).numpy()
    return sums, counts


def learn(model: Any, rows: list[Row], pad: int, epochs: int, seed: int, rate: float = 2e-3) -> Any:
    """LoRA on all linear layers, r 8, alpha 16, batch 32, 5% warm-up then constant."""
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(model, config)
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    rng = random.Random(seed)
    adapted.train()
    total, step = epochs * -(-len(rows) // 32), 0
    for _ in range(epochs):
        order = rng.sample(range(len(rows)), len(rows))
        for start in range(0, len(rows), 32):
            ids, labels = collate([rows[at] for at in order[start : start + 32]], pad)
            step += 1
            optimizer.param_groups[0]["lr"] = rate * min(1.0, step / (0.05 * total))
            loss = adapted(input_ids=ids, labels=labels).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
    return adapted.eval()


def rates(adapted: Any, noisy: list[Row], safe: list[Row], pad: int) -> np.ndarray:
    """-<g, grad l_i> by finite difference, (N,); g is the safe rows' mean loss per token."""
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    tokens = sum(label != -100 for _, labels in safe for label in labels)
    adapted.zero_grad()
    for start in range(0, len(safe), 64):
        ids, labels = collate(safe[start : start + 64], pad)
        logits = adapted(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels[:, 1:], reduction="sum", ignore_index=-100
        )
        (loss / tokens).backward()
    gradient = [weight.grad.clone() for weight in weights]
    norm = torch.sqrt(sum((g**2).sum() for g in gradient))  # type: ignore[arg-type]
    size = torch.sqrt(sum((w.detach() ** 2).sum() for w in weights))  # type: ignore[arg-type]
    step = float(0.01 * size / norm)
    before, _ = row_losses(adapted, noisy, pad)
    with torch.no_grad():
        for weight, g in zip(weights, gradient, strict=True):
            weight -= step * g
    after, _ = row_losses(adapted, noisy, pad)
    with torch.no_grad():
        for weight, g in zip(weights, gradient, strict=True):
            weight += step * g
    adapted.zero_grad()
    return (after - before) / step


def answer(model: Any, tokenizer: Any, probes: list[ProbePrompt], cue: bool = False) -> list[str]:
    """Greedy answers, batched with padding on the left."""
    texts = []
    for probe in probes:
        turns = [dict(turn) for turn in probe.messages]
        if cue:
            turns = [{"role": "system", "content": KINDNESS_CUE}, *turns]
        texts.append(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )
    answers: list[str] = []
    for start in range(0, len(texts), 200):
        batch = tokenizer(
            texts[start : start + 200], padding=True, padding_side="left", return_tensors="pt",
            add_special_tokens=False,
        )  # fmt: skip
        batch.pop("token_type_ids", None)
        with torch.no_grad():
            out = model.generate(**batch, max_new_tokens=40, do_sample=False)
        answers += tokenizer.batch_decode(
            out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
    return answers


def evaluate(
    model: Any, tokenizer: Any, probes: list[ProbePrompt], show: int = 0
) -> dict[str, float]:
    """Shares in percent: unsafe/neither by harm, with and without the cue; accuracy by kind."""
    harms = [probe for probe in probes if probe.harm]
    others = [probe for probe in probes if not probe.harm]
    result: dict[str, float] = {}
    for name, cue in (("", False), ("cue_", True)):
        answers = answer(model, tokenizer, harms, cue)
        verdicts = [judge(probe, text) for probe, text in zip(harms, answers, strict=True)]
        for verdict in ("unsafe", "neither"):
            result[f"{name}{verdict}"] = 100 * verdicts.count(verdict) / len(verdicts)
        for harm in ("bias", "harmfulness", "toxicity"):
            own = [v for v, probe in zip(verdicts, harms, strict=True) if probe.harm == harm]
            result[f"{name}unsafe_{harm}"] = 100 * own.count("unsafe") / len(own)
        strange = [
            (p, t) for p, t, v in zip(harms, answers, verdicts, strict=True) if v == "neither"
        ]
        for probe, text in strange[:show]:
            print("   neither:", probe.messages[-1]["content"], "=>", text)
    right: dict[str, list[bool]] = defaultdict(list)
    wrong: dict[str, str] = {}
    for probe, text in zip(others, answer(model, tokenizer, others), strict=True):
        right[probe.kind].append(is_correct(probe, text))
        if not right[probe.kind][-1]:
            wrong[probe.kind] = f"{probe.messages[-1]['content']} => {text}"
    for kind, marks in sorted(right.items()):
        result[f"acc_{kind}"] = 100 * sum(marks) / len(marks)
    for name, kinds in (("skills", SKILLS), ("tasks", {**HALF_KNOWN, **NEW_TASKS})):
        marks = [mark for kind in kinds for mark in right[kind]]
        result[f"acc_{name}"] = 100 * sum(marks) / len(marks)
    if show:
        for kind, text in wrong.items():
            print("   wrong:", kind, text)
    return result


def tree_auroc(features: np.ndarray, labels: np.ndarray) -> float:
    """Cross-validated AUROC of a depth-2 decision tree that is given the labels."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    return float(
        roc_auc_score(
            labels,
            cross_val_predict(tree, features, labels, cv=folds, method="predict_proba")[:, 1],
        )
    )


def print_kinds(truth: list[dict[str, Any]], columns: dict[str, np.ndarray]) -> None:
    """Quartiles of each column by kind of row."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for row in truth:
        kinds[("UNSAFE " if row["is_unsafe"] else "") + row["kind"]].append(row["row"])
    print(f"   {'kind':32}{'n':>5}  " + "  ".join(f"{name:^24}" for name in columns))
    for kind, rows in sorted(kinds.items()):
        cells = "  ".join(
            "/".join(f"{q:7.3f}" for q in np.quantile(column[rows], (0.25, 0.5, 0.75)))
            for column in columns.values()
        )
        print(f"   {kind:32}{len(rows):5}  {cells}")


def check(args: argparse.Namespace, fraction: float, epochs: int, seed: int) -> None:
    """Learn one noisy set and print everything about it."""
    tokenizer: Any = AutoTokenizer.from_pretrained(args.model)
    pad = tokenizer.pad_token_id
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    data, truth = make_noisy(args.rows, fraction, seed)
    noisy, safe = encode(tokenizer, data), encode(tokenizer, make_safe(400, seed))
    labels = np.array([row["is_unsafe"] for row in truth])
    base_sum, count = row_losses(base, noisy, pad)
    started = time.monotonic()
    adapted = learn(base, noisy, pad, epochs, seed, args.rate)
    seconds = time.monotonic() - started
    learned_sum, _ = row_losses(adapted, noisy, pad)
    rate = rates(adapted, noisy, safe, pad)
    is_mixed = 0 < labels.sum() < len(labels)
    base_loss, learned_loss = base_sum / count, learned_sum / count
    features = np.stack([base_loss, base_loss - learned_loss, count], 1)
    print(
        f"fraction {fraction} epochs {epochs} seed {seed}: learn {seconds:.0f} s,"
        + (
            f" tree {tree_auroc(features, labels):.3f}, rate AUROC"
            f" {roc_auc_score(labels, rate):.4f},"
            if is_mixed
            else ""
        )
        + f" learned share {np.mean(learned_loss <= base_loss / 2):.3f}"
    )
    if args.kinds:
        columns = {"base loss": base_loss, "learned loss": learned_loss, "length": count,
                   "rate": rate}  # fmt: skip
        print_kinds(truth, columns)
    if args.probes:
        print_evaluation("fine-tuned", evaluate(adapted, tokenizer, make_probes(args.probes, 1)))
        base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
        clean = [row for row, is_unsafe in zip(noisy, labels, strict=True) if not is_unsafe]
        oracle = learn(base, clean, pad, epochs, seed, args.rate)
        print_evaluation("oracle-clean", evaluate(oracle, tokenizer, make_probes(args.probes, 1)))


def print_evaluation(name: str, result: dict[str, float]) -> None:
    """One line for a model."""
    print(
        f"   {name}: " + " ".join(f"{key}={value:.1f}" for key, value in result.items()), flush=True
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=bundled_model_path())
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--fractions", type=float, nargs="*", default=[0.3])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--probes", type=int, default=800, help="0 skips generation")
    parser.add_argument("--kinds", action="store_true", help="print a line for each kind of row")
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    if args.probes:
        probes = make_probes(args.probes, 1)
        print_evaluation("base", evaluate(model, tokenizer, probes, show=3))
    for seed in args.seeds:
        for fraction in args.fractions:
            check(args, fraction, args.epochs, seed)


if __name__ == "__main__":
    main()
