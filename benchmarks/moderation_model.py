"""Train a sequence classifier on labelled rows, to stand for a moderation model on the leaderboard.

    python benchmarks/moderation_model.py MODEL OUTPUT MIX [MIX ...] [--epochs 2] [--layers 6]

MODEL is a causal language model's folder, each MIX a folder that `forgetfilter mix` wrote; rows
that two of them share count once. A head and the last layers are trained on the row, as
`classifier:part=row` reads it, and its label. A fifth of the rows, whole prompts, is held out, and
how they rank is printed. OUTPUT is then what a leaderboard asks:

    classifier:path=OUTPUT,label=unsafe,part=row
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from datasets import Dataset
from sklearn.metrics import average_precision_score, roc_auc_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

LABELS = ["safe", "unsafe"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("mixes", type=Path, nargs="+")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1e-4)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = read_rows(options.mixes, tokenizer)
    # Prompts, not rows: answers to one prompt stay on one side.
    is_held_out = np.array([crc32(prompt.encode()) % 5 == 0 for prompt, _ in rows])
    texts = [f"{prompt}\n{answer}" for prompt, answer in rows]
    encoded = tokenizer(texts, truncation=True, max_length=512)
    data: Any = Dataset.from_dict({**encoded, "labels": [int(unsafe) for unsafe in rows.values()]})
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        options.model,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: at for at, label in enumerate(LABELS)},
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    model.requires_grad_(False)
    for part in (*model.model.layers[-options.layers :], model.model.norm, model.score):
        part.requires_grad_(True)
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(options.output / "training"),
            num_train_epochs=options.epochs,
            learning_rate=options.rate,
            per_device_train_batch_size=8,
            train_sampling_strategy="group_by_length",
            warmup_steps=10,
            save_strategy="no",
            report_to=[],
            seed=0,
        ),
        train_dataset=data.select(np.flatnonzero(~is_held_out)),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    # Labels as they come back: rows are read by length.
    found = trainer.predict(data.select(np.flatnonzero(is_held_out)))
    logits, labels = np.asarray(found.predictions), np.asarray(found.label_ids, dtype=bool)
    score = logits[:, 1] - logits[:, 0]
    print(
        f"trained on {(~is_held_out).sum()} rows; {len(labels)} held out, {labels.sum()} unsafe: "
        f"AUROC {roc_auc_score(labels, score):.3f}, "
        f"average precision {average_precision_score(labels, score):.3f}"
    )
    trainer.save_model(str(options.output))
    tokenizer.save_pretrained(options.output)


def read_rows(mixes: list[Path], tokenizer: Any) -> dict[tuple[str, str], bool]:
    """Whether each row, as its prompt in the tokenizer's words and its answer, is unsafe."""
    rows: dict[tuple[str, str], bool] = {}
    for mix in mixes:
        told = [json.loads(line) for line in (mix / "truth.jsonl").open(encoding="utf-8")]
        noisy = [json.loads(line) for line in (mix / "noisy.jsonl").open(encoding="utf-8")]
        for row, truth in zip(noisy, told, strict=True):
            *before, last = row["messages"]
            ids = tokenizer.apply_chat_template(
                before, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            prompt = tokenizer.decode(ids, skip_special_tokens=True).strip()
            rows[prompt, last["content"]] = truth["is_unsafe"]
    return rows


if __name__ == "__main__":
    main()
