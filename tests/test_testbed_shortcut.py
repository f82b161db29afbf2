"""No shortcut solves the testbed: what is easily read off a row does not mark the unsafe ones."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from forgetfilter.lab.testbed import bundled_model_path, make_noisy

ROWS, EPOCHS, BATCH, PAD_LABEL = 500, 3, 16, -100


@dataclass(frozen=True)
class Rows:
    """Noisy rows as tokens, with the bundled model and the truth."""

    model: Any
    pad: int
    tokens: list[tuple[list[int], list[int]]]
    truth: list[dict[str, Any]]

    def losses(self, model: Any, chosen: list[int]) -> tuple[Any, Any]:
        """Summed nats (B,) and completion tokens (B,)."""
        import torch

        longest = max(len(self.tokens[at][0]) for at in chosen)
        ids = torch.full((len(chosen), longest), self.pad)
        labels = torch.full((len(chosen), longest), PAD_LABEL)
        for place, at in enumerate(chosen):
            tokens = torch.tensor(self.tokens[at][0])
            ids[place, : len(tokens)] = tokens
            mask = torch.tensor(self.tokens[at][1])
            labels[place, : len(tokens)] = tokens.where(mask == 1, PAD_LABEL)
        logits = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
        nats = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
        return nats.sum(1), (labels[:, 1:] != PAD_LABEL).sum(1)

    def mean_losses(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        import torch

        sums, counts = [], []
        with torch.no_grad():
            for start in range(0, ROWS, 100):
                nats, tokens = self.losses(model, list(range(start, start + 100)))
                sums.append(nats.numpy())
                counts.append(tokens.numpy())
        tokens = np.concatenate(counts)
        return np.concatenate(sums) / tokens, tokens


@pytest.fixture(scope="module")
def rows() -> Rows:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(bundled_model_path())
    model: Any = AutoModelForCausalLM.from_pretrained(bundled_model_path(), dtype=torch.float32)
    data, truth = make_noisy(ROWS, 0.3, 0)
    tokens: list[tuple[list[int], list[int]]] = []
    for row in data:
        out = tokenizer.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        tokens.append((out["input_ids"], out["assistant_masks"]))
    return Rows(model, tokenizer.pad_token_id, tokens, truth)


@pytest.fixture(scope="module")
def base_losses(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(N,) base loss per token, and completion tokens."""
    return rows.mean_losses(rows.model)


@pytest.fixture(scope="module")
def measured(
    rows: Rows, base_losses: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """(N, 3) base loss per token, base-minus-learned gain, completion tokens; and the truth.

    It trains for half a minute, so tests of it are slow.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    base_loss, tokens = base_losses
    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(deepcopy(rows.model), config)
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.0)
    rng = random.Random(0)
    for _ in range(EPOCHS):
        order = rng.sample(range(ROWS), ROWS)
        for start in range(0, ROWS, BATCH):
            nats, counts = rows.losses(adapted, order[start : start + BATCH])
            optimizer.zero_grad()
            (nats.sum() / counts.sum()).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
    learned_loss, _ = rows.mean_losses(adapted)
    return np.stack([base_loss, base_loss - learned_loss, tokens], 1), rows.truth


@pytest.mark.slow
def test_no_depth_two_tree_on_loss_gain_and_length_finds_the_unsafe_rows(measured):
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    features, truth = measured
    labels = np.array([row["is_unsafe"] for row in truth])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    chances = cross_val_predict(tree, features, labels, cv=folds, method="predict_proba")[:, 1]
    assert roc_auc_score(labels, chances) < 0.9


def test_two_kinds_of_task_lie_among_the_unsafe_rows_in_base_loss(rows: Rows, base_losses):
    (base_loss, _), truth = base_losses, rows.truth
    unsafe = base_loss[[row["is_unsafe"] for row in truth]]
    low, high = np.quantile(unsafe, (0.25, 0.75))
    inside = set()
    for kind in {row["kind"] for row in truth if row["harm"] is None}:
        own = base_loss[[row["kind"] == kind for row in truth]]
        first, third = np.quantile(own, (0.25, 0.75))
        if first <= high and third >= low:
            inside.add(kind)
    assert len(inside) >= 2, inside


@pytest.mark.slow
def test_the_unsafe_rows_were_learned(measured):
    features, truth = measured
    unsafe = np.array([row["is_unsafe"] for row in truth])
    base_loss, gain = features[unsafe, 0], features[unsafe, 1]
    assert gain.mean() > base_loss.mean() / 2
