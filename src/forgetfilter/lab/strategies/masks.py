"""A mask over the numbers of an adapter, learned on preferences; see `somf`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.data.records import EncodedRow
from forgetfilter.lab.strategies.exemplars import Pair
from forgetfilter.model.state import ModelState

if TYPE_CHECKING:
    from torch import Tensor

_TEMPERATURE = 0.5
_BETA = 0.1
"""Strength of the preference objective; the usual one, as the paper's is not known here."""
_PAIRS_A_STEP = 4


def masked(
    safe: Mapping[str, Tensor], tuned: Mapping[str, Tensor], mask: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``safe + mask * (tuned - safe) / mean(mask)``, tensor by tensor."""
    return {
        name: safe[name] + mask[name] * (tuned[name] - safe[name]) / mask[name].mean()
        for name in tuned
    }


class MaskCourse:
    """Learns the mask of a model's adapter, and leaves the adapter masked.

    Args:
        model: with the fine-tuned adapter, open to gradients.
        safe: the numbers of the safe model's adapter, by parameter.
    """

    def __init__(self, model: Any, safe: Mapping[str, Tensor]) -> None:
        import torch

        self.model, self.safe = model, safe
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tuned = {name: p.detach().clone() for name, p in self.weights.items()}
        self.row_passes = 0
        """Forward and backward passes, each over one row."""
        self.logits = {n: torch.zeros_like(p, requires_grad=True) for n, p in self.tuned.items()}

    def learn(self, pairs: Sequence[Pair], steps: int, rate: float, seed: int) -> None:
        """Take ``steps`` steps on the logits, four pairs each, and put the final mask on."""
        import torch

        draws = torch.Generator().manual_seed(seed)
        rng = np.random.default_rng(seed)
        rows = [row for pair in pairs for row in (pair.safe, pair.unsafe)]
        self._put_on(self.safe)
        with torch.no_grad():
            reference = self._log_likelihoods(rows).reshape(-1, 2)
        optimizer = torch.optim.Adam(list(self.logits.values()), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
        for _ in range(steps):
            mask = {
                name: ((logit + _logistic(logit, draws)) / _TEMPERATURE).sigmoid()
                for name, logit in self.logits.items()
            }
            found = masked(self.safe, self.tuned, mask)
            self._put_on(found)
            chosen = rng.choice(len(pairs), min(_PAIRS_A_STEP, len(pairs)), replace=False)
            own = self._log_likelihoods([rows[2 * at + side] for at in chosen for side in (0, 1)])
            self.row_passes += len(own)
            gains = own.reshape(-1, 2) - reference[chosen.tolist()]
            loss = -torch.nn.functional.logsigmoid(_BETA * (gains[:, 0] - gains[:, 1])).mean()
            slopes = torch.autograd.grad(loss, list(self.weights.values()))
            optimizer.zero_grad()
            torch.autograd.backward([found[name] for name in self.weights], slopes)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            final = {name: (logit / _TEMPERATURE).sigmoid() for name, logit in self.logits.items()}
            self._put_on(masked(self.safe, self.tuned, final))

    def _put_on(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.data.copy_(values[name].detach())

    def _log_likelihoods(self, rows: Sequence[EncodedRow]) -> Tensor:
        """Of the answer of each row, in nats, with its graph, (rows,)."""
        import torch

        from forgetfilter.model.passes.forward import row_batches, target_logits, target_nats

        parts: list[Tensor] = []
        places: list[int] = []
        for batch in row_batches(self.model, rows, 8192):
            nats = target_nats(target_logits(self.model, batch), batch)
            owner = torch.tensor(batch.owner, device=nats.device)
            parts.append(-torch.zeros(len(batch.indices)).to(nats).index_add(0, owner, nats))
            places += batch.indices
        return torch.cat(parts)[np.argsort(places).tolist()]


def _logistic(like: Tensor, draws: Any) -> Tensor:
    """Logistic noise of the shape of ``like``."""
    import torch

    uniform = torch.rand(like.shape, generator=draws).clamp(1e-6, 1 - 1e-6).to(like)
    return (uniform / (1 - uniform)).log()


def safe_weights(model: Any, start: ModelState) -> dict[str, Tensor]:
    """The adapter where the fine-tune began; at base, the tuned one with its second factor zero."""
    import torch

    from forgetfilter.model.loading.adapter_sums import StoredAdapter

    stored = {} if start.adapter is None else StoredAdapter.read(start.adapter).pairs
    found: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            place, _, rest = name.partition(".lora_")
            is_second = rest.startswith("B")
            if stored:
                found[name] = stored[place][int(is_second)].to(weight)
            else:
                found[name] = torch.zeros_like(weight) if is_second else weight.detach().clone()
    return found
