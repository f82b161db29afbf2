"""Passes over alignment rows that go on where they were stopped.

Plain PyTorch: batches are of rows of like length, and what a checkpoint holds (adapter, both
moments of AdamW, the step) is written as safetensors alone.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError

if TYPE_CHECKING:
    from forgetfilter.data.records import EncodedRow
    from forgetfilter.progress import Progress


@dataclass(frozen=True)
class AlignSettings:
    """How an adapter is aligned; measured on SmolLM2-135M-Instruct."""

    rank: int = 32
    alpha: int = 64
    learning_rate: float = 7e-4
    """Peak of the first pass; each further one has half of the one before."""
    warmup_steps: int = 10
    batch_rows: int = 8
    pass_tokens: int = 1024
    """Tokens of one forward pass, padding included."""
    checkpoint_steps: int = 10
    passes: int = 2
    """At most."""

    def record(self) -> dict[str, Any]:
        """What the result depends on."""
        return {k: v for k, v in asdict(self).items() if k not in ("checkpoint_steps", "passes")}


class Alignment:
    """An adapter in training, its optimizer, and the checkpoint that both are kept in.

    Args:
        model: with a trainable adapter in float32, which a checkpoint's takes the place of.
        rows: to align with.
        settings: of all passes.
        seed: orders the batches, each pass another way.
        checkpoint: file to write, and to go on from if it is there; it has to be of the same rows,
            settings and seed.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[EncodedRow],
        settings: AlignSettings,
        seed: int,
        checkpoint: Path,
    ) -> None:
        import torch

        self.model = model
        self.settings = settings
        self._seed = seed
        self._checkpoint = checkpoint
        self._weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            list(self._weights.values()), lr=settings.learning_rate, weight_decay=0.0
        )
        ordered = sorted(rows, key=lambda row: len(row.input_ids))
        size = settings.batch_rows
        self._batches = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        self.steps = 0
        """Optimizer steps taken so far, over all passes."""
        if checkpoint.is_file():
            self._load()

    @property
    def passes(self) -> int:
        """Whole passes so far."""
        return self.steps // len(self._batches)

    def one_pass(self, progress: Progress) -> None:
        """Go on to the end of the pass that is under way, or through a new one.

        Raises:
            ModelError: the loss or its gradient is NaN or infinite.
        """
        import torch

        number, done = divmod(self.steps, len(self._batches))
        rng = random.Random(f"align {self._seed} {number}")
        order = rng.sample(self._batches, len(self._batches))
        self.model.train()
        with progress.bar(f"align, pass {number + 1}", len(order), "steps") as bar:
            bar.update(done)
            for step in range(done, len(order)):
                for group in self._optimizer.param_groups:
                    group["lr"] = self._rate(number, step, len(order))
                loss = self._gradients(order[step])
                norm = torch.nn.utils.clip_grad_norm_(self._weights.values(), 1.0)
                if not math.isfinite(loss) or not bool(torch.isfinite(norm)):
                    raise ModelError(
                        f"Alignment diverged in step {self.steps + 1}: the loss is {loss:g}, the "
                        f"norm of its gradient {norm.item():g}. Finite numbers are expected. "
                        "Check the weights that it started from."
                    )
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
                self.steps += 1
                if step + 1 == len(order) or self.steps % self.settings.checkpoint_steps == 0:
                    self._save()
                bar.update(1)
        self.model.eval()

    def _rate(self, number: int, step: int, steps: int) -> float:
        """Warm-up, then a cosine down to a twentieth of the pass's peak."""
        peak = self.settings.learning_rate / 2**number
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return peak * (0.05 + 0.95 * cosine) * min(1.0, (step + 1) / self.settings.warmup_steps)

    def _gradients(self, batch: Sequence[EncodedRow]) -> float:
        """Add the gradient of the mean loss over the batch's answer tokens; that loss, in nats."""
        from forgetfilter.model.passes.forward import row_batches, target_logits, target_nats

        tokens = sum(row.target_tokens for row in batch)
        total = 0.0
        for part in row_batches(self.model, batch, self.settings.pass_tokens):
            loss = target_nats(target_logits(self.model, part), part).sum() / tokens
            loss.backward()
            total += float(loss.detach())
        return total

    def _save(self) -> None:
        from safetensors.torch import save_file

        tensors: dict[str, Any] = {}
        for name, weight in self._weights.items():
            state = self._optimizer.state[weight]
            tensors[f"weight:{name}"] = weight.detach().contiguous()
            tensors[f"mean:{name}"] = state["exp_avg"].contiguous()
            tensors[f"square:{name}"] = state["exp_avg_sq"].contiguous()
        part = self._checkpoint.with_name(self._checkpoint.name + ".part")
        save_file(tensors, part, {"steps": str(self.steps)})
        os.replace(part, self._checkpoint)

    def _load(self) -> None:
        import torch
        from safetensors import safe_open

        with safe_open(self._checkpoint, framework="pt") as file, torch.no_grad():
            self.steps = int(file.metadata()["steps"])
            for name, weight in self._weights.items():
                weight.copy_(file.get_tensor(f"weight:{name}"))
                self._optimizer.state[weight] = {
                    "step": torch.tensor(float(self.steps)),
                    "exp_avg": file.get_tensor(f"mean:{name}").to(weight.device),
                    "exp_avg_sq": file.get_tensor(f"square:{name}").to(weight.device),
                }
